"""The log of a process: takes events without waiting, keeps them in a spool, and sends them on, in order, when it can.

`emit` puts an event into a bounded queue in memory: that is all that a request pays. The *writer* thread appends what is
there to the spool, 100 times a second at most. The *sender* thread takes up to 1,000 records out of the spool and sends
them; while that fails they stay there. It also empties the spools of processes that have died. Nothing here raises into
the application: what there is no room for is counted, and an event of the kind `lost` tells the number where it was.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from systems.activity.events import LOST, Entry, Event, make_event
from systems.activity.spool import Reader, Spool, adopt

LIMIT_BYTES = 64 << 20
IN_MEMORY_MAX = 10_000
GATHER_S = 0.01
SYNC_EVERY_S = 1.0
LOOK_EVERY_S = 1.0
SENT_AT_ONCE = 1_000
SEND_EVERY_S = 0.05
PAUSE_MAX_S = 1.0
CLOSES_WITHIN_S = 5.0
FULL_MEMORY, FULL_SPOOL, NO_DISK, REFUSED = "memory is full", "the spool is full", "the disk refuses", "refused"

logger = logging.getLogger("systems.activity.log")
"""Not heard by the application's own handler (`capture`): what the log says of itself goes to stderr."""


class Figures(msgspec.Struct, frozen=True):
    """`lost`: why, and how many, since the start of this process."""

    source: str
    in_memory: int
    spooled: int
    spool_bytes: int
    is_sending: bool
    lost: dict[str, int]


