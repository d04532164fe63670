"""The dashboard inside other programs: Starlette under a prefix, and WSGI programs (Flask, Django) through a2wsgi."""

from __future__ import annotations

import asyncio
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import django
import httpx
import pytest
from a2wsgi import ASGIMiddleware
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.urls import path
from flask import Flask
from starlette.requests import Request
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from headrace import Headrace
from headrace.web import Access, dashboard

Wsgi = Callable[..., Any]
OWN = {"sec-fetch-site": "same-origin"}
urlpatterns = [path("hello", lambda _: HttpResponse("hello from Django"))]


@pytest.fixture
def app(url: str) -> Iterator[Headrace]:
    with Headrace(url) as found:
        yield found


class _Threads(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Silent(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not told on the terminal."""


@contextmanager
def served(wsgi: Wsgi) -> Iterator[httpx.Client]:
    """A real server around a WSGI program, and a client for it."""
    with make_server("127.0.0.1", 0, wsgi, _Threads, _Silent) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{server.server_port}", timeout=30) as client:
                yield client
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def bridged(app: Headrace, access: Callable[[Request], Access]) -> Iterator[Wsgi]:
    """The dashboard as a WSGI program, on an event loop of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    asgi: Any = dashboard(app, access=access)
    try:
        yield ASGIMiddleware(asgi, loop=loop)
    finally:
        asyncio.run_coroutine_threadsafe(asgi.state.source.aclose(), loop).result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def flask_program() -> Wsgi:
    flask = Flask(__name__)

    @flask.get("/hello")
    def hello() -> str:
        return "hello from Flask"

    return flask.wsgi_app


def django_program() -> Wsgi:
    if not settings.configured:
        settings.configure()
    if not hasattr(settings, "ROOT_URLCONF"):
        settings.ROOT_URLCONF = __name__
        settings.ALLOWED_HOSTS = ["127.0.0.1"]
    django.setup()
    return get_wsgi_application()


@pytest.mark.parametrize(("name", "program"), [("Flask", flask_program), ("Django", django_program)])
def test_a_wsgi_program_shows_the_dashboard_under_its_prefix(
    app: Headrace, name: str, program: Callable[[], Wsgi]
) -> None:
    """Pages, files, writes and the API work beside the program's own pages; links stay under the prefix."""
    task = app.task(name="mounts.task")(lambda: None)
    job = task.enqueue()
    with (
        bridged(app, lambda _: Access.all("ann")) as bridge,
        served(DispatcherMiddleware(program(), {"/ops/jobs": bridge})) as client,
    ):
        assert client.get("/hello").text == f"hello from {name}"
        page = client.get("/ops/jobs/")
        assert page.status_code == 200 and 'href="/ops/jobs/queues"' in page.text
        script = page.text.split('src="', 1)[1].split('"', 1)[0]
        assert script.startswith("/ops/jobs/static/") and client.get(script).status_code == 200
        rows = client.get("/ops/jobs/api/v1/jobs", params={"queue": "default", "tab": "queued"}).json()
        assert job.id in str(rows)
        cancelled = client.post(f"/ops/jobs/jobs/default/{job.id}/cancel", headers=OWN)
        assert cancelled.status_code == 303 and cancelled.headers["location"].startswith("/ops/jobs/jobs/default/")
        assert client.get(cancelled.headers["location"]).status_code == 200
        assert job.refresh().state == "cancelled"
        assert (
            client.post(f"/ops/jobs/jobs/default/{job.id}/retry", headers={"sec-fetch-site": "cross-site"}).status_code
            == 403
        )


def test_access_is_asked_of_the_program_around_it(app: Headrace) -> None:
    """What the program around it noted of its visitor reaches `access`; without rights there is no answer."""

    def access(request: Request) -> Access:
        user = request.scope["wsgi_environ"].get("REMOTE_USER", "")
        return Access.all(user) if user == "ann" else Access.none()

    with bridged(app, access) as bridge:

        def with_login(environ: dict[str, Any], start_response: Any) -> Any:
            environ["REMOTE_USER"] = environ.get("HTTP_X_TEST_LOGIN", "")
            return bridge(environ, start_response)

        with served(with_login) as client:
            assert client.get("/queues").status_code == 401
            assert client.get("/queues", headers={"x-test-login": "ann"}).status_code == 200
