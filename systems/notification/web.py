"""The web application: it takes notices and unsubscribes without touching the database, and shows each notice's journey."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import httpx
import msgspec
from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from fastapi.templating import Jinja2Templates
from sqlalchemy.exc import SQLAlchemyError

from headrace import Job, JobNotFound
from systems.common.database import make_async_engine
from systems.common.outages import tell_outages
from systems.notification import journeys
from systems.notification.kinds import CHANNELS, KINDS, Asked, read_asked
from systems.notification.models import SCHEMA
from systems.notification.providers import SERVICES
from systems.notification.tasks import DELIVERIES, NOTICES, URGENT, app, replay, take, unsubscribe
from systems.notification.unsubscribing import read_token
from systems.notification.words import words

QUEUE_WITHIN_S = 3.0
DATABASE_WITHIN_S = 2.0
BODY_BYTES_MAX = 8_192
HERE = Path(__file__).parent
templates = Jinja2Templates(HERE / "templates")


class Sent(msgspec.Struct):
    """A notice as JSON."""

    user: str
    kind: str
    values: dict[str, str]


@asynccontextmanager
async def lifespan(web: FastAPI) -> AsyncIterator[None]:
    engine = make_async_engine(SCHEMA, pool_size=4)
    web.state.engine = engine
    async with httpx.AsyncClient(timeout=DATABASE_WITHIN_S) as http:
        web.state.http = http
        yield
    await engine.dispose()
    await app.aclose()


web = FastAPI(title="Notification", lifespan=lifespan)
tell_outages(web)


@web.get("/", response_class=HTMLResponse)
async def show(request: Request, lang: str = "", kind: str = "order_shipped") -> Response:
    """A form to send one, the ways and how they are, the latest notices, and what is dead."""
    shown: dict[str, Any] = {
        "book": None,
        "channels": CHANNELS,
        "kinds": KINDS,
        "kind": kind if kind in KINDS else "order_shipped",
    }
    try:
        async with asyncio.timeout(DATABASE_WITHIN_S), request.app.state.engine.connect() as connection:
            shown["book"] = {
                "counts": await journeys.read_counts(connection),
                "latest": await journeys.read_latest(connection),
                "dead": await journeys.read_dead(connection),
                "users": await journeys.read_users(connection),
            }
    except (TimeoutError, OSError, SQLAlchemyError):
        pass
    shown["providers"] = {channel: await _provider(request, channel) for channel in CHANNELS}
    return _page(request, "page.html", lang, shown)


@web.post("/notices")
async def send(request: Request) -> Response:
    """Take a notice: JSON, or the page's form. The answer is its id, at once; the same one within an hour has the same id."""
    body = await request.body()
    if len(body) > BODY_BYTES_MAX:
        return JSONResponse({"error": f"more than {BODY_BYTES_MAX} bytes"}, 413)
    is_json = request.headers.get("content-type", "").startswith("application/json")
    lang = ""
    try:
        if is_json:
            sent = msgspec.json.decode(body, type=Sent)
            asked = read_asked(sent.user, sent.kind, sent.values)
        else:
            form = dict(parse_qsl(body.decode()))
            lang = form.pop("lang", "")
            asked = read_asked(form.pop("user", ""), form.pop("kind", ""), form)
    except (ValueError, msgspec.MsgspecError) as error:
        return JSONResponse({"error": str(error)}, 422)
    async with asyncio.timeout(QUEUE_WITHIN_S):
        job = await _taken(asked)
    if is_json:
        return JSONResponse({"id": job.id, "is_new": job.is_new}, 202)
    return RedirectResponse(f"notices/{job.id}?lang={lang}", 303)


async def _taken(asked: Asked) -> Job[list[str]]:
    task = take.options(priority=URGENT) if KINDS[asked.kind].is_urgent else take.options()
    return await task.aenqueue(asked.user, asked.kind, asked.values)


