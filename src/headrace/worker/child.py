"""A child: the process that runs jobs. `main` is called in it by the spawner, bound to the supervisor's life already.

In start-up order: 1. logging and signals; 2. the app's start hooks; 3. the pool's consumers, with their sessions;
4. `ready` on the board; 5. work, until told to stop; 6. what is owed is settled, sessions end; 7. stop hooks; 8. the reason on the board.
"""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import inspect
import logging
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any, NoReturn

from headrace import crash, telemetry
from headrace.app import Headrace
from headrace.engine.call import Steps
from headrace.engine.clients import ServerConfig, SyncClient, backoff_s
from headrace.engine.keys import QueueKeys, queue_keys
from headrace.engine.ops import Settlement
from headrace.errors import ServerError
from headrace.events import Event, EventName, ProcessEnd
from headrace.worker import aio
from headrace.worker.board import Board, ChildRow, Exit, Interrupt, SlotRow, session_id
from headrace.worker.config import WorkerConfig
from headrace.worker.consumer import Calls, Consumer, strict, weighted
from headrace.worker.execute import Executor
from headrace.worker.fork import Forker, JobProcessDied
from headrace.worker.gate import Gate
from headrace.worker.interrupts import MainThreadWindow, ThreadWindow
from headrace.worker.joblog import JobLog, set_up_logging
from headrace.worker.outlets import Sender
from headrace.worker.reports import Place, Reports
from headrace.worker.runs import AnyRun, BatchRun, Run
from headrace.worker.settle import Session
from headrace.worker.tally import Tally, send

logger = logging.getLogger("headrace.worker")

HELP_EVERY_S = 0.01
CLOSE_WITHIN_S = 3.0


def main(app: Headrace, config: WorkerConfig, board: Board, child: int, spawn_id: int) -> NoReturn:
    """Run jobs until told to stop, then exit; never returns."""
    set_up_logging(config.log_level, config.log_format)
    telemetry.worker_id = config.worker_id
    found = Child(app, config, board, child, spawn_id)
    code = found.live()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            continue  # nobody reads it any more
    os._exit(code)


