"""The verdict: what was acknowledged, what ran, what it did, and what is left, held against each other."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from headrace.core.record import Record, Stored, decode
from headrace.engine.admin import count_jobs
from headrace.engine.audit import audit
from headrace.engine.call import Steps, command
from headrace.engine.clients import SyncClient
from headrace.engine.keys import queue_keys
from headrace.torture.ledger import Effects
from headrace.torture.names import QUEUES


@dataclass(frozen=True, slots=True)
class Audit:
    """What the jobs wrote: ids of starts and ends, and each start's fence."""

    starts: Counter[str]
    ends: Counter[str]
    fences: dict[str, list[int]]


@dataclass(slots=True)
class Verdict:
    """`lost`: acknowledged, never ran to its end, and not ended otherwise. `violations`: broken invariants, in words."""

    acked: int = 0
    lost: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    failed: Counter[str] = field(default_factory=Counter)
    starts: int = 0
    ends: int = 0
    extra_runs: int = 0
    succeeded: int = 0
    naive: int = 0
    fenced: int = 0
    effects: int = 0
    violations: list[str] = field(default_factory=list)

    @property
    def is_good(self) -> bool:
        return not self.lost and not self.unknown and not self.violations and self.fenced == self.effects


def read_audit(path: Path) -> Audit:
    found = Audit(Counter(), Counter(), defaultdict(list))
    for line in path.read_text().splitlines():
        word, job_id, fence, _ = line.split()
        if word == "start":
            found.starts[job_id] += 1
            found.fences[job_id].append(int(fence))
        else:
            found.ends[job_id] += 1
    return found


def judge(acked: Iterable[str], seen: Audit, effects: Effects, client: SyncClient) -> Verdict:
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
    for job_id in seen.ends:
        if job_id not in effects.jobs:
            yield f"{job_id} ran to its end without its effect"
    for job_id, fences in seen.fences.items():
        if len(set(fences)) != len(fences):
            yield f"two runs of {job_id} had one fence"


def _records(name: str) -> Steps[list[tuple[str, Record]]]:
    key = queue_keys(name).jobs
    found: list[tuple[str, Record]] = []
    cursor: bytes = b"0"
    while True:
        cursor, items = yield command("HSCAN", key, cursor, "COUNT", 500, key=key, decode=list)
        found += [(items[i].decode(), decode(items[i + 1])) for i in range(0, len(items), 2)]
        if int(cursor) == 0:
            return found
