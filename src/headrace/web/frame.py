"""What stands around every answer of the dashboard: who may see it, the page's frame, and how a write is taken and noted.

1. `Frame.page` and `Frame.act` make the routes: each answer is guarded by access, each write by where it comes from.
2. `Frame.render` makes a whole page of a template; the same page asked for again with its ETag is not sent again.
3. `Frame.done` notes a write in the audit log, and sends the browser to where its result is to be seen.
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
from typing import Any, TypeAlias
from urllib.parse import parse_qs, quote, urlencode

import jinja2
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from headrace.engine import admin
from headrace.engine.connect import masked_url
from headrace.errors import DuplicateJob, JobNotFound, ServerError, UsageError
from headrace.version import __version__
from headrace.web.access import Access, Decide, Right, is_own_request
from headrace.web.data import Source, in_words, tab_counts
from headrace.web.redact import Redact
from headrace.web.words import LANGUAGES, Words, choose

logger = logging.getLogger("headrace.web")
audit_logger = logging.getLogger("headrace.web.audit")

Show: TypeAlias = "Callable[[Request], Awaitable[Response]]"
Say: TypeAlias = "Callable[..., str]"
"""The words of one language: `say("every", span="5 s")`."""
Do: TypeAlias = "Callable[[Request, Mapping[str, str]], Awaitable[Response]]"

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
    found.filters |= {
        "span": shown_span, "instant": shown_instant, "moment": shown_moment, "stamp": _stamp, "size": shown_size, "part": lambda text: quote(str(text), safe=""),
    }  # fmt: skip
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


def shown_instant(at_ms: int | None) -> Markup:
    return shown_moment(datetime.fromtimestamp(at_ms / 1000, UTC) if at_ms else None)


def _stamp(at_ms: int) -> str:
    return f"{datetime.fromtimestamp(at_ms / 1000, UTC):%Y-%m-%dT%H:%MZ}"


def shown_size(count: int | None) -> str:
    """So many bytes, for people."""
    if not count:
        return "–"
    return f"{count / 1e9:.3g} GB" if count >= 1e9 else f"{count / 1e6:.3g} MB"


def shown_moment(at: datetime | None) -> Markup:
    """In UTC; where there is script, it shows the visitor's clock."""
    if at is None:
        return Markup("–")
    utc = at.astimezone(UTC)
    return Markup('<time datetime="{}">{}</time>').format(f"{utc:%Y-%m-%dT%H:%M:%SZ}", f"{utc:%Y-%m-%d %H:%M:%S UTC}")


class Refused(Exception):
    """Who asks may not; the text says what, and why."""


class Frame:
    """One dashboard's source of data, who may use it, and what stands around its pages."""

    def __init__(
        self, source: Source, access: Decide, environment: str, hosts: Sequence[str] | None, redact: Redact
    ) -> None:
        self.source = source
        self.redact = redact
        self._access = access
        self._environment = environment
        self._hosts = None if hosts is None else frozenset(hosts)

    def page(self, path: str, show: Show) -> Route:
        """What may be seen."""
        return Route(path, self._guarded(show, Right.READ), methods=["GET"])

    def act(self, path: str, right: Right, do: Do, most_bytes: int = FORM_BYTES_MAX) -> Route:
        """What may be done, by who has the right. A field that comes more than once is in `request.state.fields`."""
        return Route(path, self._guarded(lambda request: self._write(request, do, most_bytes), right), methods=["POST"])

    def _guarded(self, show: Show, right: Right) -> Show:
        async def answer(request: Request) -> Response:
            response = await self._allowed(request, show, right)
            for name, value in HEADERS.items():
                response.headers.setdefault(name, value)
            response.headers.setdefault("Cache-Control", "no-cache, private")
            return response

        return answer

    async def _allowed(self, request: Request, show: Show, right: Right) -> Response:
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
            return await self.render(request, "error", 403, title="refused", message=request.state.words("no_right"))
        try:
            return await show(request)
        except Refused as error:
            return await self.render(request, "error", 403, title="refused", message=str(error))
        except DuplicateJob as error:
            return await self.render(request, "error", 409, title="refused", message=in_words(error))
        except (JobNotFound, UsageError) as error:
            return await self.render(request, "error", 404, title="not_found", message=in_words(error))
        except ServerError as error:
            logger.warning("%s", error)
            return await self.render(
                request, "away", 503, url=masked_url(self.source.config.url), message=in_words(error)
            )

    async def render(self, request: Request, template: str, status: int = 200, **values: Any) -> Response:
        words: Words = request.state.words
        theme = request.query_params.get("theme") or request.cookies.get("hr_theme", "auto")
        root = request.scope.get("root_path", "")
        # What is refused, or not found, says nothing of the queues; and the server may be away.
        totals = (await self.source.overview()).totals if status == 200 else None
        text = _templates().get_template(f"{template}.html").render(
            t=words, root=root, static=f"{root}/static/{static_hash()}", access=request.state.access, Right=Right,
            environment=self._environment, languages=LANGUAGES, theme=theme if theme in THEMES else "auto",
            themes=THEMES, path=request.url.path.removeprefix(root), here=_here(request), tab_counts=tab_counts,
            version=__version__, did=_did(request), totals=totals, **values,
        )  # fmt: skip
        is_api = request.url.path.removeprefix(root).startswith("/api/")
        if is_api or request.headers.get("accept", "").startswith("application/json"):
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

    async def _write(
        self, request: Request, do: Callable[[Request, Mapping[str, str]], Awaitable[Response]], most_bytes: int
    ) -> Response:
        words: Words = request.state.words
        if not is_own_request(request):
            return await self.render(request, "error", 403, title="refused", message=words("not_our_page"))
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > most_bytes:
                return await self.render(request, "error", 413, title="refused", message=words("too_long"))
        fields = parse_qs(body.decode("utf8", "replace"))
        request.state.fields = fields
        form = {name: values[0] for name, values in fields.items()}
        response = await do(request, form)
        self.source.forget()
        return response

    async def known_queue(self, request: Request) -> str:
        """The queue that the address names; raises UsageError when there is none of that name."""
        name: str = request.path_params["queue"]
        if name not in await self.source.run(admin.queue_names(self.source.prefix)):
            raise UsageError(f"no queue {name!r}")
        return name

    async def done(self, request: Request, did: str, what: str, count: int, to: str) -> Response:
        """Note it, and send the browser to where the result is to be seen."""
        await self.note(request, did, what, count)
        query = urlencode({"did": did, "n": count})
        joint = "&" if "?" in to else "?"
        return RedirectResponse(f"{request.scope.get('root_path', '')}{to}{joint}{query}", 303)

    async def note(self, request: Request, did: str, what: str, count: int) -> None:
        """Write into the audit log who did what to how many."""
        access: Access = request.state.access
        note = {
            "at_ms": int(time.time() * 1000), "user": access.user, "did": did, "what": what, "count": count,
            "from": request.client.host if request.client else "",
        }  # fmt: skip
        line = json.dumps(note)
        audit_logger.info("%s", line)
        await self.source.run(admin.note_action(self.source.prefix, line.encode()))

    async def static(self, request: Request) -> Response:
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


def _did(request: Request) -> tuple[str, int] | None:
    """What the last write did, as its answer says: something for which there are words."""
    did, count = request.query_params.get("did", ""), request.query_params.get("n", "")
    is_known = f"did_{did}" in request.state.words
    return (did, int(count)) if is_known and count.isdecimal() and len(count) < 10 else None
