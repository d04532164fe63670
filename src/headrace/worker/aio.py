"""The asyncio pool: N jobs side by side on one loop, one session for all of them.

1. `_Loop.run` settles what has ended and claims as many as there are free slots, in one call.
2. Each job is a task of the loop with a slot of the board; `def` tasks run in the loop's threads.
3. Calls of a batch task gather in one slot until they are enough, or have waited; between two exchanges they begin.
4. Suspects run alone: the loop drains, takes one, and goes on.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import signal
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from headrace.core.batch import Batch
from headrace.engine.clients import AsyncClient, backoff_s
from headrace.engine.doorbells import AsyncDoorbell
from headrace.engine.ops import Claim, Claimed, Settlement
from headrace.errors import JobCancelled, JobTimeout, ServerError
from headrace.worker.batch import MOST
from headrace.worker.board import Exit, SlotRow
from headrace.worker.execute import Executor
from headrace.worker.interrupts import Quit, asked, guarded, raise_in_thread, take_back, words
from headrace.worker.runs import AnyRun, BatchRun, Member, Run, mark_of
from headrace.worker.settle import Session, aexchange
from headrace.worker.tally import MOST_MARKS

if TYPE_CHECKING:
    from headrace.worker.child import Child

logger = logging.getLogger("headrace.worker")

LOOK_EVERY_S = 2.0
_queue_of = attrgetter("queue")
HELD_MAX = 4_000
"""Jobs of one session at once, in batches: an adoption reads them all by one `unpack` of Lua, which takes fewer than 8,000."""


def work(child: Child) -> None:
    """Run the pool to its end."""
    asyncio.run(_Loop(child).live())


class _Seat:
    """One slot: its row on the board and what runs there."""

    def __init__(self, row: SlotRow) -> None:
        self.row = row
        self.claims: list[Claim] = []
        self.taken_over: set[str] = set()
        self.run: AnyRun | None = None
        self.task: asyncio.Task[Any] | None = None
        self.kind: type[BaseException] | None = None
        self.thread = 0
        self.done_serial = 0
        self.lock = threading.Lock()


class _Gathering:
    """Calls of one batch task that wait for others, and the seat that is kept for them."""

    def __init__(self, seat: _Seat, batch: Batch) -> None:
        self.seat = seat
        self.most = batch.max
        self.ends_s = time.monotonic() + batch.wait_s
        self.claims: list[Claim] = []


class _Loop:
    """The pool's one loop."""

    def __init__(self, child: Child) -> None:
        self._child = child
        self._client = AsyncClient(child.server, retry=False)
        self._seats = [_Seat(row) for row in child.board.slots_of(child.number)]
        self._free = list(reversed(self._seats))
        self._session: Session = child.session(0, self._seats[0].row, self._unsettled_ids)
        self._first_session = ""
        self._threads = ThreadPoolExecutor(len(self._seats), thread_name_prefix="headrace")
        # What jobs report goes out by one thread, in order: the loop does not wait for it.
        self._reporter = ThreadPoolExecutor(1, thread_name_prefix="headrace-reports")
        self._executor: Executor = child.executor(self._call, self._call, self._reporter.submit)
        self._doorbell = AsyncDoorbell(child.server, [queue.wake for queue in child.queues])
        self._outcomes: list[Settlement] = []
        self._changed = asyncio.Event()
        self._seat_of: dict[str, _Seat] = {}
        self._gathering: dict[str, _Gathering] = {}
        self._wants_solo = self._is_solo = self._is_more = False
        self._tasks: set[asyncio.Task[None]] = set()

    def _unsettled_ids(self) -> set[str]:
        """What runs, and what has ended since the exchange that is under way began."""
        ids = {claim.id for seat in self._seats for claim in seat.claims}
        return ids.union(outcome.id for outcome in self._outcomes)

    async def live(self) -> None:
        child, loop = self._child, asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._stop)
        loop.add_signal_handler(signal.SIGUSR2, self._on_interrupt)
        child.on_wake.append(self._changed.set)
        try:
            await _run_hooks(child.app.start_hooks)
        except Exception:
            logger.exception("a start hook raised: this child ends")
            child.reason = Exit.START_FAILED
            return
        self._executor.find_listeners()
        if await self._open():
            child.row.ready = 1
            await self._run()
            await self._close()
        try:
            await _run_hooks(child.app.stop_hooks)
        except Exception:
            logger.exception("a stop hook raised")
        await self._doorbell.aclose()
        await self._client.aclose()
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._reporter.shutdown()

    async def _open(self) -> bool:
        attempt = 0
        while not self._child.is_stopping:
            try:
                await self._client.run(self._session.open())
                self._first_session = self._session.name
                return True
            except ServerError as error:
                attempt += 1
                if attempt == 1:
                    logger.warning("%s; trying again", error)
            await asyncio.sleep(backoff_s(attempt, 2.0))
        return False

    async def _close(self) -> None:
        ends = time.monotonic() + 3.0
        while time.monotonic() < ends:
            try:
                await self._client.run(self._session.close())
                return
            except ServerError as error:
                logger.warning("the session could not be ended: %s", error)
            await asyncio.sleep(0.1)

    def _stop(self) -> None:
        self._child.stop()
        self._changed.set()

    # Claim and settle

    async def _run(self) -> None:
        child = self._child
        while True:
            if child.tally.due_ns <= time.monotonic_ns():
                await self._send_tally()
            self._changed.clear()
            self._begin_gathered()
            outcomes, self._outcomes = self._outcomes, []
            want = self._want()
            if not outcomes and not want:
                if child.is_stopping and not self._tasks:
                    return
                await self._wait(None)
                continue
            session = self._session.name
            settled = await aexchange(
                self._client, self._session, outcomes, want, self._is_idle(), lambda: child.is_stopping
            )
            if self._session.name != session:
                self._forget_gathered()
            if outcomes:
                child.jobs_done(len(outcomes))
            claimed = Claimed([]) if settled is None else settled.claimed
            if self._session.name != self._first_session:
                self._drop_older_runs({claim.id for claim in claimed.claims})
            self._is_more = claimed.more
            for claim in claimed.claims:
                self._take(claim)
            if claimed.suspects_waiting:
                self._wants_solo = True
            if want and not claimed.claims and not claimed.more and not self._outcomes:
                if child.is_burst and not self._tasks and not self._gathering:
                    child.drained()
                    return
                if not child.is_stopping:
                    child.tally.count()
                    await self._wait(claimed.next_due_ms)
            elif not want and not self._outcomes:
                await self._wait(None)

    async def _send_tally(self) -> None:
        try:
            for call in self._child.tally.take(self._child.queues):
                await self._client.run(call)
        except ServerError as error:
            logger.info("some statistics were not kept: %s", error)

    def _drop_older_runs(self, claimed: set[str]) -> None:
        """A job that is claimed while an older run of it is still here was taken over meanwhile: what that one gives is not its end."""
        self._outcomes = [outcome for outcome in self._outcomes if outcome.id not in claimed]
        for seat in self._seats:
            seat.taken_over.update(claim.id for claim in seat.claims if claim.id in claimed)

    def _is_idle(self) -> bool:
        return not self._tasks and not self._gathering

    def _want(self) -> int:
        """How many jobs to claim now."""
        child = self._child
        if self._is_solo and self._tasks:
            return 0
        self._is_solo = False
        if child.is_stopping or child.is_quiet:
            return 0
        if self._wants_solo:
            if not self._is_idle():
                return 0
            self._wants_solo = False
        left = child.config.max_jobs - child.row.jobs_done - len(self._tasks) if child.config.max_jobs else MOST
        room = len(self._free)
        if self._executor.has_batches:
            gathered = [len(one.claims) for one in self._gathering.values()]
            held = sum(gathered) + len(self._outcomes) + sum(len(seat.claims) for seat in self._seats)
            room += sum(one.most for one in self._gathering.values()) - sum(gathered)
            room = min(room, HELD_MAX - held)
        return max(0, min(room, MOST, left))

    async def _wait(self, next_due_ms: int | None) -> None:
        """Until a job ends, a signal comes, or (where there is room) the doorbell rings or 2 s are over."""
        changed = asyncio.ensure_future(self._changed.wait())
        now_s = time.monotonic()
        most_s = max(0.0, min((one.ends_s - now_s for one in self._gathering.values()), default=LOOK_EVERY_S))
        if self._want():
            timeout_s = (
                min(LOOK_EVERY_S, most_s) if next_due_ms is None else min(LOOK_EVERY_S, most_s, next_due_ms / 1000)
            )
            ring = asyncio.ensure_future(self._ring(timeout_s))
            await asyncio.wait({changed, ring}, return_when=asyncio.FIRST_COMPLETED)
            await _ended(ring)
        else:
            await asyncio.wait({changed}, timeout=min(LOOK_EVERY_S, most_s))
        await _ended(changed)
        await asyncio.sleep(0)  # let jobs that end in this turn be settled together

    async def _ring(self, timeout_s: float) -> None:
        try:
            await self._doorbell.wait(timeout_s)
        except ServerError as error:
            logger.debug("the doorbell's connection ended: %s", error)
            await asyncio.sleep(min(timeout_s, 0.2))

    # Gather

    def _take(self, claim: Claim) -> None:
        """Start a claimed job, or put it with others of its batch task; give it back where neither can be."""
        task = self._executor.batch_task_of(claim) if self._executor.has_batches else None
        if task is None or task.batch is None or claim.is_suspect:
            if self._free:
                self._start([claim])
            else:  # it was claimed for a batch, and must not wait for it
                self._outcomes.append(self._executor.release(claim))
                self._end_gathering()
            return
        found = self._gathering.get(task.name)
        if found is None or len(found.claims) >= found.most:
            if found is not None:
                self._begin(task.name)
            if not self._free:
                self._outcomes.append(self._executor.release(claim))
                self._end_gathering()
                return
            found = self._gathering[task.name] = _Gathering(self._free.pop(), task.batch)
        found.claims.append(claim)

    def _begin_gathered(self) -> None:
        """Begin the batches that are full or have waited; all of them where there is nothing to wait for."""
        child, now_s = self._child, time.monotonic()
        if child.is_stopping:
            for one in self._gathering.values():
                self._outcomes += [self._executor.release(claim) for claim in one.claims]
            self._forget_gathered()
        if child.is_quiet or self._wants_solo:
            self._end_gathering()
        is_more = self._is_more and self._want() > 0
        for name, one in list(self._gathering.items()):
            is_over = child.is_burst or one.ends_s <= now_s
            if len(one.claims) >= one.most or not one.ends_s or (is_over and not is_more):
                self._begin(name)

    def _end_gathering(self) -> None:
        for one in self._gathering.values():
            one.ends_s = 0.0

    def _begin(self, name: str) -> None:
        one = self._gathering.pop(name)
        self._free.append(one.seat)
        self._start(one.claims)

    def _forget_gathered(self) -> None:
        """They are no longer held, or go back."""
        self._free += [one.seat for one in self._gathering.values()]
        self._gathering.clear()

    # Run

    def _start(self, claims: list[Claim]) -> None:
        seat = self._free.pop()
        begun = [self._executor.begin(claim) for claim in claims]
        runs = [found for found in begun if isinstance(found, Run)]
        self._outcomes += [found for found in begun if isinstance(found, Settlement)]
        if not runs:
            self._leave(seat, [])
            return
        seat.claims, seat.kind, seat.thread = [run.claim for run in runs], None, 0
        now_ns = time.monotonic_ns()
        seat.row.set_batch(
            [(queue, [claim.id for claim in part]) for queue, part in groupby(seat.claims, _queue_of)], now_ns
        )
        if isinstance(runs[0], Member):
            self._sit(seat, BatchRun([run for run in runs if isinstance(run, Member)], seat), len(runs), now_ns)
        else:
            runs[0].started_ns = now_ns
            self._seat_of[runs[0].id] = seat
            self._sit(seat, runs[0], 1, now_ns)
        if claims[0].is_suspect:
            self._is_solo = True

    def _sit(self, seat: _Seat, run: AnyRun, count: int, now_ns: int) -> None:
        seat.run = run
        seat.row.start_together(count, count - 1, run.timeout_ms, now_ns)
        self._tasks.add(asyncio.get_running_loop().create_task(self._live_in(seat, run)))

    async def _live_in(self, seat: _Seat, run: AnyRun) -> None:
        task = asyncio.current_task()
        assert task is not None
        try:
            if isinstance(run, BatchRun):
                outcomes = await self._executor.acall_batch(run)
            else:
                outcomes = [await self._executor.acall(run)]
        finally:
            self._tasks.discard(task)
        now_ns = time.monotonic_ns()
        tally = self._child.tally
        if isinstance(run, BatchRun):
            tally.marks += run.marks(outcomes, now_ns)
        else:
            tally.marks.append(mark_of(run, outcomes[0], now_ns))
        if len(tally.marks) >= MOST_MARKS:
            tally.count()
        self._leave(seat, outcomes)

    def _leave(self, seat: _Seat, outcomes: list[Settlement]) -> None:
        seat.row.clear_batch()
        for outcome in outcomes:
            if outcome.id in seat.taken_over:
                logger.warning("job %s was taken over meanwhile: what this run of it gave is dropped", outcome.id)
            else:
                self._outcomes.append(outcome)
        seat.claims, seat.run, seat.task, seat.taken_over = [], None, None, set()
        self._free.append(seat)
        self._changed.set()

    async def _call(self, run: AnyRun) -> Any:
        seat: _Seat = run.place if isinstance(run, BatchRun) else self._seat_of.pop(run.id)
        loop = asyncio.get_running_loop()
        if run.is_async:
            seat.task = loop.create_task(guarded(run))
        else:
            context = copy_context()
            seat.task = asyncio.ensure_future(_future(loop, self._threads, lambda: context.run(_in_thread, seat, run)))
        try:
            return await seat.task
        except Quit as quit_:
            raise quit_.error from None
        except asyncio.CancelledError:
            if seat.kind is not None:
                raise seat.kind(words(seat.kind, run)) from None
            raise RuntimeError("the job cancelled itself") from None

    def _on_interrupt(self) -> None:
        self._changed.set()
        for seat in self._seats:
            serial, kind = seat.row.serial, asked(seat.row)
            if kind is None or seat.run is None or seat.done_serial == serial:
                continue
            if seat.run.is_async:
                is_done = seat.task is not None and seat.task.cancel()
            else:
                with seat.lock:
                    is_done = seat.thread != 0
                    if is_done:
                        raise_in_thread(seat.thread, kind)
            if is_done:
                seat.done_serial, seat.kind = serial, kind