@web.get("/notices/{notice}", response_class=HTMLResponse)
async def show_notice(request: Request, notice: str, lang: str = "") -> Response:
    """Its journey by each way: what has happened, and what its job does now."""
    if not notice.isalnum():
        return JSONResponse({"error": "there is no such notice"}, 404)
    async with asyncio.timeout(DATABASE_WITHIN_S), request.app.state.engine.connect() as connection:
        journey = await journeys.read_journey(connection, notice)
    shown: dict[str, Any] = {"journey": journey, "now": {}, "taking": None}
    async with asyncio.timeout(QUEUE_WITHIN_S):
        if journey is None:
            shown["taking"] = await _job(notice, NOTICES)
            if shown["taking"] is None:
                return JSONResponse({"error": "there is no such notice"}, 404)
        for way in journey.ways if journey else []:
            if way.status == "waiting":
                shown["now"][way.delivery] = await _job(way.delivery, DELIVERIES)
    return _page(request, "journey.html", lang, shown)


@web.get("/notices/{notice}/state")
async def state(request: Request, notice: str) -> Response:
    """How each of its deliveries stands, as data."""
    async with asyncio.timeout(DATABASE_WITHIN_S), request.app.state.engine.connect() as connection:
        journey = await journeys.read_journey(connection, notice)
    if journey is None:
        return JSONResponse({"error": "it is not taken yet, or there is no such notice"}, 404)
    return JSONResponse(msgspec.to_builtins({way.channel: way for way in journey.ways}))


@web.post("/replay")
async def try_again(delivery: str | None = None, lang: str = "") -> Response:
    """Let a dead delivery try again, or all of them; a worker does it."""
    async with asyncio.timeout(QUEUE_WITHIN_S):
        await replay.aenqueue(delivery)
    return RedirectResponse(f"./?lang={lang}", 303)


@web.get("/unsubscribe/{token}", response_class=HTMLResponse)
async def ask_to_unsubscribe(request: Request, token: str, lang: str = "", done: bool = False) -> Response:
    """A page with a button: programs that look at links for users must not unsubscribe them."""
    subscription = read_token(token)
    if subscription is None:
        return JSONResponse({"error": "this link is not one of ours"}, 404)
    return _page(request, "unsubscribe.html", lang, {"subscription": subscription, "token": token, "done": done})


@web.post("/unsubscribe/{token}")
async def do_unsubscribe(request: Request, token: str, lang: str = "") -> Response:
    """One click, by the button or by a mail program (RFC 8058), without cookies or a login."""
    subscription = read_token(token)
    if subscription is None:
        return JSONResponse({"error": "this link is not one of ours"}, 404)
    async with asyncio.timeout(QUEUE_WITHIN_S):
        await unsubscribe.aenqueue(subscription.user, subscription.category)
    if (await request.body()) == b"List-Unsubscribe=One-Click":
        return Response(status_code=202)
    return RedirectResponse(f"{token}?done=true&lang={lang}", 303)


@web.post("/providers/{channel}")
async def switch(request: Request, channel: str, down: bool, lang: str = "") -> Response:
    """Take one of the simulated providers down, or bring it back: to see what becomes of notices."""
    if channel not in CHANNELS:
        return JSONResponse({"error": "there is no such way"}, 404)
    base = os.environ.get(SERVICES, "")
    await request.app.state.http.put(f"{base}/behaviour/{channel}", json={"is_down": down})
    return RedirectResponse(f"../?lang={lang}", 303)


async def _provider(request: Request, channel: str) -> dict[str, Any] | None:
    """What the simulated one tells of itself; None when it is not there, as with real ones."""
    try:
        answer = await request.app.state.http.get(f"{os.environ.get(SERVICES, '')}/ledger/{channel}")
        return dict(answer.raise_for_status().json())
    except (httpx.HTTPError, ValueError):
        return None


async def _job(job_id: str, queue: str) -> Job[Any] | None:
    try:
        return await app.ajob(job_id, queue)
    except JobNotFound:
        return None


def _page(request: Request, template: str, lang: str, shown: dict[str, Any]) -> Response:
    language = lang or ("vi" if request.headers.get("accept-language", "").startswith("vi") else "en")
    return templates.TemplateResponse(request, template, shown | {"t": words(language), "today": datetime.now(UTC)})
