"""Somebody who visits the dashboard, without a browser: for tests of what it answers."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import closing, contextmanager
from typing import Any, TypeVar

import httpx

from headrace import Headrace
from headrace.web import Access, dashboard
from headrace.web.data import Source

T = TypeVar("T")
OWN = {"sec-fetch-site": "same-origin"}
"""What browsers say of a form of the page's own."""


class Visitor:
    """Somebody with a browser; one event loop for all that they ask."""

    def __init__(self, asgi: Any, source: Source) -> None:
        self._runner = asyncio.Runner()
        self._client = httpx.AsyncClient(transport=httpx.ASGITransport(asgi), base_url="http://testserver")
        self.source = source

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.call(self._client.get(path, **options))

    def post(self, path: str, **options: Any) -> httpx.Response:
        return self.call(self._client.post(path, **options))

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(work)

    def close(self) -> None:
        self.call(self._client.aclose())
        self.call(self.source.aclose())
        self._runner.close()


@contextmanager
def visiting(app: Headrace, access: Access | None = None, **options: Any) -> Iterator[Visitor]:
    asgi: Any = dashboard(app, access=lambda _: access or Access.all("ann"), **options)
    with closing(Visitor(asgi, asgi.state.source)) as found:
        yield found