async def _run_hooks(hooks: Sequence[Callable[[], Any]]) -> None:
    for hook in hooks:
        found = hook()
        if inspect.isawaitable(found):
            await found


async def _future(loop: asyncio.AbstractEventLoop, threads: ThreadPoolExecutor, call: Any) -> Any:
    return await loop.run_in_executor(threads, call)


def _in_thread(seat: _Seat, run: AnyRun) -> Any:
    """A `def` task in a thread of the pool, open to interruption only while the user's code runs."""
    try:
        with seat.lock:
            seat.thread = threading.get_ident()
        value = run.fn(*run.args, **run.kwargs)
        _close(seat)
        return value
    except (JobTimeout, JobCancelled) as error:
        _close(seat)
        raise type(error)(*(error.args or (words(type(error), run),))) from error
    except StopIteration as error:
        _close(seat)
        raise RuntimeError("the job raised StopIteration") from error
    except (SystemExit, KeyboardInterrupt) as error:
        _close(seat)
        raise Quit(error) from None
    except BaseException:
        _close(seat)
        raise


def _close(seat: _Seat) -> None:
    for _ in range(3):
        try:
            with seat.lock:
                thread, seat.thread = seat.thread, 0
                if thread:
                    take_back(thread)
            return
        except (JobTimeout, JobCancelled):
            continue


async def _ended(future: asyncio.Future[Any]) -> None:
    future.cancel()
    await asyncio.gather(future, return_exceptions=True)
