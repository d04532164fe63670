"""The claim–run–settle loop of a process's main thread (prefork, fork) or of one of its threads.

1. `run` settles what is done and claims the next jobs in one call; waits for the doorbell when there is nothing.
2. `_gather` puts the calls of batch tasks side by side, and fills such a batch up while nothing else is held.
3. `_run_batch` runs the claimed jobs one after another; board first, so that the supervisor knows.
4. `relieve`, called by the helper thread, settles what is done of a batch that has grown old behind one job, and gives the
   unstarted ones back. `_lock` guards which of them takes the next job. `_sending` lets one of them send at a time: a late
   call could give back what the other has claimed since, and what it owes is the other's to adopt when it failed.
"""

from __future__ import annotations

import logging
import math
import os
import random
import select
import time
from collections.abc import Callable, Sequence
from itertools import groupby
from operator import attrgetter
from threading import Lock
from typing import Any, NamedTuple, Protocol

from headrace.engine.clients import SyncClient
from headrace.engine.doorbells import Doorbell
from headrace.engine.keys import QueueKeys
from headrace.engine.ops import MOST_CLAIMS_A_CALL, Claim, Claimed, Settled, Settlement
from headrace.errors import HeadraceError, ServerError
from headrace.task import Task
from headrace.worker.batch import BatchSize
from headrace.worker.board import SlotRow
from headrace.worker.execute import Executor
from headrace.worker.gate import Gate
from headrace.worker.runs import BatchRun, Member, Run
from headrace.worker.settle import Session, exchange
from headrace.worker.tally import MOST_MARKS, Mark, Tally, send

logger = logging.getLogger("headrace.worker")

LOOK_EVERY_S = 2.0
SETTLE_LAST_S = 3.0
OLD_BATCH_NS = 20_000_000
GATE_WAIT_S = 0.02
FILL_PAUSE_S = 0.02
"""How long a ring waits for others while a batch fills up, so that a call does not cost a round trip."""
_queue_of = attrgetter("queue")


class Life(Protocol):
    """What a consumer must know of its child. `is_stopping` is a plain attribute: it is read before each job."""

    is_stopping: bool
    is_burst: bool
    tally: Tally

    @property
    def is_quiet(self) -> bool: ...

    def jobs_done(self, count: int) -> None: ...

    def drained(self) -> None: ...

    def wake_helper(self) -> None: ...


class Calls(NamedTuple):
    """How a pool calls a job, and the jobs of a batch; None and []: their process died, and was told of."""

    one: Callable[[Run], Settlement | None]
    batch: Callable[[BatchRun], list[Settlement]]


