"""The spool: a bounded queue of records on the local disk, one for each process; others take it over when that one dies.

A spool is a folder below the root: a `lock` that its process holds (flock, so the kernel gives it back however the process
ends), segments named after the first record in them, and `taken`, which says how far they were taken out. A record is its
length, its CRC-32 and its bytes. It has no threads: one thread may write while another one reads.

What survives: a record is in the kernel when `append` returns, so the end of the process does not lose it; `sync` brings it
onto the disk, so the end of the machine does not either. `taken` is not synced: after a crash records may be read again,
so who takes them must know them (by source and seq).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import struct
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

SEGMENT_BYTES = 1 << 20
READ_BYTES = 256 << 10
_HEAD = struct.Struct(">II")
_TAKEN = struct.Struct(">QQQI")
_LOCK, _TAKEN_NAME, _SUFFIX, _DAMAGED = "lock", "taken", ".log", ".damaged"


@dataclass(frozen=True, slots=True)
class Place:
    """Before the record `seq`, at `offset` of the segment that begins with record `segment`."""

    segment: int = 1
    offset: int = 0
    seq: int = 1


class Spool:
    """This process's own: appends to it.

    Args:
        root: the folder of all spools; made if need be.
        limit_bytes: of all spools in the root. Other processes' are looked at when `look_around` is called, so all
            together may be over it by what they write between two looks.
    """

    def __init__(self, root: Path, *, limit_bytes: int) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self.root = root
        self.name = f"{int(time.time()):x}-{os.getpid()}-{secrets.token_hex(3)}"
        self.folder = root / self.name
        self.end = Place()
        self._limit_bytes = limit_bytes
        self._segment_bytes = min(SEGMENT_BYTES, max(1, limit_bytes // 8))  # what was taken goes a segment at a time
        self._others_bytes = self._written_bytes = self.removed_bytes = 0
        made = root / f".{self.name}"  # unseen by others until it is locked
        made.mkdir()
        self._lock = os.open(made / _LOCK, os.O_CREAT | os.O_RDWR, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        made.rename(self.folder)
        self._file = self._open_segment()
        self.look_around()

    @property
    def held_bytes(self) -> int:
        """On the disk; what was taken out goes a segment at a time."""
        return self._written_bytes - self.removed_bytes

    def append(self, records: Sequence[bytes]) -> int:
        """Write as many of them as there is room for, in order; how many. Those are whole, the others are not there.

        Raises:
            OSError: the disk refuses the very first.
        """
        done = 0
        while done < len(records):
            try:
                if self.end.offset >= self._segment_bytes:
                    self._turn_over()
                fitting, packed = self._packed(records[done:])
                self._write(packed)
            except OSError:
                if not done:
                    raise
                break
            if not fitting:
                break
            done += fitting
            self._written_bytes += len(packed)
            self.end = replace(self.end, offset=self.end.offset + len(packed), seq=self.end.seq + fitting)
        return done

    def _packed(self, records: Sequence[bytes]) -> tuple[int, bytearray]:
        """What fits into the segment, and below the limit."""
        room = self._limit_bytes - self._others_bytes - self.held_bytes
        packed = bytearray()
        for number, record in enumerate(records):
            if len(packed) + _HEAD.size + len(record) > room or self.end.offset + len(packed) >= self._segment_bytes:
                return number, packed
            packed += _HEAD.pack(len(record), zlib.crc32(record)) + record
        return len(records), packed

    def _turn_over(self) -> None:
        """Begin a new segment: the old one can be removed when it was taken."""
        os.fsync(self._file)
        before, self.end = self.end, Place(self.end.seq, 0, self.end.seq)
        try:
            file = self._open_segment()
        except OSError:
            self.end = before
            raise
        os.close(self._file)
        self._file = file

    def _write(self, packed: bytearray) -> None:
        """All of it, or nothing that counts: a reader goes as far as `end` only, and the next write begins there."""
        left, at = memoryview(packed), self.end.offset
        try:
            while left:
                written = os.pwrite(self._file, left, at)
                left, at = left[written:], at + written
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, self.end.offset)  # or who adopts it finds a part of a record at the end
            raise

    def _open_segment(self) -> int:
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY
        return os.open(self.folder / f"{self.end.segment:020}{_SUFFIX}", flags, 0o600)

    def sync(self) -> None:
        """Bring what was appended onto the disk; blocks."""
        os.fsync(self._file)

    def look_around(self) -> None:
        """See how much the spools of other processes hold."""
        folders = [folder for folder in _folders(self.root) if folder != self.folder]
        self._others_bytes = sum(_held_bytes(folder) for folder in folders)

    def reader(self) -> Reader:
        """For what is appended here."""

        def removed(size: int) -> None:
            self.removed_bytes += size

        return Reader(self.folder, end=lambda: self.end, when_removed=removed)

    def close(self, *, is_empty: bool) -> None:
        """Give it up. `is_empty`: all was taken, so nobody need look at it."""
        if is_empty:
            shutil.rmtree(self.folder, ignore_errors=True)
        else:
            self.sync()
        os.close(self._file)
        os.close(self._lock)


class Reader:
    """Takes the records out of one spool, in order.

    Attributes:
        source: the spool's name.
    """

    def __init__(
        self, folder: Path, *, end: Callable[[], Place] | None = None, when_removed: Callable[[int], None] | None = None
    ) -> None:
        self.source = folder.name
        self.folder = folder
        self._damaged: dict[int, int] = {}
        self._told: set[int] = set()
        self._end = end
        self._when_removed = when_removed or (lambda _: None)
        self._taken = _read_taken(folder)
        self._next = self._taken

    def read(self, most: int) -> list[tuple[int, bytes]]:
        """Up to `most` records with their seq, from where `take` was called last; [] when there are none now."""
        self._next = self._taken
        found: list[tuple[int, bytes]] = []
        while len(found) < most and self._in_segment(found, most):
            pass
        return found

    def _in_segment(self, found: list[tuple[int, bytes]], most: int) -> bool:
        """Read on in the segment where we are, or go to the next one; False: there is no more now."""
        here, end = self._next, self._end() if self._end is not None else None
        if end is not None and here.seq >= end.seq:
            return False
        chunk = self._chunk(here, None if end is None or end.segment != here.segment else end.offset)
        at = 0
        for record in _records(chunk):
            found.append((self._next.seq, record))
            at += _HEAD.size + len(record)
            self._next = replace(here, offset=here.offset + at, seq=self._next.seq + 1)
            if len(found) == most:
                break
        if at:
            return True
        later = [number for number in _segments(self.folder) if number > here.segment]
        size = self._set_aside(here, end) if chunk else 0
        if not later:
            self._next = replace(here, offset=here.offset + size)
            return False
        self._next = Place(later[0], 0, later[0])
        return True

    def _chunk(self, here: Place, until: int | None) -> bytes:
        """Enough of the segment for one record at least."""
        try:
            with (self.folder / f"{here.segment:020}{_SUFFIX}").open("rb") as file:
                file.seek(here.offset)
                head = file.read(_HEAD.size)
                wanted = max(READ_BYTES, _HEAD.unpack(head)[0]) if len(head) == _HEAD.size else 0
                if until is not None:
                    wanted = min(wanted, until - here.offset - _HEAD.size)
                return head + file.read(wanted)
        except FileNotFoundError:
            return b""

    def _set_aside(self, here: Place, end: Place | None) -> int:
        """Keep a copy of a segment that cannot be read on; how many bytes are not read."""
        name = f"{here.segment:020}{_SUFFIX}"
        whole = (self.folder / name).stat().st_size
        self._damaged[here.segment] = size = (
            end.offset if end and end.segment == here.segment else whole
        ) - here.offset
        shutil.copyfile(self.folder / name, self.folder.parent / f"{self.source}-{name}{_DAMAGED}")
        return size

    def newly_damaged(self) -> int:
        """Bytes that could not be read, and were not told yet; their segments are kept beside the spool, as `NAME.damaged`."""
        found = sum(size for segment, size in self._damaged.items() if segment not in self._told)
        self._told |= set(self._damaged)
        return found

    @property
    def seq(self) -> int:
        """Of the next record to be taken."""
        return self._taken.seq

    def take(self) -> None:
        """What was read last is safe elsewhere: do not read it again, and remove the segments that are through."""
        self._taken = self._next
        packed = _TAKEN.pack(self._taken.segment, self._taken.offset, self._taken.seq, 0)
        packed = packed[:-4] + zlib.crc32(packed[:-4]).to_bytes(4, "big")
        with (self.folder / _TAKEN_NAME).open("r+b" if (self.folder / _TAKEN_NAME).exists() else "w+b") as file:
            file.write(packed)
        for number in _segments(self.folder):
            if number < self._taken.segment:
                path = self.folder / f"{number:020}{_SUFFIX}"
                size = path.stat().st_size
                path.unlink()
                self._when_removed(size)


class Adopted:
    """The spool of a process that is no more, locked by this one."""

    def __init__(self, folder: Path, lock: int) -> None:
        self.reader = Reader(folder)
        self._lock = lock

    def close(self, *, is_empty: bool) -> None:
        if is_empty:
            shutil.rmtree(self.reader.folder)
        os.close(self._lock)


def adopt(root: Path) -> Iterator[Adopted]:
    """The spools below the root whose process is no more; each is this process's until it closes it."""
    for folder in _folders(root):
        try:
            lock = os.open(folder / _LOCK, os.O_RDWR)
        except FileNotFoundError:
            continue  # gone since
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.stat(folder / _LOCK).st_ino != os.fstat(lock).st_ino:
                raise FileNotFoundError(folder)
        except (BlockingIOError, FileNotFoundError):
            os.close(lock)  # its process lives, or another one has just done with it
            continue
        yield Adopted(folder, lock)


