"""How a running job is interrupted: the supervisor writes its serial on the board and sends SIGUSR2.

Only user code is interrupted, only the job that still runs, and each job once. The exception is caught one frame
outside of the user's call, since a signal may arrive just when that call returns.
"""

from __future__ import annotations

import asyncio
import ctypes
import threading
from contextvars import copy_context
from typing import Any

from headrace.errors import JobCancelled, JobTimeout
from headrace.worker.board import Interrupt, SlotRow
from headrace.worker.runs import AnyRun

_set_async_exc = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p)(
    ("PyThreadState_SetAsyncExc", ctypes.pythonapi)
)


def raise_in_thread(thread: int, kind: type[BaseException]) -> None:
    """Raise `kind` in a thread at its next bytecode. C code that runs there is not stopped."""
    _set_async_exc(thread, id(kind))


def take_back(thread: int) -> None:
    """Forget an exception that was set and has not been raised yet."""
    _set_async_exc(thread, None)


def asked(slot: SlotRow) -> type[BaseException] | None:
    """The exception that the job now running in this slot should get."""
    serial = slot.interrupt
    if not serial or serial != slot.serial or not slot.is_running:
        return None
    return JobCancelled if slot.interrupt_reason == Interrupt.CANCEL else JobTimeout


def words(kind: type[BaseException], run: AnyRun) -> str:
    if kind is JobCancelled:
        return "the job was cancelled while it ran"
    return f"over its timeout of {run.timeout_ms / 1000:g} s"


class Quit(Exception):
    """Carries a SystemExit or KeyboardInterrupt of a job through an event loop, which would stop at it."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error


async def guarded(run: AnyRun) -> Any:
    """An `async def` task's own coroutine; it is made here, so that none is left unused when this never begins."""
    try:
        return await run.fn(*run.args, **run.kwargs)
    except (SystemExit, KeyboardInterrupt) as error:
        raise Quit(error) from None


class MainThreadWindow:
    """For jobs of the main thread: the signal handler raises in them."""

    def __init__(self, slot: SlotRow) -> None:
        self._slot = slot
        self._run: AnyRun | None = None
        self._done_serial = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[Any] | None = None
        self._kind: type[BaseException] | None = None

    def on_signal(self) -> None:
        """Called by the handler of SIGUSR2, in the main thread."""
        run, serial = self._run, self._slot.serial
        if run is None or serial == self._done_serial:
            return
        kind = asked(self._slot)
        if kind is None:
            return
        self._done_serial = serial
        if self._task is not None and self._loop is not None:
            self._kind = kind
            self._loop.call_soon_threadsafe(self._task.cancel)
            return
        raise kind(words(kind, run))

    def call(self, run: AnyRun) -> Any:
        """Call a `def` task; JobTimeout or JobCancelled may come out of it."""
        self._run = run
        try:
            return run.fn(*run.args, **run.kwargs)
        finally:
            self._run = None

    def call_async(self, run: AnyRun, runner: asyncio.Runner) -> Any:
        """Run an `async def` task to its end on the child's own loop."""
        try:
            return runner.run(self._main(run), context=copy_context())  # the runner keeps that of its first job
        except Quit as quit_:
            raise quit_.error from None
        finally:
            self._run = self._task = None

    async def _main(self, run: AnyRun) -> Any:
        self._loop, self._kind = asyncio.get_running_loop(), None
        self._task = self._loop.create_task(guarded(run))
        self._run = run
        try:
            return await self._task
        except asyncio.CancelledError:
            if self._kind is not None:
                raise self._kind(words(self._kind, run)) from None
            raise RuntimeError("the job cancelled itself") from None


class ThreadWindow:
    """For jobs of other threads: an exception is set in the thread, and taken back if the job has just returned."""

    def __init__(self, slot: SlotRow) -> None:
        self._slot = slot
        self._lock = threading.Lock()
        self._thread = 0
        self._done_serial = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[Any] | None = None
        self._kind: type[BaseException] | None = None

    def on_signal(self) -> None:
        """Called by the main thread after SIGUSR2."""
        with self._lock:
            serial = self._slot.serial
            kind = asked(self._slot)
            if kind is None or serial == self._done_serial or not (self._thread or self._task):
                return
            self._done_serial = serial
            if self._task is not None and self._loop is not None:
                self._kind = kind
                self._loop.call_soon_threadsafe(self._task.cancel)
                return
            raise_in_thread(self._thread, kind)

    def call(self, run: AnyRun) -> Any:
        try:
            value = self._call(run)
        except (JobTimeout, JobCancelled) as error:
            self._close_surely()
            if error.args:
                raise
            raise type(error)(words(type(error), run)) from error
        except BaseException:
            self._close_surely()
            raise
        return value

    def _call(self, run: AnyRun) -> Any:
        with self._lock:
            self._thread = threading.get_ident()
        value = run.fn(*run.args, **run.kwargs)
        self._close()
        return value

    def _close(self) -> None:
        with self._lock:
            thread, self._thread = self._thread, 0
            if thread:
                take_back(thread)

    def _close_surely(self) -> None:
        """An exception that was set may still come while the window closes: it has nothing left to stop."""
        for _ in range(3):
            try:
                self._close()
                return
            except (JobTimeout, JobCancelled):
                continue

    def call_async(self, run: AnyRun, runner: asyncio.Runner) -> Any:
        """Run an `async def` task on this thread's own loop."""
        try:
            return runner.run(self._main(run), context=copy_context())  # the runner keeps that of its first job
        except Quit as quit_:
            raise quit_.error from None

    async def _main(self, run: AnyRun) -> Any:
        loop = asyncio.get_running_loop()
        task: asyncio.Task[Any] = loop.create_task(guarded(run))
        with self._lock:
            self._loop, self._task, self._kind = loop, task, None
        try:
            return await task
        except asyncio.CancelledError:
            if self._kind is not None:
                raise self._kind(words(self._kind, run)) from None
            raise RuntimeError("the job cancelled itself") from None
        finally:
            with self._lock:
                self._task = None


Window = MainThreadWindow | ThreadWindow