class Child:
    """The life of one child; what its consumers share."""

    def __init__(self, app: Headrace, config: WorkerConfig, board: Board, child: int, spawn_id: int) -> None:
        self.app = app
        self.config = config
        self.board = board
        self.number = child
        self.spawn_id = spawn_id
        self.row: ChildRow = board.child(child)
        self.is_stopping = False
        self.is_burst = config.burst
        self.reason = Exit.STOPPED
        self.server = ServerConfig(
            config.url or app.server_config.url,
            prefix=config.prefix or app.prefix,
            max_payload_bytes=app.server_config.max_payload_bytes,
        )
        self.client = SyncClient(self.server, retry=False)
        self.sender = Sender(self.server)
        self.queues: list[QueueKeys] = [queue_keys(name, self.server.prefix) for name in config.queues]
        self.on_wake: list[Callable[[], None]] = []
        self.on_interrupt: list[Callable[[], None]] = []
        self.tally = Tally(self.row)
        self._jobs = 0
        self._helper = Helper(self)
        self._runner: asyncio.Runner | None = None
        self._threads = threading.local()

    # Life

    def live(self) -> int:
        """Returns the exit code."""
        self._install_signals()
        try:
            self._run_hooks(self.app.start_hooks)
        except BaseException:
            logger.exception("a start hook raised: this child ends")
            self.row.exit_reason = Exit.START_FAILED
            return 70
        self._tell(EventName.CHILD_STARTED)
        gc.freeze()  # what the app has built stays: collections need not look at it, and memory stays shared
        if self.config.pool == "asyncio":
            aio.work(self)
        else:
            self._work()
        self.sender.close()
        send(self.client.run, self.tally.take(self.queues))
        code = 0
        try:
            self._run_hooks(self.app.stop_hooks)
        except BaseException:
            logger.exception("a stop hook raised")
            code = 70
        self._tell(EventName.CHILD_STOPPED)
        if telemetry.outlet is not None:
            telemetry.outlet.flush()
        if self._runner is not None:
            self._runner.close()
        self.row.exit_reason = self.reason
        return code

    def _work(self) -> None:
        consumers, sessions, body = self._consumers()
        if not self.send_until_stopped([session.open for session in sessions]):
            return
        self.row.ready = 1
        body()
        self.end_sessions([session.close for session in sessions])
        for consumer in consumers:
            consumer.close()

    def _consumers(self) -> tuple[list[Consumer], list[Session], Callable[[], None]]:
        """The pool's consumers, their sessions, and what runs them to their end."""
        config = self.config
        gate = Gate(config.slots if config.pool == "threads" else 1)
        consumers: list[Consumer] = []
        sessions: list[Session] = []
        for number in range(config.slots if config.pool == "threads" else 1):
            slot = self.board.slot(self.number, number)
            session = self.session(number, slot)
            executor, calls, most = self._caller(slot, session)
            sessions.append(session)
            consumers.append(
                Consumer(
                    self, slot, session, self.client, executor, calls, gate, number,
                    batch_ms=config.batch_ms, most=self._most(most),
                )
            )  # fmt: skip
            self.on_wake.append(consumers[-1].wake)
        if config.pool == "threads":
            return consumers, sessions, lambda: self._run_threads(consumers)
        return consumers, sessions, lambda: self._run_one(consumers[0])

    def _most(self, most: int) -> int:
        return min(most, self.config.max_jobs) if self.config.max_jobs else most

    def _caller(self, slot: SlotRow, session: Session) -> tuple[Executor, Calls, int]:
        """How this pool calls jobs, and how many of them it may claim at once."""
        pool = self.config.pool
        if pool == "threads":
            window = ThreadWindow(slot)
            self.on_interrupt.append(window.on_signal)
            executor = self.executor(window.call, lambda run: window.call_async(run, self._runner_of_thread()))
            return executor, Calls(executor.call, executor.call_batch), 256
        main_window = MainThreadWindow(slot)
        executor = self.executor(main_window.call, lambda run: main_window.call_async(run, self._own_runner()))
        self.on_interrupt.append(main_window.on_signal)
        if pool == "prefork":
            return executor, Calls(executor.call, executor.call_batch), 256
        return executor, self._forked_calls(executor, session), 1

    def _forked_calls(self, executor: Executor, session: Session) -> Calls:
        forker = Forker(lambda run: executor.call_batch(run) if isinstance(run, BatchRun) else [executor.call(run)])
        # In the job's process the window answers; in the consumer's, the signal is passed on.
        self.on_interrupt.append(forker.on_signal)

        def call(run: AnyRun) -> list[Settlement]:
            try:
                return forker.call(run)
            except JobProcessDied as died:
                members = run.members if isinstance(run, BatchRun) else [run]
                ids = [member.id for member in members]
                reason = f"worker lost: its process ended ({died})"
                logger.warning("job %s: its process ended (%s)", ", ".join(ids[:5]), died)
                self.row.failed += len(ids)
                self._tell_lost(members, died.end)
                self.send_until_stopped([lambda: session.blame(ids, reason)])
                return []

        return Calls(lambda run: next(iter(call(run)), None), call)

    def _tell_lost(self, runs: Sequence[Run], end: ProcessEnd) -> None:
        if self.app.events.has(EventName.JOB_LOST):
            now_ms = int(time.time() * 1000)
            for run in runs:
                lost = Event(EventName.JOB_LOST, now_ms, run.id, run.queue, run.task, run.attempt, process=end)
                self.app.events.emit(lost)

    def _own_runner(self) -> asyncio.Runner:
        """The loop of the main thread's async tasks and hooks."""
        if self._runner is None:
            self._runner = asyncio.Runner()
        return self._runner

    def _runner_of_thread(self) -> asyncio.Runner:
        """The loop of this thread's async tasks."""
        runner: asyncio.Runner | None = getattr(self._threads, "runner", None)
        if runner is None:
            runner = self._threads.runner = asyncio.Runner()
        return runner

    def _run_one(self, consumer: Consumer) -> None:
        if self.config.pool == "prefork":
            self._helper.start([consumer])
        consumer.run()
        self._helper.stop()

    def _run_threads(self, consumers: Sequence[Consumer]) -> None:
        """Consumers in threads; the main thread waits for signals, since Python hears them there only.

        What a signal asks for is done here and not in its handler, which the next signal may interrupt: halfway, with
        a lock held that the second run of the handler would wait for.
        """
        reading, writing = os.pipe()
        heard = Bell()
        acts, self.on_interrupt = self.on_interrupt, [heard.ring]
        self._helper.start(consumers)
        threads = [
            threading.Thread(target=self._run_and_tell, args=(consumer, writing), name=f"headrace-{n}", daemon=True)
            for n, consumer in enumerate(consumers)
        ]
        for thread in threads:
            thread.start()
        ended = 0
        while ended < len(threads):
            ready, _, _ = select.select([reading, heard.fd], [], [])
            if heard.fd in ready:
                heard.empty()
                for act in acts:
                    act()
            if reading in ready:
                ended += len(os.read(reading, len(threads)))
        self._helper.stop()

    def _run_and_tell(self, consumer: Consumer, writing: int) -> None:
        try:
            consumer.run()
            if hasattr(self._threads, "runner"):
                self._threads.runner.close()
        except BaseException:
            logger.exception("a consumer ended by a bug of ours; this child ends")
            self.stop()
        finally:
            os.write(writing, b".")

    # What consumers share

    @property
    def is_quiet(self) -> bool:
        return bool(self.row.quiet)

    def session(self, number: int, slot: SlotRow, running: Callable[[], set[str]] = set) -> Session:
        weights = self.config.weights
        return Session(
            self.queues,
            partial(self._session_name, number),
            slot,
            self.config.lease_ms,
            split=self.client.is_cluster,
            side_by_side=self.config.pool == "asyncio",
            order=weighted(self.queues, weights) if weights else strict(self.queues),
            running=running,
        )

    def executor(
        self,
        call_plain: Callable[[AnyRun], Any],
        call_async: Callable[[AnyRun], Any],
        send: Callable[[Callable[[], Any]], Future[Any]] | None = None,
    ) -> Executor:
        if crash.IS_ON:
            call_plain, call_async = _crashing(call_plain), _crashing(call_async)
        reports = Reports(self.client, self.sender, self.find_running, send)
        return Executor(self.app, reports, JobLog(), call_plain, call_async, self.config.worker_id)

    def find_running(self, job_id: str) -> Place | None:
        """Where a job is that runs here."""
        slots = self.board.slots_of(self.number)
        for number, slot in enumerate(slots):
            for queue, running_id in slot.running_jobs():
                if running_id == job_id:
                    is_asked = slot.interrupt == slot.serial and slot.interrupt_reason == Interrupt.CANCEL
                    consumer = 0 if self.config.pool == "asyncio" else number  # there one session is for all seats
                    epoch = slots[consumer].epoch
                    names = self._session_name(consumer, epoch), self._session_name(consumer, epoch + 1)
                    return Place(queue_keys(queue, self.server.prefix), names[0], is_asked, names[1])
        return None

    def _session_name(self, consumer: int, epoch: int) -> str:
        return session_id(self.config.worker_id, self.number, consumer, self.spawn_id, epoch)

    def jobs_done(self, count: int) -> None:
        self._jobs += count
        self.row.jobs_done = self._jobs
        if self.row.stopping:
            self.stop()  # also when user code has taken our signal handlers away
        elif self.config.max_jobs and self._jobs >= self.config.max_jobs and not self.is_stopping:
            self.reason = Exit.RECYCLE
            self.stop()

    def drained(self) -> None:
        if not self.is_stopping:
            self.reason = Exit.DRAINED

    def wake_helper(self) -> None:
        self._helper.wake()

    def stop(self) -> None:
        """Claim no more; finish what runs."""
        self.is_stopping = True
        for wake in self.on_wake:
            wake()

    def send_until_stopped(self, makes: Sequence[Callable[[], Steps[Any]]]) -> bool:
        """Send each until it works; False when the child was told to stop before."""
        for make in makes:
            attempt = 0
            while True:
                try:
                    self.client.run(make())
                    break
                except ServerError as error:
                    attempt += 1
                    if attempt == 1:
                        logger.warning("%s; trying again", error)
                if self.is_stopping:
                    return False
                select.select([], [], [], backoff_s(attempt, 2.0))
        return True

    def end_sessions(self, closes: Sequence[Callable[[], Steps[Any]]]) -> None:
        """Best effort, within 3 s: what is not ended here, the supervisor ends."""
        ends = time.monotonic() + CLOSE_WITHIN_S
        for close in closes:
            while True:
                try:
                    self.client.run(close())
                    break
                except ServerError as error:
                    if time.monotonic() > ends:
                        logger.warning("a session could not be ended: %s", error)
                        return
                select.select([], [], [], 0.1)

    # Signals and hooks

    def _install_signals(self) -> None:
        signal.signal(signal.SIGTERM, lambda *_: self.stop())
        signal.signal(signal.SIGUSR2, lambda *_: self._on_interrupt())
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            faulthandler.register(signal.SIGUSR1, all_threads=True)
        except (ValueError, OSError, AttributeError):
            logger.debug("stderr is no file: no stack dumps")

    def _on_interrupt(self) -> None:
        for wake in self.on_wake:
            wake()
        for act in self.on_interrupt:
            act()

    def _run_hooks(self, hooks: Sequence[Callable[[], Any]]) -> None:
        if self.config.pool == "asyncio":
            return  # they run on the pool's own loop
        for hook in hooks:
            found = hook()
            if inspect.isawaitable(found):
                self._own_runner().run(_awaited(found))

    def _tell(self, name: EventName) -> None:
        if self.app.events.has(name):
            self.app.events.emit(Event(name, int(time.time() * 1000)))


