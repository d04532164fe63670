"""The pages about jobs: their lists by state and filter, one job with all that is known of it, and what is done to one."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlencode

import msgspec
from markupsafe import Markup, escape
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from headrace.core.failures import error_of
from headrace.core.filters import KEYS, Filter, parse_filter, with_word
from headrace.core.record import State
from headrace.engine import ops
from headrace.engine.admin import Row
from headrace.engine.bulk import ACTS, Action
from headrace.engine.search import Found, count_in
from headrace.engine.why import Reason
from headrace.errors import UsageError
from headrace.progress import Progress
from headrace.web import api
from headrace.web.access import Access, Right
from headrace.web.data import TABS, Overview, tab_counts
from headrace.web.details import Details
from headrace.web.frame import Frame, Refused, shown_instant
from headrace.web.tree import as_call, as_json, tree
from headrace.web.words import Words

ALL = "all"
COLUMNS = (
    "job", "task", "state", "queue", "attempt", "priority", "created", "started", "ended", "due", "tags", "arguments", "error",
)  # fmt: skip
SHOWN = ("job", "task", "state", "attempt", "created", "error")
ARGS_CHARS_MAX = 160
RIGHTS = {
    Action.RETRY: Right.RETRY_JOBS, Action.RUN: Right.RETRY_JOBS, Action.CANCEL: Right.CANCEL_JOBS,
    Action.DELETE: Right.DELETE_JOBS,
}  # fmt: skip


class Listing(msgspec.Struct, frozen=True):
    """Which list a page shows. `filter` is what was typed; `wanted` is that with what else the address says."""

    tab: str
    queue: str
    filter: str
    wanted: Filter
    cursor: str
    columns: tuple[str, ...]
    is_tab_said: bool = False

    def address(self, **changes: str) -> str:
        """Of this list, with something changed; it can be sent to others."""
        columns = "" if self.columns == SHOWN else ",".join(self.columns)
        said = {"tab": self.tab, "queue": self.queue, "filter": self.filter, "columns": columns, **changes}
        return "?" + urlencode({name: value for name, value in said.items() if value})

    def filter_for(self, action: Action) -> str:
        """The filter of all that match and that the action is for; states and queue are said in it. "": there can be none."""
        states = ",".join(sorted(self.wanted.states & ACTS[action][2]))
        return states and with_word(with_word(self.filter, "state", states), "queue", self.wanted.queue or "")


def read_listing(asked: QueryParams, access: Access, frame: Frame) -> Listing:
    """What an address says.

    Raises:
        UsageError: what cannot be read.
        Refused: the filter asks for what may not be seen.
    """
    text = asked.get("filter", "").strip()[:1000]
    tab = asked.get("tab") or (ALL if text else "running")
    if tab not in (*TABS, ALL):
        raise UsageError(f"no tab {tab!r:.40}; tabs: {', '.join(TABS)}, {ALL}")
    states = TABS.get(tab, tuple(State))
    wanted = parse_filter(
        text, now_ms=time.time_ns() // 1_000_000, queue=asked.get("queue") or None, default_states=frozenset(states)
    )
    see_if_allowed(wanted, access, frame)
    columns = tuple(name for name in ",".join(asked.getlist("columns")).split(",") if name in COLUMNS) or SHOWN
    return Listing(
        "" if "state:" in text else tab,
        asked.get("queue", ""),
        text,
        wanted,
        asked.get("cursor", ""),
        columns,
        bool(asked.get("tab")),
    )


def see_if_allowed(wanted: Filter, access: Access, frame: Frame) -> None:
    """Who cannot see a text must not find out about it by searching for it.

    Raises:
        Refused
    """
    if not access.may(Right.SEE_ARGS) and (wanted.args or wanted.error or wanted.words):
        raise Refused("you may not see arguments and errors here, so you cannot search in them")
    hidden = [path for path, _ in wanted.args if frame.redact.hides_path(path)]
    if hidden:
        raise Refused(f"the field {hidden[0]} is hidden here, so it cannot be searched")


class JobPages:
    """The lists of jobs, and one job."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame
        self._source = frame.source

    def routes(self) -> list[Route]:
        page, act = self._frame.page, self._frame.act
        job = "/jobs/{queue}/{job_id}"
        return [
            page("/jobs", self._jobs),
            page(job, self._job),
            act(job + "/retry", Right.RETRY_JOBS, self._retry),
            act(job + "/run", Right.RETRY_JOBS, self._run),
            act(job + "/cancel", Right.CANCEL_JOBS, self._cancel),
            act(job + "/delete", Right.DELETE_JOBS, self._delete),
            page("/api/v1/jobs", self._api_jobs),
            page("/api/v1/jobs/{queue}/{job_id}", self._api_job),
        ]

    # Pages

    async def _jobs(self, request: Request) -> Response:
        access: Access = request.state.access
        overview = await self._source.overview()
        queues = [counts.name for counts in overview.queues]
        problem = ""
        try:
            listing = self._listing(request, queues)
            found = await self._find(overview, listing)
        except UsageError as error:
            typed = request.query_params.get("filter", "")[:1000]
            problem, listing, found = str(error), Listing(ALL, "", typed, Filter(), "", SHOWN), Found([], 0, "")
        named = [counts for counts in overview.queues if listing.wanted.queue in (None, counts.name)]
        actions = [a for a in Action if not problem and access.may(RIGHTS[a]) and listing.filter_for(a)]
        return await self._frame.render(
            request, "jobs", 400 if problem else 200, problem=problem, listing=listing, queues=queues, rows=[self._cells(row, access) for row in found.rows],
            counts={tab: sum(tab_counts(each)[tab] for each in named) for tab in TABS},
            looked_at=found.looked_at, shown=SHOWN, there=sum(count_in(each, listing.wanted) for each in named), columns=COLUMNS,
            following=listing.address(cursor=found.cursor) if found.cursor else "", actions=actions,
            suggestions=await self._suggestions(queues),
        )  # fmt: skip

    def _listing(self, request: Request, queues: Sequence[str]) -> Listing:
        """Raises UsageError, also for a queue that is not there."""
        listing = read_listing(request.query_params, request.state.access, self._frame)
        if listing.wanted.queue and listing.wanted.queue not in queues:
            raise UsageError(f"no queue {listing.wanted.queue!r:.120}")
        return listing

    async def _find(self, overview: Overview, listing: Listing) -> Found:
        """Only queues that have jobs there are asked."""
        names = [
            counts.name for counts in overview.queues
            if listing.wanted.queue in (None, counts.name) and (counts.running or count_in(counts, listing.wanted))
        ]  # fmt: skip
        name = listing.cursor.partition(" ")[0]
        if name and name not in names:
            names = [name, *names] if any(counts.name == name for counts in overview.queues) else names
        return await self._source.search(names, listing.wanted, listing.cursor)

    def _cells(self, row: Row, access: Access) -> tuple[Row, dict[str, Any]]:
        """A row, and what its columns show as text; instants are numbers."""
        record, options = row.record, row.record.options
        sees = access.may(Right.SEE_ARGS)
        kind, message = error_of(record) if record.errors or row.state is State.FAILED else ("", "")
        args = ""
        if sees:
            details = Details.of_row(row, self._source.names(record.task))
            args = as_call(details.shown_call(self._frame.redact))[:ARGS_CHARS_MAX]
        return row, {
            "task": record.task, "queue": row.queue, "attempt": record.attempt, "priority": record.priority,
            "created": record.created_at_ms, "started": record.started_at_ms, "ended": record.ended_at_ms, "due": row.due_at_ms,
            "tags": ", ".join(options.tags) if options else "", "arguments": args,
            "error": f"{kind}: {message}" if kind and sees else kind or (message if sees else ""),
        }  # fmt: skip

    async def _suggestions(self, queues: Sequence[str]) -> list[str]:
        """Words that a filter may have: keys, states, queues, the tasks that ran."""
        tasks = {task for by_task in (await self._source.totals()).values() for task in by_task if task}
        words = [f"{key}:" for key in (*KEYS, "args.")] + await self._source.known_terms(queues)
        words += [f"state:{state}" for state in State] + [f"queue:{name}" for name in queues[:200]]
        return words + [f"task:{task}" for task in sorted(tasks)[:200]] + ["since:15m", "since:1h", "since:1d"]

    async def _job(self, request: Request) -> Response:
        details = await self._source.job(request.path_params["queue"], request.path_params["job_id"])
        access: Access = request.state.access
        sees = access.may(Right.SEE_ARGS)
        redact, state, record = self._frame.redact, details.look.state, details.record
        shown = {"call": details.shown_call(redact), "result": details.shown_result(redact)} if sees else {}
        return await self._frame.render(
            request, "job", job=details, record=record, state=state, sees=sees, steps=steps(details),
            reasons=[told_reason(request.state.words, reason) for reason in details.why], progress=Progress.decode(details.look.progress), is_ended=state.is_ended,
            waits_for_time=state in (State.SCHEDULED, State.RETRYING),
            values=[(name, tree(value), as_json(value)) for name, value in shown.items() if name == "call" or record.result is not None],
        )  # fmt: skip

    # Writes

    async def _on_job(self, request: Request, did: str, answer: str, done: Sequence[str], to: str = "") -> Response:
        queue, job_id = request.path_params["queue"], request.path_params["job_id"]
        to = to or f"/jobs/{queue}/{quote(job_id, safe='')}"
        return await self._frame.done(request, did, f"{queue}/{job_id}", int(answer in done), to)

    async def _retry(self, request: Request, _: Mapping[str, str]) -> Response:
        queue, job_id = self._named(request)
        return await self._on_job(request, "retry", await self._source.run(ops.retry(queue, job_id)), ["queued"])

    async def _run(self, request: Request, _: Mapping[str, str]) -> Response:
        queue, job_id = self._named(request)
        return await self._on_job(request, "run", await self._source.run(ops.run_now(queue, job_id)), ["queued"])

    async def _cancel(self, request: Request, _: Mapping[str, str]) -> Response:
        queue, job_id = self._named(request)
        answer = await self._source.run(ops.cancel(queue, job_id))
        return await self._on_job(request, "cancel", answer, ["cancelled", "asked"])

    async def _delete(self, request: Request, _: Mapping[str, str]) -> Response:
        queue, job_id = self._named(request)
        answer = await self._source.run(ops.delete(queue, job_id))
        return await self._on_job(request, "delete", answer, ["deleted"], "/jobs" if answer == "deleted" else "")

    def _named(self, request: Request) -> tuple[Any, str]:
        return self._source.queue(request.path_params["queue"]), request.path_params["job_id"]

    # For programs

    async def _api_jobs(self, request: Request) -> Response:
        overview = await self._source.overview()
        found = await self._find(overview, self._listing(request, [counts.name for counts in overview.queues]))
        return api.answer(api.JobsPage([api.row_of(row) for row in found.rows], found.cursor, found.looked_at))

    async def _api_job(self, request: Request) -> Response:
        found = await self._source.job(request.path_params["queue"], request.path_params["job_id"])
        sees_args = request.state.access.may(Right.SEE_ARGS)
        return api.answer(api.job_of(found, self._frame.redact, sees_args=sees_args))


def told_reason(words: Words, reason: Reason) -> Markup:
    """Why a job is not running, in the words of the page; instants on the visitor's clock."""
    shown = {name: shown_instant(value) if name.endswith("_at") else value for name, value in reason.values.items()}
    if "n" in shown:
        shown["jobs"] = words("n_job" if shown["n"] == 1 else "n_jobs", n=shown["n"])
    if "state" in shown:
        shown["state"] = words(f"state_{shown['state']}")
    return Markup(escape(words.text(f"why_{reason.key}"))).format(**shown)


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
