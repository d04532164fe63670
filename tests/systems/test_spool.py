"""The spool of the activity log, and the log's threads on it: what is kept, in which order, and what is told when it is full."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from systems.activity.events import LOST, Entry, make_event
from systems.activity.log import FULL_MEMORY, FULL_SPOOL, EventLog
from systems.activity.spool import Reader, Spool, adopt
from systems.common.programs import ROOT, until

SLOW_S = 60.0
MIB = 1 << 20


def drained(reader: Reader, at_once: int = 7) -> list[tuple[int, bytes]]:
    """All there is, taken a few at a time."""
    found: list[tuple[int, bytes]] = []
    while records := reader.read(at_once):
        found += records
        reader.take()
    return found


def numbered(first: int, last: int, size: int = 100) -> list[bytes]:
    return [b"%d " % n + b"x" * size for n in range(first, last + 1)]


def test_records_come_out_in_order_and_their_segments_go(tmp_path: Path) -> None:
    """Over many segments, read while it is written; what was taken does not come again, and frees its room."""
    spool = Spool(tmp_path, limit_bytes=64 << 10)
    reader = spool.reader()
    found: list[tuple[int, bytes]] = []
    for n in range(1, 5001, 50):
        assert 50 == spool.append(numbered(n, n + 49))
        found += drained(reader)
    assert list(enumerate(numbered(1, 5000), 1)) == found
    assert spool.held_bytes < 32 << 10
    assert spool.held_bytes == sum(path.stat().st_size for path in spool.folder.glob("*.log"))
    spool.close(is_empty=True)
    assert [] == list(tmp_path.iterdir())


def test_what_was_read_but_not_taken_is_read_again(tmp_path: Path) -> None:
    spool = Spool(tmp_path, limit_bytes=MIB)
    spool.append(numbered(1, 9))
    reader = spool.reader()
    first = reader.read(4)
    assert first == reader.read(4)
    reader.take()
    assert 5 == reader.read(1)[0][0]
    spool.close(is_empty=False)


def test_a_full_spool_takes_what_fits_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    spool = Spool(tmp_path, limit_bytes=64 << 10)
    fitting = spool.append(numbered(1, 2000))
    assert 400 < fitting < 700
    assert (0, True) == (spool.append(numbered(1, 1)), spool.held_bytes <= 64 << 10)
    reader = spool.reader()
    assert fitting == len(drained(reader))
    assert 300 == spool.append(numbered(2001, 2300))
    assert list(enumerate(numbered(2001, 2300), fitting + 1)) == drained(reader)
    spool.close(is_empty=True)


def test_the_limit_is_of_all_processes(tmp_path: Path) -> None:
    one, other = Spool(tmp_path, limit_bytes=64 << 10), Spool(tmp_path, limit_bytes=64 << 10)
    assert one.append(numbered(1, 2000)) > 400
    other.look_around()
    assert other.append(numbered(1, 2000)) < 10
    drained(one.reader())
    other.look_around()
    assert other.append(numbered(1, 300)) == 300
    one.close(is_empty=True)
    other.close(is_empty=True)


KILLED = """
import os, signal, sys
from pathlib import Path
from systems.activity.spool import Spool
spool = Spool(Path(sys.argv[1]), limit_bytes=1 << 20)
spool.append([b"%d" % n for n in range(1, 1001)])
reader = spool.reader()
assert len(reader.read(300)) == 300
reader.take()
print(spool.name, flush=True)
if sys.argv[2] == "kill":
    os.kill(os.getpid(), signal.SIGKILL)
