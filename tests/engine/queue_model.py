"""What the scripts promise, as plain Python on plain data: the specification that the state machine compares them with.

Instants are milliseconds of the server's clock. The model keeps every order, count and mark that the server keeps;
scores that depend on the very millisecond are taken over from the server once they are near enough.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

LIVE, SUCCEEDED, FAILED, CANCELLED, EXPIRED = 3, 6, 7, 8, 9
DAY_MS = 86_400_000
ROUNDS = 4
MAX_CRASHES = 3
ENDS = {"s": (SUCCEEDED, "succeeded"), "f": (FAILED, "failed"), "c": (CANCELLED, "cancelled")}


@dataclass
class Job:
    """One record, as far as scripts care."""

    priority: int = 0
    state: int = LIVE
    attempt: int = 0
    expires_at_ms: int = 0
    reason: str | None = None


@dataclass
class Outcome:
    """One job of a settle: `kind` as `ops.Kind`; `ms`: its delay, or how long it is kept."""

    id: str
    kind: str
    ms: int
    is_suspect: bool


@dataclass
class Claimed:
    ids: list[str] = field(default_factory=list)
    more: bool = False
    suspects_waiting: bool = False
    is_suspect: bool = False


@dataclass
class Model:
    """One queue."""

    now_ms: int = 0
    jobs: dict[str, Job] = field(default_factory=dict)
    ready: list[str] = field(default_factory=list)
    ranks: dict[str, tuple[int, int]] = field(default_factory=dict)
    delayed: dict[str, int] = field(default_factory=dict)
    suspects: list[str] = field(default_factory=list)
    held: dict[str, set[str]] = field(default_factory=dict)
    leases: dict[str, int] = field(default_factory=dict)
    done: dict[str, int] = field(default_factory=dict)
    dead: dict[str, int] = field(default_factory=dict)
    crashes: dict[str, int] = field(default_factory=dict)
    cancels: set[str] = field(default_factory=set)
    progress: set[str] = field(default_factory=set)
    lingering: set[str] = field(default_factory=set)
    waiters: dict[str, set[str]] = field(default_factory=dict)
    rings: dict[str, list[int]] = field(default_factory=dict)
    totals: Counter[str] = field(default_factory=Counter)
    is_paused: bool = False
    seq: int = 0
    must_ring: bool = False

    # -- what questions need

    def holder_of(self, job_id: str) -> str | None:
        return next((session for session, ids in self.held.items() if job_id in ids), None)

    def is_live(self, job_id: str) -> bool:
        return job_id in self.jobs and self.jobs[job_id].state == LIVE

    def by_rank(self) -> list[str]:
        return sorted(self.ranks, key=lambda job_id: (self.ranks[job_id], job_id))

    # -- producers

    def enqueue(self, job_id: str, *, priority: int, front: bool, delay_ms: int, expires_in_ms: int) -> bool:
        """False: the id is taken."""
        if job_id in self.jobs:
            return False
        if job_id in self.lingering:
            self.lingering.remove(job_id)
            self.ready.remove(job_id)
        expires = self.now_ms + expires_in_ms if expires_in_ms else 0
        self.jobs[job_id] = Job(priority, expires_at_ms=expires)
        self.totals["enqueued"] += 1
        if delay_ms:
            self.delayed[job_id] = self.now_ms + delay_ms
            return True
        self.must_ring = True
        if priority and front:
            self.ranks[job_id] = (100 - priority, 0)
        elif front:
            self.ready.insert(0, job_id)
        else:
            self._put_back([job_id])
        return True

    # -- consumers

    def claim(self, session: str, want: int, take_suspects: bool) -> Claimed:
        found = Claimed()
        if self.is_paused:
            return found
        self.promote()
        has_priority = bool(self.ranks)
        if take_suspects and self.suspects:
            first = self.suspects.pop(0)
            found.is_suspect = found.more = self._may_run(first)
            found.ids += [first] if found.is_suspect else []
        elif self.suspects:
            found.suspects_waiting = True
        for _ in range(0 if found.is_suspect else ROUNDS):
            missing = want - len(found.ids)
            popped = self._pop(missing, has_priority)
            found.ids += [job_id for job_id in popped if self._may_run(job_id)]
            found.more = len(popped) == missing
            if not found.more or len(found.ids) == want:
                break
        self.held[session] |= set(found.ids)
        if found.ids and found.more and (self.ready or self.suspects or self.ranks):
            self.must_ring = True
        return found

    def _pop(self, want: int, has_priority: bool) -> list[str]:
        ids: list[str] = []
        if has_priority:
            ids = [job_id for job_id in self.by_rank() if self.ranks[job_id][0] < 100][:want]
        plain = self.ready[: want - len(ids)]
        del self.ready[: len(plain)]
        high = len(ids)
        ids += plain
        if has_priority:
            low = [job_id for job_id in self.by_rank() if job_id not in ids[:high]]
            ids += low[: want - len(ids)]
        for job_id in ids:
            self.ranks.pop(job_id, None)
        return ids

    def _may_run(self, job_id: str) -> bool:
        if not self.is_live(job_id):
            self.lingering.discard(job_id)
            return False
        expires = self.jobs[job_id].expires_at_ms
        if not expires or expires > self.now_ms:
            return True
        self._finish(job_id, EXPIRED, self.now_ms + DAY_MS)
        return False

    def settle(self, session: str, outcomes: list[Outcome]) -> list[str]:
        """The ids that are lost."""
        groups: dict[tuple[str, bool], list[Outcome]] = {}
        for outcome in outcomes:
            groups.setdefault((outcome.kind, outcome.is_suspect), []).append(outcome)
        lost: list[str] = []
        for (kind, is_suspect), group in groups.items():
            ours = [outcome for outcome in group if outcome.id in self.held[session]]
            lost += [outcome.id for outcome in group if outcome not in ours]
            self.held[session] -= {outcome.id for outcome in ours}
            if ours:
                self._settle_group(kind, is_suspect, ours)
        return lost

    def _settle_group(self, kind: str, is_suspect: bool, ours: list[Outcome]) -> None:
        ids = [outcome.id for outcome in ours]
        if kind == "l":
            self.totals["released"] += len(ids)
            self.must_ring = True
            if is_suspect:
                self.suspects[:0] = ids
            else:
                self._put_front(ids)
            return
        if kind in ("r", "p"):
            stopped = [outcome.id for outcome in ours if outcome.id in self.cancels]
            for job_id in stopped:
                self._charge(job_id, kind == "r")
                self._finish(job_id, CANCELLED, self.now_ms + DAY_MS)
            self._put_off(kind, [outcome for outcome in ours if outcome.id not in stopped])
        for outcome in ours if kind in ENDS else ():
            self._charge(outcome.id, 1)
            self._finish(outcome.id, ENDS[kind][0], self.now_ms + outcome.ms)
        for job_id in ids if kind == "d" else ():
            self._tell(job_id, SUCCEEDED)
            self._forget(job_id)
            self.totals["succeeded"] += 1
        if is_suspect:
            for job_id in ids:
                self.crashes.pop(job_id, None)

    def _put_off(self, kind: str, ours: list[Outcome]) -> None:
        if ours:
            self.totals["retried" if kind == "r" else "parked"] += len(ours)
            self.must_ring = True
        for outcome in ours:
            self._charge(outcome.id, kind == "r")
            if outcome.ms:
                self.delayed[outcome.id] = self.now_ms + outcome.ms
        self._put_back([outcome.id for outcome in ours if not outcome.ms])

    def _charge(self, job_id: str, attempts: int) -> None:
        """The client's part: the record that it sends."""
        self.jobs[job_id].attempt += attempts
        self.jobs[job_id].reason = None

    def give_back(self, session: str, ids: list[str]) -> list[str]:
        ours = [job_id for job_id in ids if job_id in self.held[session]]
        self.held[session] -= set(ours)
        for job_id in ours:
            if job_id in self.crashes:
                self.suspects.insert(0, job_id)
        self._put_front([job_id for job_id in ours if job_id not in self.crashes])
        self.must_ring = self.must_ring or bool(ours)
        return ours

    def open(self, session: str, lease_ms: int) -> None:
        self.leases[session] = self.now_ms + lease_ms
        self.held.setdefault(session, set())

    def renew(self, sessions: list[str], lease_ms: int) -> set[str]:
        """Those that are gone."""
        for session in sessions:
            if session in self.leases:
                self.leases[session] = self.now_ms + lease_ms
        return {session for session in sessions if session not in self.leases}

    def adopt(self, old: str, new: str, lease_ms: int) -> list[str]:
        self.leases.pop(old, None)
        ids = self.held.pop(old, set())
        self.open(new, lease_ms)
        self.held[new] |= ids
        return sorted(self.held[new])

    def release(
        self, session: str, blamed: list[str], *, alone: bool, stopped: bool, reason: str
    ) -> tuple[list[str], int, list[str]]:
        """(now suspects, how many went back, failed)."""
        self.leases.pop(session, None)
        ids = sorted(self.held.pop(session, set()))
        suspects, failed, back, count = [], [], [], 0
        for job_id in ids:
            if job_id in blamed and stopped and job_id not in self.cancels:
                self.jobs[job_id].reason = self.jobs[job_id].reason or reason
                self.crashes.pop(job_id, None)
                back.append(job_id)
                count += 1
            elif job_id in blamed:
                became = self._suspect(job_id, alone, reason)
                suspects += [job_id] if became == "suspect" else []
                failed += [job_id] if became == "failed" else []
            elif job_id in self.cancels:
                self._finish(job_id, CANCELLED, self.now_ms + DAY_MS)
            elif job_id in self.crashes:
                self.suspects.insert(0, job_id)
                count += 1
            else:
                back.append(job_id)
                count += 1
        self._put_front(back)
        self.must_ring = self.must_ring or bool(ids)
        return suspects, count, failed

    def _suspect(self, job_id: str, charge: bool, reason: str) -> str:
        if job_id in self.cancels:
            self._finish(job_id, CANCELLED, self.now_ms + DAY_MS)
            return "cancelled"
        self.crashes[job_id] = self.crashes.get(job_id, 0) + charge
        self.totals["crashed"] += charge
        if self.crashes[job_id] >= MAX_CRASHES:
            self.jobs[job_id].reason = self.jobs[job_id].reason or reason
            del self.crashes[job_id]
            self._finish(job_id, FAILED, self.now_ms + 30 * DAY_MS)
            return "failed"
        self.suspects.append(job_id)
        return "suspect"

    # -- supervisors

    def promote(self) -> int:
        due = sorted((at, job_id) for job_id, at in self.delayed.items() if at <= self.now_ms)
        for _, job_id in due:
            del self.delayed[job_id]
        self._put_back([job_id for _, job_id in due])
        return len(due)

    def tend(self, *, sweep: bool, done_max: int, reason: str) -> tuple[int, list[str], list[str], int]:
        """(promoted, sessions swept, jobs swept, trimmed)."""
        promoted = self.promote()
        swept: list[str] = []
        jobs: list[str] = []
        overdue = sorted((end, session) for session, end in self.leases.items() if end <= self.now_ms)
        for _, session in overdue if sweep else ():
            ids = sorted(self.held.pop(session))
            del self.leases[session]
            for job_id in ids:
                self._suspect(job_id, len(ids) == 1 and job_id in self.crashes, reason)
            swept.append(session)
            jobs += ids
        trimmed = self._trim(self.done, done_max) + self._trim(self.dead, 100_000)
        self.must_ring = self.must_ring or promoted > 0 or bool(jobs)
        return promoted, swept, jobs, trimmed

    def _trim(self, place: dict[str, int], most: int) -> int:
        old = [job_id for job_id, until in place.items() if until <= self.now_ms]
        excess = len(place) - most
        if not old and excess > 0:
            old = [job_id for _, job_id in sorted((until, job_id) for job_id, until in place.items())][:excess]
        for job_id in old:
            del place[job_id], self.jobs[job_id]
        return len(old)

    # -- one job

    def cancel(self, job_id: str) -> str:
        if not self.is_live(job_id):
            return "ended" if job_id in self.jobs else "none"
        if self.holder_of(job_id):
            self.cancels.add(job_id)
            return "asked"
        if job_id in self.ready:
            self.lingering.add(job_id)
        self._leave_waiting(job_id)
        self._finish(job_id, CANCELLED, self.now_ms + DAY_MS)
        return "cancelled"

    def delete(self, job_id: str) -> str:
        if job_id not in self.jobs:
            return "none"
        if self.holder_of(job_id):
            return "running"
        self.totals["deleted" if self.is_live(job_id) else "forgotten"] += 1
        self._leave_waiting(job_id)
        self._leave_ready(job_id)
        self._tell(job_id, 0)
        self._forget(job_id)
        return "deleted"

    def retry(self, job_id: str) -> str:
        if job_id not in self.jobs:
            return "none"
        if self.is_live(job_id):
            return "live"
        self._leave_ready(job_id)
        self.done.pop(job_id, None)
        self.dead.pop(job_id, None)
        self.crashes.pop(job_id, None)
        self.jobs[job_id] = Job(self.jobs[job_id].priority)
        self._put_back([job_id])
        self.totals["requeued"] += 1
        self.must_ring = True
        return "queued"

    def run_now(self, job_id: str) -> str:
        if job_id not in self.jobs:
            return "none"
        if not self.is_live(job_id):
            return "ended"
        if self.delayed.pop(job_id, None) is None:
            return "live"
        self._put_front([job_id])
        self.must_ring = True
        return "queued"

    def note_progress(self, job_id: str, session: str | None) -> bool:
        """True: asked to stop, or not this session's to be told of."""
        if session is None or job_id not in self.held.get(session, ()):
            return True
        self.progress.add(job_id)
        return job_id in self.cancels

    def watch(self, job_id: str, waiter: str) -> str:
        if not self.is_live(job_id):
            return "ended" if job_id in self.jobs else "none"
        self.waiters.setdefault(job_id, set()).add(waiter)
        return "watching"

    def unwatch(self, job_id: str, waiter: str) -> None:
        self.waiters.get(job_id, set()).discard(waiter)

    def purge(self, place: str, ids: list[str]) -> int:
        """Jobs deleted: the ids of a sorted set; or of `ready` as many as there are ids, from its head."""
        if place == "ready":
            taken, self.ready = self.ready[: len(ids)], self.ready[len(ids) :]
            self.lingering -= set(taken)
        else:
            where: dict[str, object] = {"priority": self.ranks, "done": self.done}.get(place, self.delayed)  # type: ignore[assignment]
            taken = [job_id for job_id in ids if job_id in where]
            for job_id in taken:
                del where[job_id]
        gone = [job_id for job_id in taken if job_id in self.jobs and self.is_live(job_id) == (place != "done")]
        for job_id in gone:
            self._tell(job_id, 0)
            self._forget(job_id)
            self.totals["forgotten" if place == "done" else "deleted"] += 1
        return len(gone)

    # -- places

    def _put_back(self, ids: list[str]) -> None:
        for job_id in ids:
            priority = self.jobs[job_id].priority
            if priority:
                self.seq += 1
                self.ranks[job_id] = (100 - priority, self.seq)
            else:
                self.ready.append(job_id)

    def _put_front(self, ids: list[str]) -> None:
        for job_id in reversed(ids):
            priority = self.jobs[job_id].priority
            if priority:
                self.ranks[job_id] = (100 - priority, 0)
            else:
                self.ready.insert(0, job_id)

    def _leave_waiting(self, job_id: str) -> None:
        """Out of the places that are short or sorted."""
        self.ranks.pop(job_id, None)
        self.delayed.pop(job_id, None)
        self.suspects = [other for other in self.suspects if other != job_id]

    def _leave_ready(self, job_id: str) -> None:
        self.ready = [other for other in self.ready if other != job_id]
        self.lingering.discard(job_id)

    def _finish(self, job_id: str, state: int, keep_until_ms: int) -> None:
        self.jobs[job_id].state = state
        (self.dead if state == FAILED else self.done)[job_id] = keep_until_ms
        name = {SUCCEEDED: "succeeded", FAILED: "failed", CANCELLED: "cancelled", EXPIRED: "expired"}[state]
        self.totals[name] += 1
        if state in (CANCELLED, EXPIRED):
            self.crashes.pop(job_id, None)
        self._tell(job_id, state)

    def _tell(self, job_id: str, state: int) -> None:
        for waiter in self.waiters.pop(job_id, ()):
            self.rings.setdefault(waiter, []).append(state)
        self.progress.discard(job_id)
        self.cancels.discard(job_id)

    def _forget(self, job_id: str) -> None:
        for place in (self.jobs, self.done, self.dead, self.crashes):
            place.pop(job_id, None)
