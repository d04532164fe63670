"""The board: shared memory where children tell what they run, and the supervisor tells them what to do.

One anonymous memory file, made by the supervisor and inherited by the spawner and every child, so that it is still
readable when a child is dead. Every number is a native 8-byte integer with one writer at a time, set by one store.
Nothing here is locked: who reads two numbers reads them again before acting on both (see `SlotRow`).
"""

from __future__ import annotations

import mmap
import os
import sys
import tempfile
from collections.abc import Sequence
from enum import IntEnum

CHILD_CELLS = 16
SLOT_CELLS = 32
BATCH_BYTES = 1 << 18
"""Room for 1,000 jobs with the longest names; memory that is not written to costs nothing."""
_CELL_BYTES = 8


class Exit(IntEnum):
    """Why a child ended, as it says itself."""

    NONE = 0
    DRAINED = 1
    RECYCLE = 2
    STOPPED = 3
    START_FAILED = 4
    LEASE_LOST = 5


class Interrupt(IntEnum):
    """Why a running job is interrupted."""

    NONE = 0
    TIMEOUT = 1
    CANCEL = 2


class Cell:
    """One number of a row, as an attribute. Hot loops may use `row.cells[row.at + NUMBER]` instead."""

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        self.number = number

    def __get__(self, row: Row, owner: type[Row] | None = None) -> int:
        return row.cells[row.at + self.number]

    def __set__(self, row: Row, value: int) -> None:
        row.cells[row.at + self.number] = value


class Row:
    """A row of numbers in the board, `at` cells from its start."""

    __slots__ = ("at", "cells")

    def __init__(self, cells: memoryview[int], at: int) -> None:
        self.cells = cells
        self.at = at


class ChildRow(Row):
    """One child. `stopping`, `quiet` and `recycle` are written by the supervisor, the rest by the child."""

    __slots__ = ()

    pid = Cell(0)
    ready = Cell(1)
    stopping = Cell(2)
    """1: finish the running job, give back the rest, exit. SIGTERM says the same."""
    quiet = Cell(3)
    """1: claim nothing."""
    exit_reason = Cell(4)
    solo = Cell(5)
    """1: the child holds a suspect, alone."""
    spawn_id = Cell(6)
    claims = Cell(7)
    jobs_done = Cell(8)
    SUCCEEDED, FAILED, RETRIED, CANCELLED, RUN_US = range(9, 14)
    succeeded = Cell(SUCCEEDED)
    """Runs by what came of them, as the child counts them every few seconds."""
    failed = Cell(FAILED)
    retried = Cell(RETRIED)
    cancelled = Cell(CANCELLED)
    run_us = Cell(RUN_US)
    """The time of all these runs together."""

    def reset(self, spawn_id: int) -> None:
        """Make the row ready for a new child. Only while there is none."""
        for cell in range(CHILD_CELLS):
            self.cells[self.at + cell] = 0
        self.spawn_id = spawn_id