def _folders(root: Path) -> list[Path]:
    return sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))


def _segments(folder: Path) -> list[int]:
    return sorted(int(path.stem) for path in folder.glob(f"*{_SUFFIX}"))


def _held_bytes(folder: Path) -> int:
    total = 0
    with contextlib.suppress(FileNotFoundError):  # taken since
        for path in folder.glob(f"*{_SUFFIX}"):
            total += path.stat().st_size
    return total


def _read_taken(folder: Path) -> Place:
    """How far it was taken out; its begin when that is not to be read."""
    try:
        packed = (folder / _TAKEN_NAME).read_bytes()
    except FileNotFoundError:
        packed = b""
    if len(packed) == _TAKEN.size:
        segment, offset, seq, crc = _TAKEN.unpack(packed)
        if crc == zlib.crc32(packed[:-4]):
            return Place(segment, offset, seq)
    first = min(_segments(folder), default=1)
    return Place(first, 0, first)


def _records(chunk: bytes) -> Iterator[bytes]:
    """Those that are whole, up to the first that is not."""
    at = 0
    while at + _HEAD.size <= len(chunk):
        size, crc = _HEAD.unpack_from(chunk, at)
        record = chunk[at + _HEAD.size : at + _HEAD.size + size]
        if len(record) < size or zlib.crc32(record) != crc:
            return
        yield record
        at += _HEAD.size + size
