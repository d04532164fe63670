"""The web application: it takes page views without touching the database, and shows what came of them."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response
from fastapi.templating import Jinja2Templates
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from headrace import JobExists, QueueFull, ServerError
from headrace.engine.admin import count_jobs
from headrace.engine.keys import queue_keys
from systems.common.database import make_async_engine
from systems.tracking.events import BODY_BYTES_MAX, Sent, make_view, read_body, read_query
from systems.tracking.figures import Figures, read_figures
from systems.tracking.models import SCHEMA
from systems.tracking.tasks import QUEUE, app, store

COOKIE = "visitor"
COOKIE_LIVES_S = 365 * 86_400
FIGURES_WITHIN_S = 2.0
QUEUE_WITHIN_S = 3.0
"""Less than the library would try for: a browser does not wait that long, and has the view sent again later."""
GIF = bytes.fromhex("47494638396101000100800000000000ffffff21f90401000000002c00000000010001000002024401003b")
SILENT = "the queue does not answer"
HERE = Path(__file__).parent
templates = Jinja2Templates(HERE / "templates")


def _is_away(why: str) -> JSONResponse:
    """What is said when the queue cannot take a view, or tell of those that wait."""
    return JSONResponse({"error": why}, 503, {"Retry-After": "1"})


@asynccontextmanager
async def lifespan(web: FastAPI) -> AsyncIterator[None]:
    engine: AsyncEngine = make_async_engine(SCHEMA, pool_size=2)
    web.state.engine = engine
    yield
    await engine.dispose()
    await app.aclose()


web = FastAPI(title="Tracking", lifespan=lifespan)


@web.exception_handler(ServerError)
@web.exception_handler(TimeoutError)
async def tell(_: Request, error: Exception) -> Response:
    """The page of figures, without its queue."""
    return _is_away(str(error) or SILENT)


@web.post("/t", status_code=202)
async def take_view(request: Request) -> Response:
    """Take one page view: JSON {"page", "visitor", "referrer"?, "event"?}, whatever its content type."""
    body = await request.body()
    if len(body) > BODY_BYTES_MAX:
        return JSONResponse({"error": f"more than {BODY_BYTES_MAX} bytes"}, 413)
    try:
        sent = read_body(body)
    except msgspec.MsgspecError as error:
        return JSONResponse({"error": str(error)}, 422)
    return await _enqueued(request, sent)


@web.get("/t.gif", status_code=202)
async def take_view_by_image(request: Request, page: str = "", visitor: str = "", referrer: str = "") -> Response:
    """Take one page view from where no script runs: <img src="/t.gif?page=/start">. The page is else the Referer."""
    headers = request.headers
    visitor = visitor or request.cookies.get(COOKIE) or secrets.token_hex(8)
    try:
        sent = read_query(page or headers.get("referer", ""), visitor, referrer)
    except msgspec.MsgspecError as error:
        return JSONResponse({"error": str(error)}, 422)
    answer = await _enqueued(request, sent)
    if answer.status_code == 202:
        answer = Response(GIF, 202, {"Cache-Control": "no-store"}, "image/gif")
        answer.set_cookie(COOKIE, visitor, max_age=COOKIE_LIVES_S, httponly=True, samesite="lax")
    return answer


async def _enqueued(request: Request, sent: Sent) -> Response:
    host = request.client.host if request.client else None
    view = make_view(sent, browser=request.headers.get("user-agent", ""), host=host, at=datetime.now(UTC))
    target = store if sent.event is None else store.options(job_id=str(sent.event))
    try:
        async with asyncio.timeout(QUEUE_WITHIN_S):
            job_id = (await target.aenqueue(view)).id
    except JobExists as error:
        job_id = error.job_id  # sent again: it was taken then
    except TimeoutError:
        return _is_away(SILENT)  # or it has, too late: who asks again should name the event
    except (ServerError, QueueFull) as error:
        return _is_away(str(error))
    return JSONResponse({"id": job_id}, 202)


@web.get("/t.js")
async def script() -> Response:
    """What a site puts into its pages: <script src="https://…/t.js"></script>."""
    return Response((HERE / "templates/t.js").read_text("utf8"), media_type="text/javascript")


@web.get("/", response_class=HTMLResponse)
async def show(request: Request) -> Response:
    """The page of figures."""
    return templates.TemplateResponse(request, "page.html", {"figures": await _figures(request)})


@web.get("/figures")
async def figures(request: Request) -> dict[str, Any]:
    """The same as data; the page asks for it each second."""
    data: dict[str, Any] = msgspec.to_builtins(await _figures(request))
    return data


async def _figures(request: Request) -> Figures:
    """The database's, while it answers; how many views wait is always known."""
    async with asyncio.timeout(QUEUE_WITHIN_S):
        counts = await app.aclient.run(count_jobs(queue_keys(QUEUE)))
    try:
        async with asyncio.timeout(FIGURES_WITHIN_S), request.app.state.engine.connect() as connection:
            return await read_figures(connection, waiting=counts.live)
    except (TimeoutError, OSError, SQLAlchemyError):
        return Figures(waiting=counts.live)
