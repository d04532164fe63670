"""The web application: it takes a question, answers at once, tells how far the report is, and hands out its files."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import msgspec
from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from fastapi.templating import Jinja2Templates
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from headrace import HeadraceError, JobNotFound
from systems.analytics.models import SCHEMA, ReadyReport, ReportFile
from systems.analytics.progress import Progress, progress_of, read_counted
from systems.analytics.question import read_question
from systems.analytics.tasks import QUEUE, app, report_of
from systems.analytics.telling import can_tell, check_user, tell_when_ready
from systems.analytics.words import number, words
from systems.common.database import make_async_engine
from systems.common.outages import tell_outages

QUEUE_WITHIN_S = 3.0
DATABASE_WITHIN_S = 2.0
BODY_BYTES_MAX = 4_096
REPORTS_LISTED = 20
HERE = Path(__file__).parent
TYPES = {
    "en.html": "text/html; charset=utf-8",
    "vi.html": "text/html; charset=utf-8",
    "csv": "text/csv; charset=utf-8",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
}
GUARD = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'",
    "X-Content-Type-Options": "nosniff",
}
"""A report shows names that visitors chose: it may load nothing and run nothing."""
templates = Jinja2Templates(HERE / "templates")


@asynccontextmanager
async def lifespan(web: FastAPI) -> AsyncIterator[None]:
    engine: AsyncEngine = make_async_engine(SCHEMA, pool_size=4)
    web.state.engine = engine
    yield
    await engine.dispose()
    await app.aclose()


web = FastAPI(title="Analytics", lifespan=lifespan)
tell_outages(web)


@web.exception_handler(JobNotFound)
async def tell_not_found(_: Request, error: HeadraceError) -> Response:
    return JSONResponse({"error": "there is no such report"}, 404)


@web.get("/", response_class=HTMLResponse)
async def show(request: Request, lang: str = "") -> Response:
    """The form, and the reports that are ready."""
    today = datetime.now(UTC).date()
    shown = {
        "reports": await _reports(request),
        "can_tell": can_tell(),
        "today": today,
        "yesterday": today - timedelta(1),
    }
    return _page(request, "page.html", lang, shown | {"week_ago": today - timedelta(7)})


@web.post("/reports")
async def ask(request: Request) -> Response:
    """Take a question: a form, or JSON. No row is read here: the answer is a job's id, at once."""
    body = await request.body()
    if len(body) > BODY_BYTES_MAX:
        return JSONResponse({"error": f"more than {BODY_BYTES_MAX} bytes"}, 413)
    is_json = request.headers.get("content-type", "").startswith("application/json")
    try:
        form = msgspec.json.decode(body, type=dict[str, str]) if is_json else dict(parse_qsl(body.decode()))
        question = read_question(form, datetime.now(UTC).date())
        user = check_user(form.get("tell", ""))
    except (ValueError, msgspec.MsgspecError) as error:
        return JSONResponse({"error": str(error)}, 422)
    async with asyncio.timeout(QUEUE_WITHIN_S):
        run = await report_of(question).aenqueue()
        if user and can_tell():
            url = str(request.url_for("show_report", report=run.id))
            await tell_when_ready(
                await app.ajob(f"{run.id}.1", QUEUE), user, f"{question.first} – {question.last}", url
            )
    if is_json:
        return JSONResponse({"id": run.id, "is_new": run.is_new}, 202)
    return RedirectResponse(f"reports/{run.id}?lang={form.get('lang', '')}", 303)


@web.get("/reports/{report}", response_class=HTMLResponse)
async def show_report(request: Request, report: str, lang: str = "") -> Response:
    """How far it is; then the report."""
    return _page(request, "progress.html", lang, {"report": report, "progress": await _progress(request, report)})


@web.get("/reports/{report}/state")
async def state(request: Request, report: str) -> dict[str, Any]:
    """The same as data; the page asks for it twice a second."""
    found = await _progress(request, report)
    return {**msgspec.to_builtins(found), "percent": found.percent, "is_ended": found.is_ended}


@web.post("/reports/{report}/cancel")
async def cancel(request: Request, report: str, lang: str = "") -> Response:
    """End it for all who asked for it: what waits never starts, what runs is stopped."""
    async with asyncio.timeout(QUEUE_WITHIN_S):
        await (await app.flows.aget(report, queue=QUEUE)).acancel()
    return RedirectResponse(f"../{report}?lang={lang}", 303)


@web.get("/reports/{report}/files/{name}")
async def file(request: Request, report: str, name: str) -> Response:
    """en.html and vi.html to look at, csv and xlsx to download."""
    if name not in TYPES:
        return JSONResponse({"error": "there is no such file"}, 404)
    found = select(ReportFile.body).where(ReportFile.report == report, ReportFile.name == name)
    async with asyncio.timeout(DATABASE_WITHIN_S * 5), request.app.state.engine.connect() as connection:
        body = (await connection.execute(found)).scalar_one_or_none()
    if body is None:
        return JSONResponse({"error": "there is no such file"}, 404)
    headers = {**GUARD, "Cache-Control": "private, max-age=3600"}
    if not name.endswith("html"):
        headers["Content-Disposition"] = f'attachment; filename="report-{report}.{name}"'
    return Response(body, headers=headers, media_type=TYPES[name])


async def _progress(request: Request, report: str) -> Progress:
    """One look at the queue; rows and time left only while the database answers. Raises JobNotFound."""
    if not report.isalnum():
        raise JobNotFound(f"no report {report!r}")
    async with asyncio.timeout(QUEUE_WITHIN_S):
        last = await app.ajob(f"{report}.1", QUEUE)
    try:
        async with asyncio.timeout(DATABASE_WITHIN_S), request.app.state.engine.connect() as connection:
            return progress_of(last, await read_counted(connection, report))
    except (TimeoutError, OSError, SQLAlchemyError):
        return progress_of(last, None)


async def _reports(request: Request) -> list[Any] | None:
    """The newest that are ready; None while the database is away."""
    newest = select(ReadyReport).order_by(ReadyReport.made_at.desc()).limit(REPORTS_LISTED)
    try:
        async with asyncio.timeout(DATABASE_WITHIN_S), request.app.state.engine.connect() as connection:
            return list((await connection.execute(newest)).all())
    except (TimeoutError, OSError, SQLAlchemyError):
        return None


def _page(request: Request, template: str, lang: str, shown: dict[str, Any]) -> Response:
    language = lang or ("vi" if request.headers.get("accept-language", "").startswith("vi") else "en")
    t = words(language)
    shown |= {"t": t, "number": lambda value: number(value, t["language"])}
    return templates.TemplateResponse(request, template, shown)
