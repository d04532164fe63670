"""What is ready to be called: one attempt of a job, or a batch of them that one call of the function is for. No I/O."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Protocol, TypeAlias

from headrace.context import BatchContext, JobContext, Reporter
from headrace.core.record import Record
from headrace.core.ties import find_limit, limits_in
from headrace.engine.ops import Claim, Settlement
from headrace.errors import JobCancelled, JobTimeout, RetryIn, UsageError
from headrace.task import Task
from headrace.wire import decode_plain
from headrace.worker.tally import Mark

SPLITS_MAX = 20


class Said(Protocol):
    """What a run has said, on its way to the server."""

    def put(self, line: bytes) -> None: ...

    def flush(self) -> Future[None]: ...


class Told(Protocol):
    """How far a run is, on its way to the server."""

    def put(self, data: bytes) -> None: ...


class Run(JobContext):
    """One attempt that is ready to be called, and the JobContext its code sees. `timeout_ms` 0: no limit."""

    __slots__ = (
        "args",
        "claim",
        "fn",
        "is_async",
        "kwargs",
        "latest",
        "lines",
        "record",
        "started_ns",
        "task_value",
        "timeout_ms",
        "ttl_ms",
    )

    def __init__(
        self,
        claim: Claim,
        record: Record,
        task: Task[..., Any],
        args: list[Any],
        kwargs: dict[str, Any],
        reporter: Reporter,
    ) -> None:
        # JobContext's own fields, set here: one call less for each job.
        self.id = claim.id
        self.queue = claim.queue
        self.task = record.task
        self.attempt = record.attempt + 1
        self.fence = claim.fence
        self._reporter = reporter
        self.claim = claim
        self.record = record
        self.fn = task.fn
        self.task_value = task
        self.args = args
        self.kwargs = kwargs
        self.is_async = task.is_async
        self.started_ns = 0
        self.lines: Said | None = None
        self.latest: Told | None = None
        options = record.options
        if options is None:
            self.timeout_ms, self.ttl_ms = task.timeout_ms, task.result_ttl_ms
        else:
            self.timeout_ms = task.timeout_ms if options.timeout_ms is None else options.timeout_ms
            self.ttl_ms = task.result_ttl_ms if options.result_ttl_ms is None else options.result_ttl_ms
            if options.deadline_ms:
                left_ms = max(1, options.deadline_ms - int(time.time() * 1000))
                self.timeout_ms = min(self.timeout_ms, left_ms) if self.timeout_ms else left_ms

    @property
    def deadline_ms(self) -> int:
        return self.record.options.deadline_ms if self.record.options is not None else 0

    @property
    def headers(self) -> Mapping[str, str]:
        return self.record.options.headers if self.record.options is not None else {}

    @property
    def saved(self) -> Any:
        return None if self.claim.saved is None else decode_plain(self.claim.saved)

    def _limits(self) -> list[dict[str, Any]]:
        return limits_in(self.record.options.ties) if self.record.options is not None else []

    def hold_once(self, error: RetryIn, held: set[tuple[str, str]]) -> None:
        """Hold the limit that RetryIn names, if it is not among `held`, and add it; raises UsageError for no such limit."""
        limit = (self.queue, str(find_limit(self._limits(), error.limit)["n"]))
        if limit not in held:
            held.add(limit)
            self.hold(error.limit, error.delay_s)


class Member(Run):
    """A call of a batch task: it runs as one of a BatchRun, also when it is alone there."""

    __slots__ = ()


class BatchRun(BatchContext):
    """Calls of one batch task that run together, and the BatchContext their code sees.

    `place` is for the pool that runs it.
    """

    __slots__ = ("args", "fn", "is_async", "kwargs", "members", "place", "timeout_ms")

    def __init__(self, members: Sequence[Member], place: Any = None) -> None:
        task = members[0].task_value
        super().__init__(task.name, members)
        self.members = members
        self.fn = task.fn
        self.args: list[Any] = [[member.args[0] for member in members]]
        self.kwargs: dict[str, Any] = {}
        self.is_async = task.is_async
        self.timeout_ms = task.timeout_ms
        self.place = place

    def marks(self, settled: Sequence[Settlement], ended_ns: int) -> list[Mark]:
        """What the tally counts, of the members that have an outcome. Each took as long as the whole batch."""
        runs = {member.id: member for member in self.members}
        return [mark_of(runs[outcome.id], outcome, ended_ns) for outcome in settled if outcome.id in runs]


AnyRun: TypeAlias = "Run | BatchRun"


def mark_of(run: Run, outcome: Settlement, ended_ns: int) -> Mark:
    """What the tally counts of one job."""
    created_at_ms = run.record.created_at_ms if run.attempt == 1 else 0
    return (run.queue, run.task, outcome.kind, run.started_ns or ended_ns, ended_ns, created_at_ms)


class Parts:
    """The calls of a function that a batch takes, and what each of its jobs gets.

    The whole batch comes first. A part whose call raised is halved, and its halves are called, so that a job which cannot
    succeed fails alone. At most 20 parts are halved (two such jobs among a thousand): where everything fails, as when a
    database is away, that is soon known. Neither timeouts nor RetryIn are looked into.
    """

    def __init__(self, batch: BatchRun) -> None:
        self._left = [batch]
        self._splits = SPLITS_MAX
        self.results: list[tuple[Run, Any]] = []
        self.errors: list[tuple[Run, BaseException]] = []

    def next(self) -> BatchRun | None:
        """What is to be called now; None: all is known."""
        return self._left.pop() if self._left else None

    def answered(self, part: BatchRun, answer: Any) -> None:
        """The call returned: None, or for each item its result or an exception."""
        if answer is None:
            self.results += [(member, None) for member in part.members]
        elif isinstance(answer, (list, tuple)) and len(answer) == len(part.members):
            for member, value in zip(part.members, answer, strict=True):
                if isinstance(value, Exception):
                    self.errors.append((member, value))
                else:
                    self.results.append((member, value))
        else:
            count = f"{len(answer)} answers" if isinstance(answer, (list, tuple)) else f"a {type(answer).__name__}"
            wrong = UsageError(f"{part.task} was called with {len(part.members)} items and returned {count}")
            self.errors += [(member, wrong) for member in part.members]

    def raised(self, part: BatchRun, error: BaseException) -> None:
        """The call raised."""
        members = list(part.members)
        if isinstance(error, JobTimeout):  # it is the whole batch that is over its time
            members += [member for rest in self._left for member in rest.members]
            self._left = []
        half = len(members) // 2
        if half and self._splits and _may_be_of_one(error):
            self._splits -= 1
            self._left += [BatchRun(members[half:], part.place), BatchRun(members[:half], part.place)]
            return
        self.errors += [(member, error) for member in members]


def _may_be_of_one(error: BaseException) -> bool:
    return isinstance(error, Exception) and not isinstance(error, (JobTimeout, JobCancelled, RetryIn))