def _crashing(call: Callable[[AnyRun], Any]) -> Callable[[AnyRun], Any]:
    """A job's call between two crash points."""

    def run(run: AnyRun) -> Any:
        crash.at("run.before")
        found = call(run)
        if inspect.isawaitable(found):
            return _awaited_crashing(found)
        crash.at("run.after")
        return found

    return run


async def _awaited_crashing(found: Any) -> Any:
    value = await found
    crash.at("run.after")
    return value


async def _awaited(found: Any) -> Any:
    return await found


class Bell:
    """A pipe that a signal handler may write to: `fd` is readable when it was rung."""

    def __init__(self) -> None:
        self.fd, self._writing = os.pipe()
        os.set_blocking(self.fd, False)
        os.set_blocking(self._writing, False)

    def ring(self) -> None:
        try:
            os.write(self._writing, b"!")
        except BlockingIOError:
            return  # it is full: a ring is under way

    def empty(self) -> None:
        os.read(self.fd, 4096)


class Helper:
    """A thread that relieves consumers of batches that have grown old. Sleeps while no batch of two or more runs."""

    def __init__(self, child: Child) -> None:
        self._child = child
        self._consumers: Sequence[Consumer] = ()
        self._is_deep = False
        self._is_stopped = False
        self._thread: threading.Thread | None = None
        self._reading, self._writing = -1, -1

    def start(self, consumers: Sequence[Consumer]) -> None:
        self._consumers = consumers
        self._reading, self._writing = os.pipe()
        self._is_deep = True
        self._thread = threading.Thread(target=self._run, name="headrace-helper", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """A batch begins: watch it."""
        if self._is_deep:
            self._is_deep = False
            os.write(self._writing, b"!")

    def stop(self) -> None:
        if self._thread is not None:
            self._is_stopped = True
            os.write(self._writing, b"!")
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        client = SyncClient(self._child.server, retry=False)
        while not self._is_stopped:
            self._is_deep = True
            if self._look(client):
                self._is_deep = False
            else:
                self._wait(None)
            self._wait(HELP_EVERY_S)  # no batch is old before; and each look takes the GIL from the job that runs
        client.close()

    def _wait(self, timeout_s: float | None) -> None:
        if not self._is_stopped and select.select([self._reading], [], [], timeout_s)[0]:
            os.read(self._reading, 64)

    def _look(self, client: SyncClient) -> bool:
        now_ns = time.monotonic_ns()
        return any([consumer.relieve(client, now_ns) for consumer in self._consumers])