sys.stdin.read()
"""


def test_the_spool_of_a_killed_process_is_taken_over_once_and_that_of_a_living_one_is_not(tmp_path: Path) -> None:
    """SIGKILL: the kernel has what was appended, and gives the lock back."""
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    killed = subprocess.run([*command, "kill"], cwd=ROOT, capture_output=True, text=True)
    with subprocess.Popen([*command, "live"], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as living:
        assert living.stdin is not None and living.stdout is not None
        assert living.stdout.readline()
        (found,) = adopt(tmp_path)
        assert [] == list(adopt(tmp_path))  # ours now
        assert killed.stdout.strip() == found.reader.source
        assert [(n, b"%d" % n) for n in range(301, 1001)] == drained(found.reader, 64)
        found.close(is_empty=True)
        living.stdin.close()
        assert 0 == living.wait(SLOW_S)
    (left,) = adopt(tmp_path)
    assert 700 == len(drained(left.reader))
    left.close(is_empty=True)
    assert [] == list(tmp_path.iterdir())


@pytest.mark.parametrize("harm", ["torn", "flipped"])
def test_what_a_crash_of_the_machine_tore_is_told_and_set_aside(tmp_path: Path, harm: str) -> None:
    """The records before it are whole; those of later segments too."""
    spool = Spool(tmp_path, limit_bytes=80 << 10)
    assert 300 == spool.append(numbered(1, 300))
    spool.close(is_empty=False)
    first, *later = sorted(spool.folder.glob("*.log"))
    assert later
    data = bytearray(first.read_bytes())
    if harm == "torn":
        del data[-30:]
    else:
        data[-30] ^= 1
    first.write_bytes(data)
    (found,) = adopt(tmp_path)
    numbers = [seq for seq, _ in drained(found.reader)]
    (lost,) = set(range(1, 301)) - set(numbers)
    assert numbers == [n for n in range(1, 301) if n != lost]
    assert found.reader.newly_damaged() > 50
    assert 0 == found.reader.newly_damaged()
    found.close(is_empty=True)
    assert [f"{spool.name}-{first.name}.damaged"] == [path.name for path in tmp_path.iterdir()]


class Away:
    """Where entries go: it can be away. `stored`: what it has, in the order it came."""

    def __init__(self) -> None:
        self.is_there = threading.Event()
        self.stored: list[Entry] = []

    def __call__(self, entries: Sequence[Entry]) -> Sequence[Entry]:
        if not self.is_there.is_set():
            raise ConnectionError("away")
        self.stored += entries
        return ()

    def texts(self) -> list[str]:
        return [entry.event.text for entry in self.stored]


def test_events_wait_in_the_spool_and_are_sent_in_their_order(tmp_path: Path) -> None:
    """From many threads; seq has no gap."""
    there = Away()
    log = EventLog(tmp_path, there)
    log.start()
    for n in range(3000):
        log.emit(make_event("n", text=str(n)))
    until(lambda: log.figures().spooled == 3000 and not log.figures().is_sending, SLOW_S, "3,000 in the spool")
    there.is_there.set()
    until(lambda: len(there.stored) == 3000, SLOW_S, "3,000 sent")
    log.close()
    assert [str(n) for n in range(3000)] == there.texts()
    assert list(range(1, 3001)) == [entry.seq for entry in there.stored]
    assert [] == list(tmp_path.iterdir())


def test_what_is_over_the_limit_is_counted_and_told_where_it_was(tmp_path: Path) -> None:
    """The newest are lost. When there is room again the first event says how many; every event is stored or counted."""
    there = Away()
    log = EventLog(tmp_path, there, limit_bytes=64 << 10)
    log.start()
    for n in range(2000):
        log.emit(make_event("n", text=f"{n} {'x' * 100}"))
    until(lambda: log.figures().lost and not log.figures().in_memory, SLOW_S, "lost events")
    lost = log.figures().lost
    assert [FULL_SPOOL] == list(lost)
    there.is_there.set()
    until(lambda: there.stored and not log.figures().spooled, SLOW_S, "what was spooled")
    log.emit(make_event("n", text="after"))
    log.close()
    kept = 2000 - lost[FULL_SPOOL]
    assert [f"{n} {'x' * 100}" for n in range(kept)] == there.texts()[:kept]
    told, after = (entry.event for entry in there.stored[kept:])
    assert (LOST, {FULL_SPOOL: 2000 - kept}, "error") == (told.kind, told.data, told.level)
    assert "after" == after.text
    assert list(range(1, kept + 3)) == [entry.seq for entry in there.stored]


def test_a_full_memory_is_told_too(tmp_path: Path) -> None:
    """Before the writer runs there is room for two."""
    there = Away()
    there.is_there.set()
    log = EventLog(tmp_path, there, in_memory_max=2)
    for n in range(5):
        log.emit(make_event("n", text=str(n)))
    log.start()
    until(lambda: len(there.stored) == 3, SLOW_S, "two, and what was lost")
    log.close()
    assert {"n": 2, LOST: 1} == {kind: sum(e.event.kind == kind for e in there.stored) for kind in ("n", LOST)}
    assert [{FULL_MEMORY: 3}] == [entry.event.data for entry in there.stored if entry.event.kind == LOST]


def test_a_disk_that_refuses_costs_events_and_nothing_else(tmp_path: Path) -> None:
    """They are counted; when it takes them again, so it is told."""
    there = Away()
    there.is_there.set()
    log = EventLog(tmp_path, there)
    full = os.open("/dev/full", os.O_WRONLY)
    good = os.dup(log.spool._file)
    os.dup2(full, log.spool._file)
    log.start()
    log.emit(make_event("n", text="nowhere"))
    until(lambda: log.figures().lost, SLOW_S, "a lost event")
    os.dup2(good, log.spool._file)
    until(lambda: [entry.event.kind for entry in there.stored] == [LOST], SLOW_S, "the word of it")
    log.close()
    os.close(good)
    os.close(full)


def test_a_stopped_process_leaves_what_it_could_not_send_to_the_next(tmp_path: Path) -> None:
    """And the next one sends it, without being told, with the names it had."""
    away, there = Away(), Away()
    there.is_there.set()
    first = EventLog(tmp_path, away)
    first.start()
    for n in range(10):
        first.emit(make_event("n", text=str(n)))
    first.close()
    second = EventLog(tmp_path, there)
    second.start()
    until(lambda: len(there.stored) == 10, SLOW_S, "the events of the first")
    second.close()
    assert [(first.spool.name, n) for n in range(1, 11)] == [(entry.source, entry.seq) for entry in there.stored]
    assert [] == list(tmp_path.iterdir())


def test_an_event_is_made_of_anything() -> None:
    """What PostgreSQL, UTF-8 or JSON could not hold is cut or written out."""
    data = {"nul\0": "a\0b", "half": "\ud800", "nan": float("nan"), "big": 1 << 70, "list": [1], "none": None}
    event = make_event("k" * 100, user="u" * 100, text="t" * 3000, data=data)
    assert (40, 64, 2000) == (len(event.kind), len(event.user), len(event.text))
    assert {"nul": "ab", "half": "?", "nan": "nan", "big": str(1 << 70), "list": "[1]", "none": None} == event.data
