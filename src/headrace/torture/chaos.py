"""The faults: a schedule made from a seed, and what each fault does."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from headrace.engine.call import command
from headrace.engine.clients import ServerConfig, SyncClient
from headrace.errors import HeadraceError
from headrace.server import EmbeddedServer
from headrace.testing.proxy import FaultProxy, runs
from headrace.torture.field import LEASE_S, Member, send

WEIGHTS = {
    "child killed": 24,
    "worker killed": 8,
    "worker told to stop": 8,
    "worker paused beyond its lease": 4,
    "supervisor paused beyond its lease": 3,
    "links reset": 8,
    "link silent to the server": 3,
    "link silent to the worker": 3,
    "link silent": 2,
    "reply of a settle lost": 8,
    "reply of an enqueue lost": 8,
    "reply torn": 6,
    "link slow": 3,
    "scripts flushed": 5,
    "clients killed": 4,
    "server paused": 4,
    "server asleep": 4,
    "server killed": 3,
    "server restarted": 1,
}
OF_THE_SERVER = frozenset({"clients killed", "server paused", "server asleep", "server killed", "server restarted"})
PAUSE_S = (0.1, 0.7)


@dataclass(frozen=True, slots=True)
class Fault:
    """`at_s` after the beginning. `seed` decides whom it meets and how long it lasts."""

    at_s: float
    name: str
    seed: int


def schedule(seed: int, seconds: float, *, may_hurt_server: bool) -> list[Fault]:
    """The faults of a run: the same for the same seed."""
    rng = random.Random(seed)
    names = [name for name in WEIGHTS if may_hurt_server or name not in OF_THE_SERVER]
    weights = [WEIGHTS[name] for name in names]
    faults: list[Fault] = []
    at_s = 1.0
    while at_s < seconds:
        faults.append(Fault(at_s, rng.choices(names, weights)[0], rng.getrandbits(32)))
        at_s += rng.uniform(*PAUSE_S)
    return faults


class Chaos:
    """Does the faults of a schedule to a field. What must be undone later is undone in `heal`, or when its time comes."""

    def __init__(
        self, workers: Sequence[Member], producers: Sequence[Member], url: str, server: EmbeddedServer | None
    ) -> None:
        self._workers = workers
        self._producers = producers
        self._server = server
        self._admin = SyncClient(ServerConfig(url, command_timeout_s=2.0), retry=False)
        self._later: list[tuple[float, Callable[[], object]]] = []
        self.done: Counter[str] = Counter()

    def run(self, faults: Sequence[Fault], *, say: Callable[[str], None]) -> None:
        """Do them at their times; between them, bring back what has ended."""
        began = time.monotonic()
        said = 0.0
        for fault in faults:
            while (left := began + fault.at_s - time.monotonic()) > 0:
                self.keep_up()
                time.sleep(min(left, 0.05))
            self._do(fault)
            if fault.at_s - said >= 10:
                said = fault.at_s
                say(f"{fault.at_s:4.0f} s  {sum(self.done.values())} faults")

    def heal(self) -> None:
        """Undo everything, and bring back everyone."""
        for _, undo in self._later:
            undo()
        self._later.clear()
        for member in (*self._workers, *self._producers):
            member.link.heal()
            member.link.latency_s = 0.0
            member.link.bytes_per_s = None
        for worker in self._workers:
            worker.signal_all(signal.SIGCONT)
        if self._server is not None:
            self._server.start()
        self.keep_up()

    def close(self) -> None:
        self._admin.close()

    def keep_up(self) -> None:
        """Undo what has lasted long enough, and bring back workers that have ended."""
        now = time.monotonic()
        due = [undo for at_s, undo in self._later if at_s <= now]
        self._later = [(at_s, undo) for at_s, undo in self._later if at_s > now]
        for undo in due:
            undo()
        for worker in self._workers:
            worker.come_back()

    def _after(self, seconds: float, undo: Callable[[], object]) -> None:
        self._later.append((time.monotonic() + seconds, undo))

    def _do(self, fault: Fault) -> None:
        rng = random.Random(fault.seed)
        worker = rng.choice(self._workers)
        link = rng.choice([*self._workers, *self._producers]).link
        kind = fault.name
        if kind == "child killed":
            children = worker.children()
            if not children:
                return
            send(rng.choice(children), signal.SIGKILL)
        elif kind == "worker killed":
            worker.send(signal.SIGKILL)
        elif kind == "worker told to stop":
            worker.send(signal.SIGTERM)
        elif kind == "worker paused beyond its lease":
            worker.signal_all(signal.SIGSTOP)
            self._after(LEASE_S * rng.uniform(1.2, 2.0), lambda: worker.signal_all(signal.SIGCONT))
        elif kind == "supervisor paused beyond its lease":
            worker.send(signal.SIGSTOP)
            self._after(LEASE_S * rng.uniform(1.2, 2.0), lambda: worker.send(signal.SIGCONT))
        elif kind.startswith(("link", "reply")):
            self._hurt_link(kind, link, worker, rng)
        else:
            self._hurt_server(kind, rng)
        self.done[kind] += 1

    def _hurt_link(self, kind: str, link: FaultProxy, worker: Member, rng: random.Random) -> None:
        if kind == "links reset":
            link.reset_all()
        elif kind.startswith("link silent"):
            link.cut("up" if kind.endswith("server") else "down" if kind.endswith("worker") else "both")
            self._after(rng.uniform(0.3, 4.0), link.heal)
        elif kind == "link slow":
            link.latency_s, link.bytes_per_s = 0.05, 100_000.0
            self._after(rng.uniform(0.5, 2.0), lambda: _make_fast(link))
        elif kind == "reply of a settle lost":
            worker.link.lose_reply(runs("settle"))
        elif kind == "reply of an enqueue lost":
            rng.choice(self._producers).link.lose_reply(runs("enqueue"))
        else:
            link.tear_reply(lambda _: True, after_bytes=rng.randint(1, 200))

    def _hurt_server(self, kind: str, rng: random.Random) -> None:
        if kind == "scripts flushed":
            self._ask("SCRIPT", "FLUSH")
        elif kind == "clients killed":
            self._ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        elif kind == "server paused":
            self._ask("CLIENT", "PAUSE", rng.randint(200, 1_500), "WRITE")
        elif kind == "server asleep":
            self._ask("DEBUG", "SLEEP", f"{rng.uniform(0.2, 1.0):.2f}")
        elif self._server is not None:
            if kind == "server killed":
                self._server.kill()
            else:
                self._server.stop()
            self._after(rng.uniform(0.0, 1.0), self._server.start)

    def _ask(self, *words: str | int) -> None:
        try:
            self._admin.run(command(*words, decode=lambda reply: reply))
        except HeadraceError:
            return  # the server is away: another fault at work


def _make_fast(link: FaultProxy) -> None:
    link.latency_s, link.bytes_per_s = 0.0, None
