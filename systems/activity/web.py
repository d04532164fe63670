"""The web application with its log: the middleware and the handler around `application`, and the page to search events."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any

import msgspec
from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, Response
from sqlalchemy.exc import SQLAlchemyError

from systems.activity import application
from systems.activity.capture import EventHandler, LogMiddleware
from systems.activity.log import LIMIT_BYTES, EventLog
from systems.activity.models import SCHEMA
from systems.activity.pages import page
from systems.activity.search import Asked, Found, search
from systems.activity.tasks import app as queue
from systems.activity.tasks import send
from systems.common.database import make_async_engine

FOUND_WITHIN_S = 5.0
LOGGERS = ("systems.activity", "uvicorn.error")
"""Whose records become events. In an application of your own: the root, ""."""


def spool_root() -> Path:
    """$ACTIVITY_SPOOL: a folder on a local disk that outlives the process; by default in the folder it is started in."""
    return Path(os.environ.get("ACTIVITY_SPOOL") or ".headrace/activity-spool")


def spool_limit() -> int:
    """$ACTIVITY_SPOOL_BYTES."""
    return int(os.environ.get("ACTIVITY_SPOOL_BYTES") or LIMIT_BYTES)


@asynccontextmanager
async def logged(web: FastAPI) -> AsyncIterator[None]:
    """The log of this process, open."""
    to_stderr = logging.StreamHandler()
    to_stderr.setLevel(logging.WARNING)
    logging.basicConfig(handlers=[to_stderr], format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    log = web.state.log = EventLog(spool_root(), send, limit_bytes=spool_limit())
    handler = EventHandler(log)
    heard = [logging.getLogger(name) for name in LOGGERS]
    for logger in heard:
        logger.addHandler(handler)
    log.start()
    try:
        yield
    finally:
        for logger in heard:
            logger.removeHandler(handler)
        await asyncio.to_thread(log.close)
        web.state.log = None
        await queue.aclose()


def make_web(*, has_log: bool = True) -> FastAPI:
    """The application; `has_log=False`: without its log, to compare."""

    @asynccontextmanager
    async def lifespan(web: FastAPI) -> AsyncIterator[None]:
        web.state.engine = make_async_engine(SCHEMA, pool_size=10)
        logging.getLogger("systems.activity").setLevel(logging.INFO)
        async with logged(web) if has_log else nullcontext():
            yield
        await web.state.engine.dispose()

    web = FastAPI(title="Activity", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    web.state.log = None
    web.add_middleware(LogMiddleware, log=lambda: web.state.log, leave_out=("/log/figures",))
    web.include_router(application.router)
    if has_log:
        web.get("/log", response_class=HTMLResponse)(show_log)
        web.get("/log/figures")(figures)
    return web


async def show_log(
    request: Request,
    user: str = "",
    kind: str = "",
    since: str = "",
    until: str = "",
    about: str = "",
    before: str = "",
) -> Response:
    """Find events: by user, kind, time and request (`about`)."""
    asked = Asked(user=user, kind=kind, since=since, until=until, request=about, before=before)
    found, problem = Found([], []), ""
    try:
        async with asyncio.timeout(FOUND_WITHIN_S), request.app.state.engine.connect() as connection:
            found = await search(connection, asked)
    except ValueError:
        problem = "wrong"
    except (TimeoutError, OSError, SQLAlchemyError):
        problem = "away"
    status = {"": 200, "wrong": 422, "away": 503}[problem]
    return page(
        request,
        "log.html",
        status=status,
        asked=asked,
        found=found,
        problem=problem,
        figures=request.app.state.log.figures(),
    )


async def figures(request: Request) -> dict[str, Any]:
    """How the log of this process does."""
    found: dict[str, Any] = msgspec.to_builtins(request.app.state.log.figures())
    return found


web = make_web()
