"""The verdict: what was acknowledged, what ran, what it did, and what is left, held against each other."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from headrace.core.record import Record, Stored, decode
from headrace.engine.admin import count_jobs
from headrace.engine.audit import audit
from headrace.engine.call import Steps, command
from headrace.engine.clients import SyncClient
from headrace.engine.keys import queue_keys
from headrace.torture.ledger import Effects
from headrace.torture.names import QUEUES
from headrace.torture.watch import Health


@dataclass(slots=True)
class Run:
    """One run of a job, as it noted it itself. `ended_s` None: it was killed, or its process was."""

    fence: int
    pid: int
    worker: str
    began_s: float
    ended_s: float | None = None


@dataclass(frozen=True, slots=True)
class Audit:
    """What the jobs wrote: ids of starts and ends, and each job's runs in the order they began."""

    starts: Counter[str]
    ends: Counter[str]
    runs: dict[str, list[Run]]


@dataclass(slots=True)
class Verdict:
    """`lost`: acknowledged, never ran to its end, and not ended otherwise. `violations`: broken invariants, in words.

    `beside`: runs that began while an older one went on; `doubled`: those of them whose older worker was well.
    """

    acked: int = 0
    lost: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    failed: Counter[str] = field(default_factory=Counter)
    starts: int = 0
    ends: int = 0
    extra_runs: int = 0
    beside: int = 0
    doubled: list[str] = field(default_factory=list)
    succeeded: int = 0
    naive: int = 0
    fenced: int = 0
    effects: int = 0
    violations: list[str] = field(default_factory=list)

    @property
    def is_good(self) -> bool:
        is_sound = not (self.lost or self.unknown or self.violations or self.doubled)
        return is_sound and self.fenced == self.effects


def read_audit(path: Path) -> Audit:
    found = Audit(Counter(), Counter(), defaultdict(list))
    for line in path.read_text().splitlines():
        word, job_id, fence, pid, worker, at_s = line.split()
        runs = found.runs[job_id]
        if word == "start":
            found.starts[job_id] += 1
            runs.append(Run(int(fence), int(pid), worker, float(at_s)))
            continue
        found.ends[job_id] += word == "end"
        for run in runs:
            if (run.fence, run.pid) == (int(fence), int(pid)):
                run.ended_s = float(at_s)
    return found


def judge(acked: Iterable[str], seen: Audit, effects: Effects, client: SyncClient, health: Health) -> Verdict:
    """Hold the four against each other. The queues must be at rest."""
    wanted = set(acked)
    verdict = Verdict(acked=len(wanted), naive=effects.naive, fenced=effects.fenced, effects=len(effects.jobs))
    verdict.starts, verdict.ends = seen.starts.total(), seen.ends.total()
    verdict.extra_runs = verdict.starts - len(seen.starts)
    records = {job_id: record for name in QUEUES for job_id, record in client.run(_records(name))}
    for record in records.values():
        if record.state == Stored.FAILED:
            verdict.failed[record.reason or "?"] += 1
    failed = {job_id for job_id, record in records.items() if record.state == Stored.FAILED}
    live = {job_id for job_id, record in records.items() if record.state == Stored.LIVE}
    if live:
        verdict.violations.append(f"{len(live)} jobs have not ended yet")
    verdict.lost = sorted(wanted - effects.jobs - failed - live)
    verdict.unknown = sorted(set(seen.starts) - wanted)
    verdict.violations += _check_effects(records, seen, effects)
    beside = list(runs_beside(seen, health))
    verdict.beside = len(beside)
    verdict.doubled = [said for said, was_well in beside if was_well]
    for name in QUEUES:
        verdict.violations += [found.message for found in client.run(audit(queue_keys(name))).violations]
    totals: Counter[str] = Counter()
    for name in QUEUES:
        totals.update(client.run(count_jobs(queue_keys(name))).totals)
    verdict.succeeded = totals["succeeded"]
    ended = sum(totals[name] for name in ("succeeded", "failed", "cancelled", "expired"))
    if not totals["enqueued"] == ended == len(wanted):
        verdict.violations.append(f"{len(wanted)} acknowledged, {totals['enqueued']} stored, {ended} ended")
    return verdict


def _check_effects(records: dict[str, Record], seen: Audit, effects: Effects) -> Iterator[str]:
    for job_id, record in records.items():
        if record.state == Stored.SUCCEEDED and job_id not in effects.jobs:
            yield f"{job_id} succeeded without its effect"
    for job_id, count in seen.ends.items():
        if count and job_id not in effects.jobs:
            yield f"{job_id} ran to its end without its effect"
    for job_id, runs in seen.runs.items():
        if len({run.fence for run in runs}) != len(runs):
            yield f"two runs of {job_id} had one fence"


def runs_beside(seen: Audit, health: Health) -> Iterator[tuple[str, bool]]:
    """Each run that began while an older one of its job was going on; and whether the older one's worker was well all that time.

    That happens to a worker that was paused or cut off beyond its lease, and fences are there for it. It must not happen
    to a worker that was well, whatever the server did, or its clock.
    """
    for job_id, runs in seen.runs.items():
        for older, newer in pairwise(sorted(runs, key=lambda run: run.began_s)):
            ended_s = older.ended_s
            if ended_s > newer.began_s if ended_s else health.outlived(older.pid, older.began_s, newer.began_s):
                said = f"{job_id} began in {newer.worker} while it ran in {older.worker} (pid {older.pid})"
                yield said, health.was_well(older.worker, older.began_s, newer.began_s)


def _records(name: str) -> Steps[list[tuple[str, Record]]]:
    key = queue_keys(name).jobs
    found: list[tuple[str, Record]] = []
    cursor: bytes = b"0"
    while True:
        cursor, items = yield command("HSCAN", key, cursor, "COUNT", 500, key=key, decode=list)
        found += [(items[i].decode(), decode(items[i + 1])) for i in range(0, len(items), 2)]
        if int(cursor) == 0:
            return found