class Consumer:
    """One loop, one session, one connection, one slot of the board."""

    def __init__(
        self,
        life: Life,
        slot: SlotRow,
        session: Session,
        client: SyncClient,
        executor: Executor,
        calls: Calls,
        gate: Gate,
        number: int,
        *,
        batch_ms: float,
        most: int,
    ) -> None:
        self._life = life
        self._slot = slot
        self.session = session
        self._client = client
        self._executor = executor
        self._call, self._call_batch = calls
        self._gate = gate
        self._number = number
        self._size = BatchSize(batch_ms, most)
        self._doorbell = Doorbell(client.config, [queue.wake for queue in session.queues])
        self._lock = Lock()
        self._sending = Lock()
        self._batch: list[Claim] = []
        self._alike: list[int] = []
        self._next = 0
        self._outcomes: list[Settlement] = []
        self._batch_started_ns = 0
        self._next_due_ms: int | None = None
        self._heard = True
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)

    def wake(self) -> None:
        """End a wait; safe in a signal handler."""
        try:
            os.write(self._wake_write, b"!")
        except OSError:
            return  # it is full: a wake is under way

    def run(self) -> None:
        """Work until the child is told to stop, or a burst is over. The session is open.

        What ends it otherwise is a bug of ours, or a job that has ruined its process, as one that closes all files: then
        what jobs gave is settled over a new connection, or the same job would run, and do it, again and again.
        """
        try:
            self._work()
        except BaseException:
            self._settle_last()
            raise

    def _work(self) -> None:
        life = self._life
        while True:
            if life.tally.due_ns <= time.monotonic_ns():
                send(self._client.run, life.tally.take(self.session.queues))
            stopping = life.is_stopping
            permit = None if stopping or life.is_quiet else self._gate.enter(self._number)
            want = 0 if permit is None else 1 if permit.is_solo else self._size.want
            with self._sending:
                outcomes, self._outcomes = self._outcomes, []
                is_idle = not outcomes and not want
                may_take_suspects = permit is not None and permit.may_take_suspects
                try:
                    settled = None if is_idle else self._exchange(outcomes, want, may_take_suspects)
                except BaseException:
                    self._outcomes = outcomes
                    raise
            if is_idle:
                if stopping:
                    break
                self._wait_quietly(GATE_WAIT_S if not life.is_quiet else LOOK_EVERY_S)
                continue
            claimed = None if settled is None else settled.claimed
            if claimed is None or not claimed.claims:
                self._gate.leave(self._number)
                if claimed is not None and claimed.suspects_waiting:
                    self._gate.ask_for_solo()
                elif claimed is not None and want and not claimed.more:
                    if life.is_burst:
                        life.drained()
                        break
                    self._next_due_ms = claimed.next_due_ms
                    life.tally.count()  # nobody waits now, and what this child has run is seen at once
                    self._wait()
                continue
            if permit is not None and permit.is_solo and not claimed.claims[0].is_suspect:
                self._gate.reopen(self._number)
            if claimed.suspects_waiting:
                self._gate.ask_for_solo()
            claims = self._gather(claimed) if self._executor.has_batches else claimed.claims
            if not self._heard:
                self._doorbell.disarm()  # what was claimed without a ring leaves a ring for others
            self._run_batch(claims)
            self._gate.leave(self._number)

    def _settle_last(self) -> None:
        outcomes, self._outcomes = self._outcomes, []
        client = SyncClient(self._client.config, retry=False)
        self.session.must_adopt = True
        ends = time.monotonic() + SETTLE_LAST_S
        while outcomes and time.monotonic() < ends:
            try:
                client.run(self.session.exchange(outcomes, 0, False))
                outcomes = []
            except HeadraceError as error:
                logger.warning("%s; trying again to settle what is done", error)
                time.sleep(0.1)
        client.close()

    def close(self) -> None:
        self._doorbell.close()
        os.close(self._wake_read)
        os.close(self._wake_write)

    def _exchange(self, outcomes: list[Settlement], want: int, may_take_suspects: bool) -> Settled | None:
        life = self._life
        return exchange(
            self._client, self.session, outcomes, want, may_take_suspects, self._wake_read, lambda: life.is_stopping
        )

    # Gather

    def _gather(self, claimed: Claimed) -> list[Claim]:
        """The claims, with the calls of each batch task side by side, and more of them where they are all there is."""
        claims = claimed.claims
        tasks = [self._executor.batch_task_of(claim) for claim in claims]
        task = tasks[0]
        if task is not None and not claims[0].is_suspect and tasks.count(task) == len(claims):
            claims = self._fill(claims, task, claimed.more)
            tasks = [task] * len(claims)
        places: dict[object, list[int]] = {}
        for n, task in enumerate(tasks):
            places.setdefault(n if task is None else task.name, []).append(n)
        self._alike = [len(alike) - i for alike in places.values() for i in range(len(alike))]
        return [claims[n] for alike in places.values() for n in alike]

    def _fill(self, claims: list[Claim], task: Task[..., Any], more: bool) -> list[Claim]:
        """Claim more calls of this task until the batch is full, its time is over, or a job of another one comes.

        That job goes back at once: it must not wait for the batch.
        """
        life, batch = self._life, task.batch
        assert batch is not None
        ends = time.monotonic() + (0.0 if life.is_burst else batch.wait_s)
        others: list[Claim] = []
        while len(claims) < batch.max and not (
            others or life.is_stopping or life.is_quiet or self._gate.is_solo_wanted
        ):
            if not more:
                left_s = ends - time.monotonic()
                if left_s <= 0:
                    break
                self._wait(left_s)
                if self._heard:
                    self._wait_quietly(min(FILL_PAUSE_S, batch.wait_s / 10))
                more = True
                continue
            settled, is_held = self._exchange_holding([], min(batch.max - len(claims), MOST_CLAIMS_A_CALL))
            if not is_held:
                claims = []
            if settled is None:
                break
            for claim in settled.claimed.claims:
                (claims if self._executor.batch_task_of(claim) is task else others).append(claim)
            if settled.claimed.suspects_waiting:
                self._gate.ask_for_solo()
                break
            more, self._next_due_ms = settled.claimed.more, settled.claimed.next_due_ms
        if others:
            _, is_held = self._exchange_holding([self._executor.release(claim) for claim in others], 0)
            if not is_held:
                return []
        return claims

    def _exchange_holding(self, outcomes: list[Settlement], want: int) -> tuple[Settled | None, bool]:
        """An exchange while a batch fills up; False: an adoption has given back what was claimed before."""
        name = self.session.name
        with self._sending:
            settled = self._exchange(outcomes, want, False)
        return settled, self.session.name == name

    # Run

    def _run_batch(self, claims: list[Claim]) -> None:
        """Run a batch; its outcomes are in `_outcomes` afterwards, but for those the helper has settled."""
        slot, life = self._slot, self._life
        cells, at = slot.cells, slot.at
        timeout_at, serial_at = at + slot.TIMEOUT_MS, at + slot.SERIAL
        started_at, revoked_at = at + slot.STARTED_NS, at + slot.REVOKED
        began_ns = now_ns = time.monotonic_ns()
        slot.set_batch([(queue, [claim.id for claim in part]) for queue, part in groupby(claims, _queue_of)], began_ns)
        batch_serial, first_serial, timeout_ms = slot.batch_serial, slot.first_serial, slot.timeout_ms
        with self._lock:
            self._batch, self._next, self._batch_started_ns = claims, 0, began_ns
        if len(claims) > 1:
            life.wake_helper()
        begin, call, lock = self._executor.begin, self._call, self._lock
        outcome: Settlement | None = None
        marks: list[Mark] = []
        ran = index = 0
        while True:
            with lock:
                if outcome is not None:
                    self._outcomes.append(outcome)
                    outcome = None
                index = self._next
                if index >= len(self._batch) or life.is_stopping:
                    break
                self._next = index + 1
            claim = claims[index]
            run = begin(claim)
            if type(run) is Member:
                done = self._run_together(run, index, marks)
                timeout_ms, now_ns = slot.timeout_ms, time.monotonic_ns()
                if not done:
                    break
                ran += done
                continue
            cells[serial_at] = first_serial + index
            if isinstance(run, Run):
                # As slot.start() does; here, since each store to the board costs 45 ns.
                if run.timeout_ms != timeout_ms:
                    timeout_ms = cells[timeout_at] = run.timeout_ms
                run.started_ns = cells[started_at] = now_ns
                if cells[revoked_at] == batch_serial:
                    cells[started_at] = 0
                    self._give_up_rest()
                    break
                outcome = call(run)
                cells[started_at] = 0
                now_ns = time.monotonic_ns()
                if outcome is not None:
                    created_at_ms = run.record.created_at_ms if run.attempt == 1 else 0
                    marks.append((run.queue, run.task, outcome.kind, run.started_ns, now_ns, created_at_ms))
            else:
                outcome = run
                now_ns = time.monotonic_ns()
            ran += 1
        with lock:
            left, self._batch = self._batch[self._next :], []
            if not slot.is_revoked:
                self._outcomes += [self._executor.release(claim) for claim in left]
        slot.clear_batch()
        if ran:
            self._size.learn(ran, now_ns - began_ns)
            life.tally.marks.extend(marks)
            if len(life.tally.marks) >= MOST_MARKS:
                life.tally.count()
            life.jobs_done(ran)

    def _run_together(self, first: Member, index: int, marks: list[Mark]) -> int:
        """Run the call at `index` with those of the same task that come next; how many, 0: they are no longer ours."""
        batch = first.task_value.batch
        most = min(batch.max if batch else 1, self._alike[index] if index < len(self._alike) else 1)
        with self._lock:
            taken = self._batch[index : index + most]
            self._next = index + len(taken)
        begun = [self._executor.begin(claim) for claim in taken[1:]]
        together = BatchRun([first, *(found for found in begun if isinstance(found, Member))])
        outcomes = [found for found in begun if isinstance(found, Settlement)]
        slot = self._slot
        slot.start_together(len(taken), index + len(taken) - 1, together.timeout_ms, time.monotonic_ns())
        is_ours = not slot.is_revoked
        if is_ours:
            settled = self._call_batch(together)
            marks += together.marks(settled, time.monotonic_ns())
            outcomes += settled
        slot.end_together()
        if not is_ours:
            self._give_up_rest()
            return 0
        with self._lock:
            self._outcomes += outcomes
        return len(taken)

    def _give_up_rest(self) -> None:
        """The supervisor has given the rest of the batch back; or all but what was just to begin, if it saw that."""
        with self._lock:
            self._next = len(self._batch)
        self.session.must_adopt = True  # so what is still held goes back, whatever the supervisor saw

    def relieve(self, client: SyncClient, now_ns: int) -> bool:
        """The helper's turn: act when the batch is old and a job still runs; False when there is none, nor was just now."""
        with self._lock:
            if not self._batch:
                return now_ns - self._batch_started_ns < OLD_BATCH_NS
            self.session.heed_changes(client)
            if now_ns - self._batch_started_ns < OLD_BATCH_NS or self.session.must_adopt:
                return True
            done, self._outcomes = self._outcomes, []
            unstarted = self._batch[self._next :]
            del self._batch[self._next :]
            self._batch_started_ns = now_ns
            if not done and not unstarted:
                return True
            # Before the job can end and its consumer send; nobody else waits for `_lock` when this is held.
            self._sending.acquire()
        try:
            client.run(self.session.exchange(done + [self._executor.release(claim) for claim in unstarted], 0, False))
        except ServerError as error:
            # What is in doubt is known again when the consumer has adopted its session; releases come with it.
            self.session.must_adopt = True
            logger.warning("%s; the consumer itself will settle %d outcome(s)", error, len(done))
            with self._lock:
                self._outcomes = done + self._outcomes
        finally:
            self._sending.release()
        return True

    # Wait

    def _wait(self, most_s: float = math.inf) -> None:
        """Until the doorbell rings, a delayed job is due, or `most_s`, or 2 s, are over: then a claim is tried."""
        due_s = LOOK_EVERY_S if self._next_due_ms is None else self._next_due_ms / 1000
        fds: Sequence[int] = ()
        try:
            self._doorbell.arm()
            fds = self._doorbell.fds()
        except ServerError as error:
            logger.debug("no doorbell: %s", error)
        # Spread, so that ten idle consumers do not look at once.
        timeout_s = min(due_s, LOOK_EVERY_S * random.uniform(0.9, 1.1)) if fds else min(due_s, 0.2)
        ready, _, _ = select.select([*fds, self._wake_read], [], [], max(0.0, min(timeout_s, most_s)))
        self._empty_wakes()
        self._heard = False
        if any(fd in fds for fd in ready):
            try:
                self._heard = self._doorbell.rang()
            except ServerError as error:
                logger.debug("the doorbell's connection ended: %s", error)

    def _wait_quietly(self, timeout_s: float) -> None:
        select.select([self._wake_read], [], [], timeout_s)
        self._empty_wakes()

    def _empty_wakes(self) -> None:
        try:
            os.read(self._wake_read, 4096)
        except BlockingIOError:
            return


def strict(queues: Sequence[QueueKeys]) -> Callable[[], Sequence[QueueKeys]]:
    return lambda: queues


def weighted(queues: Sequence[QueueKeys], weights: dict[str, int]) -> Callable[[], Sequence[QueueKeys]]:
    """A random order for each claim, in which a queue's chance to come first is its share.

    Efraimidis and Spirakis, "Weighted random sampling with a reservoir", 2006: sort by u^(1/w).
    """
    shares = [(queue, weights.get(queue.name, 1)) for queue in queues]

    def order() -> Sequence[QueueKeys]:
        return [
            queue for _, queue in sorted(((random.random() ** (1 / w), q) for q, w in shares), key=_first, reverse=True)
        ]

    return order


def _first(pair: tuple[float, QueueKeys]) -> float:
    return pair[0]


__all__ = ["Calls", "Consumer", "Life", "strict", "weighted"]
