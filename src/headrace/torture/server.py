"""The server that is tortured, and all that can be done to it: killed, stopped, filled, its clock moved; and how each is undone."""

from __future__ import annotations

import resource
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from headrace.engine.call import command
from headrace.engine.clients import ServerConfig, SyncClient
from headrace.errors import HeadraceError
from headrace.server import EmbeddedServer, embedded_binary
from headrace.testing.clock import MovableClock, faketime_library, runs_under
from headrace.torture.field import send

HOUR_S = 3600.0
MOST_AHEAD_S = 20 * 86_400.0
"""Less than failed jobs are kept: the verdict reads their records."""
HEAL_S = 30.0
ENDING_S = 3.0
FULL_BYTES = 1
NO_LIMIT = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)


class Victim:
    """A server of one's own making; or one behind a URL, to which little is done (`own` is None then).

    Attributes:
        clock: None where libfaketime is not installed.
    """

    def __init__(self, url: str, own: EmbeddedServer | None, clock: MovableClock | None) -> None:
        self.own = own
        self.clock = clock
        self._admin = SyncClient(ServerConfig(url, command_timeout_s=2.0), retry=False)
        self._ahead_s = 0.0
        self._drift = 0.0
        self._drifted_at_s = 0.0

    def ask(self, *words: str | int) -> bool:
        """Whether it answered: it may be away, by another fault at work."""
        try:
            self._admin.run(command(*words, decode=lambda reply: reply))
        except HeadraceError:
            return False
        return True

    # -- its process

    def end(self, *, at_once: bool) -> None:
        assert self.own is not None
        self.go_on()
        if at_once:
            self.own.kill()
        else:
            self.own.stop()

    def start(self) -> None:
        assert self.own is not None
        self.own.start()

    def stand_still(self) -> None:
        assert self.own is not None
        if self.own.is_running:
            send(self.own.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        if self.own is not None and self.own.is_running:
            send(self.own.pid, signal.SIGCONT)

    # -- its room

    def fill(self) -> bool:
        """From now on it refuses what would need memory."""
        return self.ask("CONFIG", "SET", "maxmemory", FULL_BYTES)

    def make_room(self) -> bool:
        return self.ask("CONFIG", "SET", "maxmemory", 0)

    def fill_disk(self, left_bytes: int) -> None:
        """Its append-only file may grow by so much: the write that goes over it is cut short, and the server ends (Linux)."""
        assert self.own is not None and self.own.data_dir is not None
        if not self.own.is_running:
            return
        largest = max((path.stat().st_size for path in _files(self.own.data_dir)), default=0)
        with suppress(ProcessLookupError):  # it has just ended
            resource.prlimit(self.own.pid, resource.RLIMIT_CORE, (0, 0))
            resource.prlimit(self.own.pid, resource.RLIMIT_FSIZE, (largest + left_bytes, resource.RLIM_INFINITY))

    def clear_disk(self) -> None:
        assert self.own is not None
        if self.own.is_running and sys.platform == "linux":
            with suppress(ProcessLookupError):
                resource.prlimit(self.own.pid, resource.RLIMIT_FSIZE, NO_LIMIT)
        ends = time.monotonic() + ENDING_S
        while self.own.is_running and not self.ask("PING") and time.monotonic() < ends:
            time.sleep(0.05)  # it met its limit, and is ending just now; or it stands still
        self.own.start()

    # -- its clock

    def jump(self, seconds: float) -> None:
        """For good."""
        if self._ahead_s + seconds <= MOST_AHEAD_S:
            self._ahead_s += seconds
            self._move(self._ahead_s)

    def go_back(self, seconds: float) -> None:
        """Until `come_back`. What was due must not stay due in an hour."""
        self.ask("CLIENT", "UNPAUSE")  # it would be paused for as long as its clock went back
        self._move(self._ahead_s - seconds)

    def come_back(self) -> None:
        self._move(self._ahead_s)

    def drift(self, rate: float) -> None:
        """From now on its clock goes so much faster (0.3: by 30 %), or slower; 0: as it should, from where it is."""
        self.keep_drifting()
        self._drift = rate

    def keep_drifting(self) -> None:
        now_s = time.monotonic()
        if self._drift:
            self._ahead_s += self._drift * (now_s - self._drifted_at_s)
            self._move(self._ahead_s)
        self._drifted_at_s = now_s

    def _move(self, ahead_s: float) -> None:
        assert self.clock is not None
        self.clock.move_to(ahead_s)

    # -- the end

    def heal(self) -> None:
        """Undo everything, and see that it answers.

        Raises:
            HeadraceError: it does not.
        """
        if self.own is None:
            return
        self._drift = 0.0
        self.go_on()
        self.clear_disk()
        if self.clock is not None:
            self.come_back()
        _until(self._is_back)

    def _is_back(self) -> bool:
        self.start()
        return self.ask("CLIENT", "UNPAUSE") and self.make_room()

    def close(self) -> None:
        self._admin.close()


def make_server(folder: Path, program: str | None) -> tuple[EmbeddedServer, MovableClock | None]:
    """A server whose append-only file is always synced, under a clock that can be moved where that can be had; not started."""
    config = {"appendfsync": "always", "enable-debug-command": "yes"}
    binary, clock, library = program or embedded_binary(), None, faketime_library()
    if library is not None and runs_under(library, binary):
        clock = MovableClock(folder, library, binary)
        binary = clock.program
    return EmbeddedServer(data_dir=folder / "server", config=config, binary=binary), clock


def mends_torn_tail(folder: Path, program: str | None) -> bool:
    """Whether this server, when its append-only file ends within a transaction, cuts that off whole.

    Redis 7.0, and Valkey until its pull request 4342, leave the transaction's beginning there: what they write afterwards becomes
    a part of it, and is lost at the restart after the next.
    """
    torn = folder / "torn"
    server = EmbeddedServer(data_dir=torn, config={"appendfsync": "always"}, binary=program or embedded_binary())
    with server:
        client = SyncClient(ServerConfig(server.url, command_timeout_s=2.0))
        log = max((torn / "appendonlydir").glob("*.incr.aof"))
        server.kill()
        with log.open("ab") as tail:
            tail.write(b"*1\r\n$5\r\nMULTI\r\n*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\n1\r\n*3\r\n$3\r\nSET\r\n$1")
        server.start()
        client.run(command("SET", "hr:kept", "1", key="hr:kept", decode=lambda reply: reply))
        server.kill()
        server.start()
        kept = client.run(command("EXISTS", "hr:kept", key="hr:kept", decode=bool))
        client.close()
    return kept


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def _until(done: Callable[[], bool]) -> None:
    ends = time.monotonic() + HEAL_S
    while not done():
        if time.monotonic() > ends:
            raise HeadraceError(f"the tortured server did not answer within {HEAL_S:g} s of the last fault")
        time.sleep(0.1)
