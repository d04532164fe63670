"""One job with all that is known of it: what its page and the API show."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import msgspec

from headrace import wire
from headrace.core.filters import Names
from headrace.core.record import AttemptError, Record, State, decode
from headrace.core.ties import edges_in, group_in, limits_in, parents_in, unique_in
from headrace.engine import flows, kept, ops
from headrace.engine.admin import Row
from headrace.engine.call import Steps, command
from headrace.engine.keys import QueueKeys, check_job_id
from headrace.engine.why import Reason, why
from headrace.errors import ArgumentsMismatch, JobNotFound
from headrace.stream import LogLine, lines_of
from headrace.web.redact import Redact


@dataclasses.dataclass(frozen=True, slots=True)
class Details:
    """`names`: of the task's positional parameters, where the dashboard's app knows them."""

    queue: str
    id: str
    look: ops.Look
    record: Record
    log: list[LogLine]
    why: list[Reason]
    lineage: Lineage
    names: Sequence[str] = ()

    @classmethod
    def of_row(cls, row: Row, names: Sequence[str]) -> Details:
        """What a row of a list tells."""
        look = ops.Look(b"", row.state, row.due_at_ms, session=row.session)
        return cls(row.queue, row.id, look, row.record, [], [], Lineage([], []), names)

    @property
    def worker(self) -> str | None:
        """Who runs it."""
        return None if self.look.session is None else self.look.session.rsplit(".", 4)[0]

    def call(self) -> tuple[list[Any], dict[str, Any]]:
        """The arguments as plain data.

        Raises:
            ArgumentsMismatch: they cannot be read.
        """
        return wire.decode_call(self.record.payload, None)

    def shown_call(self, redact: Redact) -> dict[str, Any]:
        """The arguments without what is hidden by name; a positional one has a name where its task is known."""
        try:
            args, kwargs = self.call()
        except ArgumentsMismatch as error:
            return {"error": str(error)}
        named = {name: redact.shown({name: value})[name] for name, value in zip(self.names, args, strict=False)}
        return {"args": [*named.values(), *redact.shown(args[len(named) :])], "kwargs": redact.shown(kwargs)}

    def shown_result(self, redact: Redact) -> Any:
        return redact.shown(msgspec.msgpack.decode(self.record.result or b"\xc0"))

    def attempts(self) -> list[tuple[AttemptError, list[LogLine]]]:
        """The attempts that failed, each with what it said; the last first."""
        return [
            (error, [line for line in self.log if line.attempt == error.attempt])
            for error in reversed(self.record.errors or [])
        ]

    def rest_of_log(self) -> list[LogLine]:
        """What was said in attempts that did not fail."""
        failed = {error.attempt for error in self.record.errors or []}
        return [line for line in self.log if line.attempt not in failed]

    def facts(self) -> list[tuple[str, Any]]:
        """(key of a word, value) of what else is known; instants in ms have keys that end in `_at`."""
        record, options = self.record, self.record.options
        ties = options.ties if options else None
        found: list[tuple[str, Any]] = [
            ("attempt", record.attempt), ("priority", record.priority or None), ("worker", self.worker),
            ("description", options and options.description), ("tags", options and ", ".join(options.tags)),
            ("group", group_in(ties)), ("limits", ", ".join(limit["n"] for limit in limits_in(ties))), ("unique", unique_in(ties)),
            ("expires_at", record.expires_at_ms), ("deadline_at", options and options.deadline_ms),
        ]  # fmt: skip
        return [(key, value) for key, value in found if value not in (None, "", 0) or key == "attempt"]


@dataclasses.dataclass(frozen=True, slots=True)
class Lineage:
    """Where a job comes from, and what comes after it: (queue, id) each. `is_flow_here`: its flow began on its own queue."""

    parents: list[tuple[str, str]]
    children: list[tuple[str, str]]
    flow: str | None = None
    schedule: str | None = None
    is_flow_here: bool = False

    def __bool__(self) -> bool:
        return bool(self.parents or self.children or self.flow or self.schedule)


def lineage_of(queue: str, job_id: str, record: Record, live_ties: bytes | None) -> Lineage:
    """`live_ties`: what the scripts keep of it while it lives; edges that were added later stand only there."""
    ties = record.options.ties if record.options else None
    kind, _, rest = job_id.partition(":")
    schedule = rest.rpartition(":")[0] if kind in ("cron", "run") else ""
    parents = [(name or queue, parent) for name, parent in parents_in(ties)]
    children = [(name or queue, child) for name, child in edges_in(live_ties or ties)]
    return Lineage(parents, children, job_id.partition(".")[0] if "." in job_id else None, schedule or None)


def read_details(queue: QueueKeys, job_id: str, names: Names) -> Steps[Details]:
    """Look at one job.

    Args:
        names: of positional parameters, by task.

    Raises:
        JobNotFound
    """
    look: ops.Look | None = yield from ops.look(queue, check_job_id(job_id))
    if look is None:
        raise JobNotFound(f"no job {job_id} in queue {queue.name!r}: it never was, was deleted, or is no longer kept")
    record = decode(look.record)
    log = lines_of((yield kept.all_lines(queue, job_id)), None)
    live_ties: bytes | None = yield command("HGET", queue.ties, job_id, key=queue.ties, decode=lambda reply: reply)
    tells_itself = look.state in (State.RUNNING, State.SUCCEEDED, State.FAILED)
    reasons = [] if tells_itself else (yield from why(queue, job_id))
    lineage = lineage_of(queue.name, job_id, record, live_ties)
    if lineage.flow and (yield flows.read_graph(queue, lineage.flow)) is not None:
        lineage = dataclasses.replace(lineage, is_flow_here=True)
    return Details(queue.name, job_id, look, record, log, reasons, lineage, names(record.task))