class EventLog:
    """The log of this process.

    Args:
        root: the folder of the spools, on a local disk; processes of one application share it.
        send: stores these entries, or raises `OSError` when that may work later; what it returns could not be stored, and
            never can.
        limit_bytes: of the spools; what is newer than them is lost when they are full.
        in_memory_max: events that the writer has not got to.
    """

    def __init__(
        self,
        root: Path,
        send: Callable[[Sequence[Entry]], Sequence[Entry]],
        *,
        limit_bytes: int = LIMIT_BYTES,
        in_memory_max: int = IN_MEMORY_MAX,
    ) -> None:
        self.spool = Spool(root, limit_bytes=limit_bytes)
        self._send = send
        self._in_memory_max = in_memory_max
        self._memory: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._decoder = msgspec.msgpack.Decoder(Event)
        self._encoder = msgspec.msgpack.Encoder()
        self._lost: Counter[str] = Counter()
        self._told: Counter[str] = Counter()
        self._counting = threading.Lock()
        self._own = self.spool.reader()
        self._is_sending = True
        self._in_hand = 0
        self._is_waking = threading.Event()
        self._is_stopping = threading.Event()
        self._writer = threading.Thread(target=self._write_on, name="log-writer", daemon=True)
        self._sender = threading.Thread(target=self._send_on, name="log-sender", daemon=True)

    def start(self) -> None:
        self._writer.start()
        self._sender.start()

    def emit(self, event: Event) -> None:
        """Take it; at once, from any thread."""
        if self._memory.qsize() >= self._in_memory_max or self._is_stopping.is_set():
            self._lose(FULL_MEMORY, 1)
        else:
            self._memory.put(event)
            if not self._is_waking.is_set():
                self._is_waking.set()

    def _lose(self, why: str, number: int) -> None:
        with self._counting:
            self._lost[why] += number

    def _untold(self) -> Counter[str]:
        with self._counting:
            return self._lost - self._told

    def figures(self) -> Figures:
        return Figures(
            source=self.spool.name,
            in_memory=self._memory.qsize() + self._in_hand,
            spooled=self.spool.end.seq - self._own.seq,
            spool_bytes=self.spool.held_bytes,
            is_sending=self._is_sending,
            lost={why: number for why, number in self._lost.items() if number},
        )

    def close(self) -> None:
        """Bring what is in memory into the spool, and send for a few seconds; the rest stays for the next process."""
        self._is_stopping.set()
        self._is_waking.set()
        self._writer.join()
        self._sender.join(CLOSES_WITHIN_S)
        self._tell()
        left = self.spool.end.seq - self._own.seq
        if left:
            logger.warning("%d events stay in %s, for the next process", left, self.spool.folder)
        if not self._sender.is_alive():  # else it ends with the process, and the kernel gives the lock back
            self.spool.close(is_empty=not left)

    # The writer

    def _write_on(self) -> None:
        turn_s = time.monotonic()
        is_synced, is_last = True, False
        while not is_last:
            if self._is_waking.wait(SYNC_EVERY_S):
                self._is_stopping.wait(GATHER_S)
            self._is_waking.clear()
            is_last = self._is_stopping.is_set()
            self._in_hand = self._memory.qsize()  # before they leave the queue: `figures` never tells too few
            events = [self._memory.get_nowait() for _ in range(self._in_hand)]
            try:
                is_synced = not self._write(events) and is_synced
                if is_last or time.monotonic() - turn_s >= SYNC_EVERY_S:
                    is_synced, turn_s = is_synced or self._synced(), time.monotonic()
                    self.spool.look_around()
                    self._tell()
            except Exception:
                logger.exception("the log's writer goes on")
            self._in_hand = 0

    def _write(self, events: list[Event]) -> bool:
        """First what was lost, since it was before them. Whether anything was written."""
        noted = self._untold()
        if not events and not noted:
            return False
        told = [make_event(LOST, level="error", text=_words(noted), data=noted)] if noted else []
        records = [self._encoder.encode(event) for event in (*told, *events)]
        fitting, why = 0, FULL_SPOOL
        try:
            fitting = self.spool.append(records)
        except OSError as error:
            logger.error("the spool cannot be written: %s", error)
            why = NO_DISK
        if fitting and noted:
            self._told += noted
        self._lose(why, len(events) - max(0, fitting - len(told)))
        return fitting > 0

    def _synced(self) -> bool:
        try:
            self.spool.sync()
        except OSError as error:
            logger.error("the spool is not on the disk: %s", error)
            return False
        return True

    def _tell(self) -> None:
        """For who reads stderr, once a second, also while no event of it can be stored."""
        noted = self._untold()
        if noted:
            logger.error("events were lost: %s", _words(noted))

    # The sender

    def _send_on(self) -> None:
        looked_s, pause_s = float("-inf"), SEND_EVERY_S
        while True:
            is_last, more = not self._writer.is_alive(), False
            try:
                more = self._send_some(self._own)
                self._is_sending, pause_s = True, SEND_EVERY_S
                if time.monotonic() - looked_s >= LOOK_EVERY_S:
                    looked_s = time.monotonic()
                    self._empty_others()
            except OSError as error:
                if self._is_sending:
                    logger.warning("events stay in the spool: %s", error)
                self._is_sending, pause_s = False, min(PAUSE_MAX_S, pause_s * 2)
            except Exception:
                logger.exception("the log's sender goes on")
                pause_s = PAUSE_MAX_S
            if is_last and not more:
                return
            if not more:
                time.sleep(pause_s)

    def _send_some(self, reader: Reader) -> bool:
        """Whether there may be more at once; raises OSError when it cannot be sent now."""
        records = reader.read(SENT_AT_ONCE)
        damaged = reader.newly_damaged()
        if damaged:
            text = f"{damaged} bytes of the spool {reader.source} cannot be read; they are kept beside it"
            logger.error(text)
            self.emit(make_event(LOST, level="error", text=text))
        if not records and not damaged:
            return False
        entries = [entry for seq, record in records if (entry := self._entry(reader.source, seq, record))]
        for refused in self._send(entries) if entries else ():
            self._refuse(refused.id)
        reader.take()
        return len(records) == SENT_AT_ONCE

    def _entry(self, source: str, seq: int, record: bytes) -> Entry | None:
        """None: an earlier version of this program wrote it, in another form."""
        try:
            return Entry(source, seq, self._decoder.decode(record))
        except msgspec.MsgspecError:
            self._refuse(f"{source}.{seq}")
            return None

    def _refuse(self, entry: str) -> None:
        self._lose(REFUSED, 1)
        logger.error("the event %s can never be stored", entry)

    def _empty_others(self) -> None:
        """The spools of processes that have died; oldest first, each in its order."""
        for found in adopt(self.spool.root):
            is_empty = False
            try:
                while self._send_some(found.reader):
                    if self._is_stopping.is_set():
                        return
                is_empty = not found.reader.read(1)
                if is_empty:
                    logger.warning("the spool %s, of a process that has ended, was sent", found.reader.source)
            finally:
                found.close(is_empty=is_empty)


def _words(lost: Counter[str]) -> str:
    return ", ".join(f"{number} ({why})" for why, number in lost.items())
