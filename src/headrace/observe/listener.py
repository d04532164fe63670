"""A small HTTP listener for probes and scrapers: GET of a few fixed paths, an answer a connection. It runs on the caller's loop.

Not for the open net: there is no TLS, and nobody is asked who they are. What a stranger can cost is bounded: connections,
bytes and seconds.
"""

from __future__ import annotations

import asyncio
import http
import inspect
from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple, TypeAlias

from headrace.errors import UsageError

MOST_AT_ONCE = 32
HEAD_BYTES_MAX = 8_192
WITHIN_S = 10.0


class Answer(NamedTuple):
    """A status, and a text of a type."""

    status: int
    text: str
    content_type: str = "text/plain; charset=utf-8"


Route: TypeAlias = "Callable[[], Answer | Awaitable[Answer]]"


class Listener:
    """Answers GET and HEAD of `routes` (path -> what answers it)."""

    def __init__(self, routes: Mapping[str, Route]) -> None:
        self._routes = routes
        self._server: asyncio.Server | None = None
        self._visits: set[asyncio.Task[None]] = set()

    async def open(self, host: str, port: int) -> str:
        """Listen, and return the address as `http://host:port`; port 0: any that is free.

        Raises:
            UsageError: that place cannot be listened on.
        """
        try:
            self._server = await asyncio.start_server(self._come, host, port, limit=HEAD_BYTES_MAX)
        except (OSError, OverflowError) as error:
            told = error.strerror if isinstance(error, OSError) and error.strerror else error
            raise UsageError(f"cannot listen on {host}:{port}: {told}") from error
        number = self._server.sockets[0].getsockname()[1]
        return f"http://{f'[{host}]' if ':' in host else host}:{number}"

    async def aclose(self) -> None:
        """Listen no more; who is being answered is cut off."""
        server, self._server = self._server, None
        if server is None:
            return
        server.close()
        for visit in self._visits:
            visit.cancel()
        await asyncio.gather(*self._visits, return_exceptions=True)

    async def _come(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        visit = asyncio.current_task()
        assert visit is not None
        self._visits.add(visit)
        try:
            if len(self._visits) <= MOST_AT_ONCE:
                async with asyncio.timeout(WITHIN_S):
                    await self._visit(reader, writer)
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, OSError, TimeoutError):
            writer.transport.abort()  # gone, too slow, or no HTTP: there is nobody to tell
        finally:
            self._visits.discard(visit)
            writer.close()

    async def _visit(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        words = head.split(b"\r\n", 1)[0].split(b" ")
        method, target = (words[0], words[1]) if len(words) == 3 else (b"", b"")
        answer = await self._answer(method, target.split(b"?")[0])
        body = answer.text.encode()
        lines = [
            f"HTTP/1.1 {answer.status} {http.HTTPStatus(answer.status).phrase}",
            f"Content-Type: {answer.content_type}",
            f"Content-Length: {len(body)}",
            "Cache-Control: no-store",
            "Connection: close",
            *(["Allow: GET, HEAD"] if answer.status == 405 else []),
        ]
        writer.write("\r\n".join([*lines, "", ""]).encode() + (b"" if method == b"HEAD" else body))
        await writer.drain()

    async def _answer(self, method: bytes, path: bytes) -> Answer:
        if not method:
            return Answer(400, "this is no HTTP request\n")
        if method not in (b"GET", b"HEAD"):
            return Answer(405, "GET or HEAD\n")
        route = self._routes.get(path.decode("latin-1"))
        if route is None:
            return Answer(404, f"there are: {', '.join(self._routes)}\n")
        found = route()
        return await found if inspect.isawaitable(found) else found
