"""The ASGI app: which address shows what, who may see or do it, and what stands around every answer.

1. `_Guard` wraps all: access, origin of writes, security headers, a page that says when the server is away.
2. Pages are whole and work without script; `live.js` asks for the same page again with its ETag, and changes what differs.
3. Writes are forms; each is checked, done, noted in the audit log, and answered with where to look.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from importlib import resources
from typing import Any
from urllib.parse import parse_qs, quote, urlencode

import jinja2
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from headrace.app import Headrace
from headrace.core.record import State
from headrace.engine import admin, ops
from headrace.engine.connect import masked_url
from headrace.errors import DuplicateJob, HeadraceError, JobNotFound, ServerError, UsageError
from headrace.progress import Progress
from headrace.version import __version__
from headrace.web import metrics
from headrace.web.access import Access, Decide, Right, is_own_request
from headrace.web.chart import bars, spark
from headrace.web.data import SPANS, TABS, Details, Overview, Source, in_words, tab_counts
from headrace.web.words import LANGUAGES, Words, choose

logger = logging.getLogger("headrace.web")
audit_logger = logging.getLogger("headrace.web.audit")

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
FORM_BYTES_MAX = 16_384
THEMES = ("auto", "light", "dark")
CONTENT_TYPES = {"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8"}


@cache
def static_files() -> dict[str, tuple[bytes, str]]:
    """Name -> (contents, type)."""
    folder = resources.files("headrace.web") / "static"
    return {
        file.name: (file.read_bytes(), CONTENT_TYPES[file.name.rpartition(".")[2]])
        for file in sorted(folder.iterdir(), key=lambda found: found.name)
        if file.name.rpartition(".")[2] in CONTENT_TYPES
    }


@cache
def static_hash() -> str:
    """One for all files: modules name each other by relative address, so they live in one folder."""
    whole = hashlib.sha256()
    for name, (data, _) in static_files().items():
        whole.update(name.encode() + b"\0" + data)
    return whole.hexdigest()[:16]


@cache
def _templates() -> jinja2.Environment:
    loader = jinja2.PackageLoader("headrace.web", "templates")
    found = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)  # fmt: skip
    found.filters |= {"span": shown_span, "instant": shown_instant, "part": lambda text: quote(str(text), safe="")}
    return found


def shown_span(seconds: float | None) -> str:
    """A length of time for people, in two digits or so; the same in all languages."""
    if seconds is None:
        return "–"
    if seconds < 1:
        return f"{seconds * 1000:.3g} ms"
    if seconds < 60:
        return f"{seconds:.3g} s"
    if seconds < 3600:
        return f"{seconds / 60:.3g} min"
    return f"{seconds / 3600:.3g} h" if seconds < 172_800 else f"{seconds / 86_400:.3g} d"


def shown_instant(at_ms: int | None) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC") if at_ms else "–"


class Site:
    """One dashboard: its source of data, who may use it, and its pages."""

    def __init__(self, app: Headrace, access: Decide, environment: str, hosts: Sequence[str] | None) -> None:
        self.source = Source(app)
        self._access = access
        self._environment = environment
        self._hosts = None if hosts is None else frozenset(hosts)

    def routes(self) -> list[Route]:
        def page(path: str, show: Callable[[Request], Awaitable[Response]]) -> Route:
            return Route(path, self._guarded(show, Right.READ), methods=["GET"])

        def act(path: str, right: Right, do: Callable[[Request, Mapping[str, str]], Awaitable[Response]]) -> Route:
            return Route(path, self._guarded(lambda request: self._write(request, do), right), methods=["POST"])

        job = "/jobs/{queue}/{job_id}"
        return [
            page("/", self._overview),
            page("/queues", self._queues),
            page("/jobs", self._jobs),
            page(job, self._job),
            page("/workers", self._workers),
            page("/audit", self._audit),
            act(job + "/retry", Right.RETRY_JOBS, self._retry),
            act(job + "/cancel", Right.CANCEL_JOBS, self._cancel),
            act(job + "/delete", Right.DELETE_JOBS, self._delete),
            act("/queues/{queue}/pause", Right.PAUSE_QUEUES, self._pause),
            act("/queues/{queue}/resume", Right.PAUSE_QUEUES, self._resume),
            act("/queues/{queue}/purge", Right.PURGE_QUEUES, self._purge),
            act("/workers/{worker}/{command}", Right.STOP_WORKERS, self._command),
            page("/metrics", self._metrics),
            page("/api/v1/queues", self._api_queues),
            page("/api/v1/workers", self._api_workers),
            page("/api/v1/jobs", self._api_jobs),
            page("/api/v1/jobs/{queue}/{job_id}", self._api_job),
            page("/api/v1/scale/{queue}", self._api_scale),
            Route("/static/{version}/{name}", self._static),
            Route("/livez", self._livez),
            Route("/readyz", self._readyz),
        ]

    # Around every answer

    def _guarded(
        self, show: Callable[[Request], Awaitable[Response]], right: Right
    ) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            response = await self._allowed(request, show, right)
            for name, value in HEADERS.items():
                response.headers.setdefault(name, value)
            response.headers.setdefault("Cache-Control", "no-cache, private")
            return response

        return answer

    async def _allowed(
        self, request: Request, show: Callable[[Request], Awaitable[Response]], right: Right
    ) -> Response:
        if self._hosts is not None and request.url.hostname not in self._hosts:
            return Response("this dashboard is not known by that name\n", 421, media_type="text/plain")
        found = self._access(request)
        access = await found if inspect.isawaitable(found) else found
        request.state.access = access
        request.state.words = Words(
            choose(
                request.query_params.get("lang"),
                request.cookies.get("hr_lang"),
                request.headers.get("accept-language", ""),
            )
        )
        if not access.rights:
            headers = {"WWW-Authenticate": 'Basic realm="headrace", charset="UTF-8"'}
            return Response("who are you?\n", 401, headers, media_type="text/plain")
        if not access.may(right):
            return await self._page(request, "error", 403, title="refused", message=request.state.words("no_right"))
        try:
            return await show(request)
        except DuplicateJob as error:
            return await self._page(request, "error", 409, title="refused", message=in_words(error))
        except (JobNotFound, UsageError) as error:
            return await self._page(request, "error", 404, title="not_found", message=in_words(error))
        except ServerError as error:
            logger.warning("%s", error)
            return await self._page(
                request, "away", 503, url=masked_url(self.source.config.url), message=in_words(error)
            )

    async def _page(self, request: Request, template: str, status: int = 200, **values: Any) -> Response:
        words: Words = request.state.words
        theme = request.query_params.get("theme") or request.cookies.get("hr_theme", "auto")
        root = request.scope.get("root_path", "")
        text = _templates().get_template(f"{template}.html").render(
            t=words, root=root, static=f"{root}/static/{static_hash()}", access=request.state.access, Right=Right,
            environment=self._environment, languages=LANGUAGES, theme=theme if theme in THEMES else "auto",
            themes=THEMES, path=request.url.path.removeprefix(root), here=_here(request), tab_counts=tab_counts,
            version=__version__, did=_did(request), **values,
        )  # fmt: skip
        if request.headers.get("accept", "").startswith("application/json"):
            return JSONResponse({"error": values.get("message", "")}, status)
        body = text.encode()
        etag = f'"{hashlib.sha256(body).hexdigest()[:24]}"'
        headers = {"ETag": etag, "Vary": "Cookie, Accept-Language"}
        if status == 200 and request.headers.get("if-none-match") == etag:
            return Response(status_code=304, headers=headers)
        response = Response(body, status, headers, media_type="text/html")
        for name, value, known in (("lang", words.language, LANGUAGES), ("theme", theme, THEMES)):
            if request.query_params.get(name) in known:
                response.set_cookie(
                    f"hr_{name}", value, max_age=31_536_000, path=root or "/", samesite="lax", httponly=True
                )
        return response

    # Pages

    async def _overview(self, request: Request) -> Response:
        if job_id := request.query_params.get("id", "").strip():
            queue = await self.source.find(job_id)
            if queue is None:
                raise JobNotFound(f"no job {job_id} in any queue: it never was, was deleted, or is no longer kept")
            return RedirectResponse(f"{request.scope.get('root_path', '')}/jobs/{queue}/{quote(job_id, safe='')}", 303)
        span = request.query_params.get("span", "1h")
        chart = await self.source.chart(span if span in SPANS else "1h")
        overview = await self.source.overview()
        return await self._page(
            request, "overview", overview=overview, chart=chart, spans=SPANS, attention=attention(overview),
            drawing=bars([(p.queue.get("succeeded", 0), p.queue.get("failed", 0)) for p in chart.points]),
        )  # fmt: skip

    async def _queues(self, request: Request) -> Response:
        overview = await self.source.overview()
        lines = {}
        for counts in overview.queues[:50]:
            chart = await self.source.chart("1h", counts.name)
            lines[counts.name] = spark([point.queue.get("succeeded", 0) for point in chart.points])
        return await self._page(request, "queues", overview=overview, lines=lines)

    async def _jobs(self, request: Request) -> Response:
        overview, queue, tab, cursor = await self._place(request)
        page = await self.source.jobs(queue, tab, cursor) if queue else None
        following = urlencode({"queue": queue, "tab": tab, "cursor": page.cursor}) if page and page.cursor else ""
        counts = next((tab_counts(each) for each in overview.queues if each.name == queue), dict.fromkeys(TABS, 0))
        return await self._page(
            request, "jobs", overview=overview, queue=queue, tab=tab, counts=counts, cursor=cursor,
            rows=[(row, admin.error_of(row.record)) for row in page.rows] if page else [], following=following,
        )  # fmt: skip

    async def _place(self, request: Request) -> tuple[Overview, str, str, str]:
        """Which list is meant: by default the first queue that has any job there."""
        overview = await self.source.overview()
        asked = request.query_params
        tab = asked.get("tab", "running")
        if tab not in TABS:
            raise UsageError(f"no tab {tab!r}; tabs: {', '.join(TABS)}")
        names = [counts.name for counts in overview.queues]
        full = [counts.name for counts in overview.queues if tab_counts(counts)[tab]]
        queue = asked.get("queue") or next(iter(full or names), "")
        if asked.get("queue") and queue not in names:
            raise UsageError(f"no queue {queue!r}")
        cursor = asked.get("cursor", "")
        place, _, offset = cursor.partition(":")
        if cursor and not (place.isalpha() and offset.isdecimal() and len(offset) < 16):
            raise UsageError("this address is not one of ours: its cursor cannot be read")
        return overview, queue, tab, cursor

    async def _job(self, request: Request) -> Response:
        details = await self.source.job(request.path_params["queue"], request.path_params["job_id"])
        sees = request.state.access.may(Right.SEE_ARGS)
        return await self._page(
            request, "job", job=details, record=details.record, state=details.look.state, sees=sees,
            steps=steps(details), progress=Progress.decode(details.look.progress), is_ended=details.look.state.is_ended,
        )  # fmt: skip

    async def _workers(self, request: Request) -> Response:
        return await self._page(request, "workers", workers=(await self.source.overview()).workers)

    async def _audit(self, request: Request) -> Response:
        notes = [json.loads(note) for note in await self.source.run(admin.list_actions(self.source.prefix))]
        return await self._page(request, "audit", notes=notes)

    # Writes

    async def _write(
        self, request: Request, do: Callable[[Request, Mapping[str, str]], Awaitable[Response]]
    ) -> Response:
        words: Words = request.state.words
        if not is_own_request(request):
            return await self._page(request, "error", 403, title="refused", message=words("not_our_page"))
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > FORM_BYTES_MAX:
                return await self._page(request, "error", 413, title="refused", message=words("too_long"))
        form = {name: values[0] for name, values in parse_qs(body.decode("utf8", "replace")).items()}
        response = await do(request, form)
        self.source.forget()
        return response

    async def _done(self, request: Request, did: str, what: str, count: int, to: str) -> Response:
        """Note it, and send the browser to where the result is to be seen."""
        access: Access = request.state.access
        note = {
            "at_ms": int(time.time() * 1000), "user": access.user, "did": did, "what": what, "count": count,
            "from": request.client.host if request.client else "",
        }  # fmt: skip
        line = json.dumps(note)
        audit_logger.info("%s", line)
        await self.source.run(admin.note_action(self.source.prefix, line.encode()))
        query = urlencode({"did": did, "n": count})
        return RedirectResponse(f"{request.scope.get('root_path', '')}{to}?{query}", 303)

    async def _on_job(self, request: Request, did: str, answer: str, done: Sequence[str], to: str = "") -> Response:
        queue, job_id = request.path_params["queue"], request.path_params["job_id"]
        to = to or f"/jobs/{queue}/{quote(job_id, safe='')}"
        return await self._done(request, did, f"{queue}/{job_id}", int(answer in done), to)

    async def _retry(self, request: Request, _: Mapping[str, str]) -> Response:
        queue, job_id = self._named(request)
        return await self._on_job(request, "retry", await self.source.run(ops.retry(queue, job_id)), ["queued"])

    async def _cancel(self, request: Request, _: Mapping[str, str]) -> Response:
        queue, job_id = self._named(request)
        answer = await self.source.run(ops.cancel(queue, job_id))
        return await self._on_job(request, "cancel", answer, ["cancelled", "asked"])

    async def _delete(self, request: Request, _: Mapping[str, str]) -> Response:
        queue, job_id = self._named(request)
        answer = await self.source.run(ops.delete(queue, job_id))
        return await self._on_job(request, "delete", answer, ["deleted"], "/jobs" if answer == "deleted" else "")

    def _named(self, request: Request) -> tuple[Any, str]:
        return self.source.queue(request.path_params["queue"]), request.path_params["job_id"]

    async def _known_queue(self, request: Request) -> str:
        name: str = request.path_params["queue"]
        if name not in await self.source.run(admin.queue_names(self.source.prefix)):
            raise UsageError(f"no queue {name!r}")
        return name

    async def _pause(self, request: Request, form: Mapping[str, str]) -> Response:
        name = await self._known_queue(request)
        user = request.state.access.user
        reason = f"{form.get('reason', '').strip()[:200] or 'paused on the dashboard'} ({user})"
        is_new = await self.source.run(admin.pause(self.source.queue(name), reason))
        return await self._done(request, "pause", name, int(is_new), "/queues")

    async def _resume(self, request: Request, _: Mapping[str, str]) -> Response:
        name = await self._known_queue(request)
        was_paused = await self.source.run(admin.resume(self.source.queue(name)))
        return await self._done(request, "resume", name, int(was_paused), "/queues")

    async def _purge(self, request: Request, form: Mapping[str, str]) -> Response:
        name = await self._known_queue(request)
        if form.get("name", "").strip() != name:
            words: Words = request.state.words
            return await self._page(request, "error", 400, title="refused", message=words("wrong_name", queue=name))
        deleted = await self.source.run(admin.purge(self.source.queue(name), State.QUEUED))
        return await self._done(request, "purge", name, deleted, "/queues")

    async def _command(self, request: Request, _: Mapping[str, str]) -> Response:
        worker, name = request.path_params["worker"], request.path_params["command"]
        if name not in ("quiet", "resume", "stop"):
            raise UsageError(f"no command {name!r}")
        known = {found.id for found in await self.source.run(admin.list_workers(self.source.prefix))}
        is_told = worker in known and await self.source.run(admin.send_command(self.source.prefix, worker, name))
        return await self._done(request, f"worker_{name}", worker, int(is_told), "/workers")

    # For programs

    async def _metrics(self, request: Request) -> Response:
        text = metrics.render(await self.source.overview(), await self.source.totals())
        return Response(text, headers={"Content-Type": metrics.CONTENT_TYPE})

    async def _api_queues(self, request: Request) -> Response:
        overview = await self.source.overview()
        return JSONResponse(
            [
                {
                    "name": counts.name, "jobs": tab_counts(counts), "paused": counts.paused, "totals": counts.totals,
                    "latency_s": overview.oldest_s.get(counts.name, 0.0), "workers": len(overview.workers_of(counts.name)),
                }
                for counts in overview.queues
            ]
        )  # fmt: skip

    async def _api_workers(self, request: Request) -> Response:
        workers = (await self.source.overview()).workers
        return JSONResponse([{**worker.info, "id": worker.id, "beat_at_ms": worker.beat_at_ms} for worker in workers])

    async def _api_jobs(self, request: Request) -> Response:
        _, queue, tab, cursor = await self._place(request)
        if not queue:
            return JSONResponse({"jobs": [], "cursor": ""})
        page = await self.source.jobs(queue, tab, cursor)
        jobs = [
            {
                "id": row.id, "queue": row.queue, "state": row.state, "task": row.record.task, "attempt": row.record.attempt,
                "created_at_ms": row.record.created_at_ms, "due_at_ms": row.due_at_ms,
            }
            for row in page.rows
        ]  # fmt: skip
        return JSONResponse({"jobs": jobs, "cursor": page.cursor})

    async def _api_job(self, request: Request) -> Response:
        found = await self.source.job(request.path_params["queue"], request.path_params["job_id"])
        record = found.record
        told: dict[str, Any] = {
            "id": found.id, "queue": found.queue, "state": found.look.state, "task": record.task, "attempt": record.attempt,
            "created_at_ms": record.created_at_ms, "started_at_ms": record.started_at_ms, "ended_at_ms": record.ended_at_ms,
            "due_at_ms": found.look.due_ms, "why": found.why,
        }  # fmt: skip
        if request.state.access.may(Right.SEE_ARGS):
            told["call"] = json.loads(found.args)
            told["result"] = None if found.result is None else json.loads(found.result)
        return JSONResponse(told)

    async def _api_scale(self, request: Request) -> Response:
        """What an autoscaler looks at: scale on latency, not on depth."""
        overview = await self.source.overview()
        name = request.path_params["queue"]
        counts = next((found for found in overview.queues if found.name == name), None)
        if counts is None:
            return JSONResponse({"error": f"no queue {name!r}"}, 404)
        return JSONResponse(
            {
                "queue": name, "latency_s": overview.oldest_s.get(name, 0.0), "queued": counts.queued,
                "running": counts.running, "workers": len(overview.workers_of(name)),
            }
        )  # fmt: skip

    async def _livez(self, request: Request) -> Response:
        return Response("ok\n", media_type="text/plain")

    async def _readyz(self, request: Request) -> Response:
        try:
            await self.source.run(admin.queue_names(self.source.prefix))
        except HeadraceError:
            return Response("the server does not answer\n", 503, media_type="text/plain")
        return Response("ok\n", media_type="text/plain")

    async def _static(self, request: Request) -> Response:
        found = static_files().get(request.path_params["name"])
        if found is None or request.path_params["version"] != static_hash():
            return Response("no such file\n", 404, media_type="text/plain")
        headers = {**HEADERS, "Content-Type": found[1], "Cache-Control": "public, max-age=31536000, immutable"}
        return Response(found[0], headers=headers)


def _here(request: Request) -> Callable[..., str]:
    """The address of this page with something changed; nothing of what was done."""

    def here(**changes: str) -> str:
        kept = {
            name: value for name, value in request.query_params.items() if name not in ("did", "n", "lang", "theme")
        }
        return "?" + urlencode({**kept, **changes})

    return here


_DONE = frozenset(
    {"retry", "cancel", "delete", "pause", "resume", "purge", "worker_quiet", "worker_resume", "worker_stop"}
)


def _did(request: Request) -> tuple[str, int] | None:
    """What the last write did, as its answer says."""
    did, count = request.query_params.get("did", ""), request.query_params.get("n", "")
    return (did, int(count)) if did in _DONE and count.isdecimal() and len(count) < 10 else None


def steps(job: Details) -> list[tuple[str, int, float | None]]:
    """What has happened to a job: (word, instant, seconds since what was before)."""
    record = job.record
    found: list[tuple[str, int]] = [("created", record.created_at_ms)]
    if record.started_at_ms:
        found.append(("started", record.started_at_ms))
    found += [("attempt_failed", error.at_ms) for error in record.errors or [] if error.at_ms]
    if record.ended_at_ms:
        found.append((str(job.look.state), record.ended_at_ms))
    elif job.look.due_ms:
        found.append(("due", job.look.due_ms))
    found.sort(key=lambda step: step[1])
    before = [None, *(at_ms for _, at_ms in found)]
    return [
        (word, at_ms, None if last is None else (at_ms - last) / 1000)
        for (word, at_ms), last in zip(found, before, strict=False)
    ]


def attention(overview: Overview) -> list[tuple[str, dict[str, object]]]:
    """What somebody should look at: a sentence's key, and what is in it."""
    found: list[tuple[str, dict[str, object]]] = []
    for counts in overview.queues:
        if counts.paused is not None:
            found.append(("needs_resume", {"queue": counts.name, "reason": counts.paused}))
        elif counts.queued and not overview.workers_of(counts.name):
            found.append(("needs_worker", {"queue": counts.name, "n": counts.queued}))
        if counts.overdue_sessions:
            found.append(("needs_sweep", {"queue": counts.name, "n": counts.overdue_sessions}))
        if counts.suspects:
            found.append(("needs_look", {"queue": counts.name, "n": counts.suspects}))
    return found


def dashboard(app: Headrace, *, access: Decide, environment: str = "", hosts: Sequence[str] | None = None) -> ASGIApp:
    """The dashboard of an app's server, as an ASGI app: `main.mount("/jobs", dashboard(app, access=...))`.

    Args:
        access: who may do what: gets the Starlette `Request`, gives an `Access` (or an awaitable of one). `Access.none()`
            is refused; `Access.read(user)` sees all; `Access.all(user)` may do all.
        environment: a badge on each page; "production" is shown in red.
        hosts: the only host names that it answers to; None: any.
    """
    site = Site(app, access, environment, hosts)
    found = Starlette(routes=site.routes())
    found.state.source = site.source
    return found
