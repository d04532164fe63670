"""How what happens becomes events: an ASGI middleware, and a handler for `logging`. Neither waits, neither raises.

The application logs as any program does; `extra={"kind": "login", ...}` names the kind, and what else it gives becomes data.
"""

from __future__ import annotations

import logging
import re
import secrets
import time
from collections.abc import Awaitable, Callable, MutableMapping
from contextvars import ContextVar
from typing import Any, TypeAlias

from systems.activity.events import REQUEST, make_event
from systems.activity.log import EventLog

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Application: TypeAlias = Callable[[Message, Receive, Send], Awaitable[None]]

OWN_LOGGERS = ("systems.activity.log", "headrace")
"""They tell of the log itself: as events they would make more of them."""
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "kind"}
_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_HEADER = b"x-request-id"


class Current:
    """The request that is being answered. `user` is set by who finds out."""

    __slots__ = ("id", "user")

    def __init__(self, id: str) -> None:
        self.id = id
        self.user = ""


_current: ContextVar[Current | None] = ContextVar("current", default=None)


def current() -> Current:
    """The request of this context; one without an id where there is none."""
    return _current.get() or Current("")


class LogMiddleware:
    """An event for each request: who asked for what, how it ended, how long it took; its id goes back as X-Request-ID.

    Args:
        log: where the events go; asked for at each request, so that it may be opened later.
        leave_out: ends of paths whose requests are no events, such as those that ask how the log does.
    """

    def __init__(self, app: Application, log: Callable[[], EventLog | None], leave_out: tuple[str, ...] = ()) -> None:
        self._app = app
        self._log = log
        self._leave_out = leave_out

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        log = self._log()
        if scope["type"] != "http" or log is None or scope["path"].endswith(self._leave_out):
            return await self._app(scope, receive, send)
        given = next((value for name, value in scope["headers"] if name == _HEADER), b"")
        request = Current(given.decode() if _ID.fullmatch(given) else secrets.token_hex(8))
        status = 0

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (_HEADER, request.id.encode())]
            await send(message)

        token = _current.set(request)
        began_s = time.perf_counter()
        error: BaseException | None = None
        try:
            await self._app(scope, receive, noted)
        except BaseException as raised:
            error = raised
            if isinstance(raised, Exception):
                status = status or 500  # what the server answers when nobody catches it
            raise
        finally:
            _current.reset(token)
            log.emit(_request_event(scope, request, status, time.perf_counter() - began_s, error))


def _request_event(scope: Message, request: Current, status: int, took_s: float, error: BaseException | None) -> Any:
    """Status 0: nothing was answered, as when the browser had gone."""
    client = scope.get("client")
    data = {"status": status, "ms": round(took_s * 1000, 2), "ip": client[0] if client else None}
    if error is not None:
        data["error"] = repr(error)
    return make_event(
        REQUEST,
        level="error" if error is not None or status >= 500 else "info",
        user=request.user,
        request=request.id,
        text=f"{scope['method']} {scope['path']}",
        data=data,
    )


class EventHandler(logging.Handler):
    """Makes an event of each record."""

    def __init__(self, log: EventLog, level: int = logging.INFO) -> None:
        super().__init__(level)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        try:
            if record.name.startswith(OWN_LOGGERS):
                return
            request = current()
            data = {name: value for name, value in vars(record).items() if name not in _STANDARD}
            if record.exc_info and record.exc_info[1] is not None:
                data["error"] = repr(record.exc_info[1])
            self._log.emit(
                make_event(
                    getattr(record, "kind", "log"),
                    level=record.levelname.lower(),
                    user=data.pop("user", "") or request.user,
                    request=request.id,
                    text=record.getMessage(),
                    data=data,
                )
            )
        except Exception:
            self.handleError(record)  # what `logging` does of a wrong format: told on stderr, never raised