class SlotRow(Row):
    """One consumer: its session and what it runs.

    The child starts a job by writing timeout_ms, serial, started_ns, in this order, and reads `is_revoked` after that.
    The supervisor gives a batch back by `revoke`, reads `index` after that. So
    either the child sees the flag, or the supervisor sees the job; processors may let each miss the other for
    nanoseconds, and then the give-back and the settle of that job meet in the script, where the claim decides.
    """

    __slots__ = ("_text",)

    EPOCH, FIRST_SERIAL, COUNT, STARTED_NS, TIMEOUT_MS, BATCH_STARTED_NS = range(6)
    REVOKED, INTERRUPT, INTERRUPT_REASON, SERIAL, BATCH_SERIAL, BATCH_LENGTH, TOGETHER = range(6, 13)
    SERVER_ERRORS = 13

    epoch = Cell(EPOCH)
    """0: no session is open."""
    first_serial = Cell(FIRST_SERIAL)
    """The serial of the batch's first job."""
    count = Cell(COUNT)
    started_ns = Cell(STARTED_NS)
    """Of the job that runs; 0: none does."""
    timeout_ms = Cell(TIMEOUT_MS)
    """0: none."""
    batch_started_ns = Cell(BATCH_STARTED_NS)
    revoked = Cell(REVOKED)
    """The `batch_serial` of the batch whose unstarted jobs the supervisor gives back; see `is_revoked`."""
    interrupt = Cell(INTERRUPT)
    """The serial of the job to interrupt; 0: none."""
    interrupt_reason = Cell(INTERRUPT_REASON)
    serial = Cell(SERIAL)
    """Of the job that runs, or ran last: grows by 1 with each job started in this slot."""
    batch_serial = Cell(BATCH_SERIAL)
    """Odd while the batch is being written."""
    batch_length = Cell(BATCH_LENGTH)
    together = Cell(TOGETHER)
    """How many jobs run together with the one of `serial`: those just before it in the batch."""
    server_errors = Cell(SERVER_ERRORS)
    """How often the server did not do what the consumer asked of it."""

    def __init__(self, cells: memoryview[int], at: int, text: memoryview) -> None:
        super().__init__(cells, at)
        self._text = text

    def reset(self) -> None:
        """Forget what an earlier child wrote."""
        for cell in range(SLOT_CELLS):
            self.cells[self.at + cell] = 0

    def set_batch(self, parts: Sequence[tuple[str, Sequence[str]]], now_ns: int) -> None:
        """Publish a new batch, none of it started: (queue, ids) after (queue, ids), in run order."""
        data = "\n".join([f"{queue}\t" + "\n".join(ids) for queue, ids in parts]).encode()
        count = sum([len(ids) for _, ids in parts])
        if len(data) > BATCH_BYTES:
            raise ValueError(f"a batch of {count} jobs with names of {len(data)} bytes is over {BATCH_BYTES}")
        self.batch_serial += 1
        self.started_ns = 0
        self.count = 0
        self.first_serial = self.serial + 1
        self.revoked = 0
        self.together = 0
        self._text[: len(data)] = data
        self.batch_length = len(data)
        self.batch_started_ns = now_ns
        self.count = count
        self.batch_serial += 1

    @property
    def index(self) -> int:
        """Of the batch's jobs, the one that runs, or ran last; -1 before the first."""
        return self.serial - self.first_serial

    @property
    def is_running(self) -> bool:
        return self.started_ns != 0

    def start(self, timeout_ms: int, now_ns: int) -> None:
        """The next job of the batch begins."""
        self.timeout_ms = timeout_ms
        self.serial += 1
        self.started_ns = now_ns

    def start_together(self, count: int, last: int, timeout_ms: int, now_ns: int) -> None:
        """The next `count` jobs of the batch begin, as one; the last of them is at index `last`."""
        self.timeout_ms = timeout_ms
        self.together = count - 1
        self.serial = self.first_serial + last
        self.started_ns = now_ns

    def end_together(self) -> None:
        self.started_ns = 0
        self.together = 0

    def revoke(self, batch_serial: int) -> None:
        """Forbid the child to start more of this batch; says nothing of a later batch."""
        self.revoked = batch_serial

    @property
    def is_revoked(self) -> bool:
        """The jobs of this batch after the one at `index` are no longer the child's."""
        return self.revoked == self.batch_serial

    def clear_batch(self) -> None:
        """The batch is settled and given back: nothing is held."""
        self.batch_serial += 1
        self.started_ns = 0
        self.count = 0
        self.first_serial = self.serial + 1
        self.batch_length = 0
        self.batch_serial += 1

    def batch(self) -> list[tuple[str, str]]:
        """The batch's (queue, id) in run order; [] while it is being written."""
        serial = self.batch_serial
        if serial & 1 or not self.count:
            return []
        text = bytes(self._text[: self.batch_length])
        if self.batch_serial != serial:
            return []
        jobs: list[tuple[str, str]] = []
        queue = ""
        for line in text.decode().split("\n"):
            changed, tab, rest = line.partition("\t")
            if tab:
                queue, line = changed, rest
            jobs.append((queue, line))
        return jobs

    def batch_ids(self) -> list[str]:
        return [job_id for _, job_id in self.batch()]

    def running_jobs(self) -> list[tuple[str, str]]:
        """(queue, id) of the job that runs now, or of those that run together."""
        if not self.is_running:
            return []
        jobs, index, together = self.batch(), self.index, self.together
        return jobs[max(0, index - together) : index + 1] if 0 <= index < len(jobs) and self.is_running else []

    def running(self) -> tuple[str, str] | None:
        """(queue, id) of the job that runs now, by itself."""
        jobs = self.running_jobs()
        return jobs[0] if len(jobs) == 1 else None

    def running_id(self) -> str | None:
        found = self.running()
        return found[1] if found else None


class Board:
    """Rows for `children` children of `slots` slots each."""

    def __init__(self, fd: int, children: int, slots: int) -> None:
        self.fd = fd
        self.children = children
        self.slots = slots
        cells = children * (CHILD_CELLS + slots * SLOT_CELLS)
        self._memory = mmap.mmap(fd, cells * _CELL_BYTES + children * slots * BATCH_BYTES)
        whole = memoryview(self._memory)
        numbers = whole[: cells * _CELL_BYTES].cast("q")
        texts = whole[cells * _CELL_BYTES :]
        self._children = [ChildRow(numbers, child * CHILD_CELLS) for child in range(children)]
        self._slots = [
            SlotRow(numbers, children * CHILD_CELLS + n * SLOT_CELLS, texts[n * BATCH_BYTES : (n + 1) * BATCH_BYTES])
            for n in range(children * slots)
        ]

    @classmethod
    def create(cls, children: int, slots: int) -> Board:
        """Make a new board, all zero."""
        size = children * (CHILD_CELLS + slots * SLOT_CELLS) * _CELL_BYTES + children * slots * BATCH_BYTES
        fd = _memory_fd()
        os.ftruncate(fd, size)
        return cls(fd, children, slots)

    @classmethod
    def attach(cls, fd: int, children: int, slots: int) -> Board:
        """Map a board that was inherited as `fd`."""
        return cls(fd, children, slots)

    def child(self, child: int) -> ChildRow:
        return self._children[child]

    def slot(self, child: int, slot: int) -> SlotRow:
        return self._slots[child * self.slots + slot]

    def slots_of(self, child: int) -> list[SlotRow]:
        return self._slots[child * self.slots : (child + 1) * self.slots]


def _memory_fd() -> int:
    if sys.platform == "linux":
        return os.memfd_create("headrace-board", os.MFD_CLOEXEC)
    fd, path = tempfile.mkstemp(prefix="headrace-board-")
    os.unlink(path)
    return fd


def session_id(worker_id: str, child: int, slot: int, spawn_id: int, epoch: int) -> str:
    """The name of a consumer's session: never the same twice, since the worker's id is its host, pid and start."""
    return f"{worker_id}.{child}.{slot}.{spawn_id}.{epoch}"
