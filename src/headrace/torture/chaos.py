"""The faults: a schedule made from a seed, and what each fault does."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from headrace.testing.proxy import FaultProxy, runs
from headrace.torture.field import LEASE_S, Member, send
from headrace.torture.server import HOUR_S, Victim
from headrace.torture.watch import Watch

WEIGHTS = {
    "child killed": 24,
    "largest process killed": 6,
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
    "server stands still beyond the leases": 2,
    "server killed": 3,
    "server restarted": 1,
    "server full": 4,
    "server's disk full": 2,
    "server's clock an hour ahead": 3,
    "server's clock an hour back": 3,
    "server's clock a little off": 4,
    "server's clock drifts": 2,
}
OF_THE_CLOCK = frozenset(name for name in WEIGHTS if name.startswith("server's clock"))
OF_THE_DISK = frozenset({"server's disk full"})
OF_THE_SERVER = frozenset({"clients killed", *(name for name in WEIGHTS if name.startswith("server"))})
PAUSE_S = (0.1, 0.7)


@dataclass(frozen=True, slots=True)
class Fault:
    """`at_s` after the beginning. `seed` decides whom it meets and how long it lasts."""

    at_s: float
    name: str
    seed: int


def schedule(seed: int, seconds: float, *, leave_out: Collection[str] = ()) -> list[Fault]:
    """The faults of a run: the same for the same seed."""
    rng = random.Random(seed)
    names = [name for name in WEIGHTS if name not in leave_out]
    weights = [WEIGHTS[name] for name in names]
    faults: list[Fault] = []
    at_s = 1.0
    while at_s < seconds:
        faults.append(Fault(at_s, rng.choices(names, weights)[0], rng.getrandbits(32)))
        at_s += rng.uniform(*PAUSE_S)
    return faults


class Chaos:
    """Does the faults of a schedule to a field. What must be undone later is undone in `heal`, or when its time comes."""

    def __init__(self, workers: Sequence[Member], producers: Sequence[Member], victim: Victim, watch: Watch) -> None:
        self._workers = workers
        self._producers = producers
        self._victim = victim
        self._watch = watch
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
        self._victim.heal()
        self.keep_up()

    def keep_up(self) -> None:
        """Undo what has lasted long enough, and bring back workers that have ended."""
        now = time.monotonic()
        due = [undo for at_s, undo in self._later if at_s <= now]
        self._later = [(at_s, undo) for at_s, undo in self._later if at_s > now]
        for undo in due:
            undo()
        self._victim.keep_drifting()
        for worker in self._workers:
            worker.come_back()

    def _after(self, seconds: float, undo: Callable[[], object]) -> None:
        self._later.append((time.monotonic() + seconds, undo))

    def _do(self, fault: Fault) -> None:
        rng = random.Random(fault.seed)
        worker = rng.choice(self._workers)
        member = rng.choice([*self._workers, *self._producers])
        kind = fault.name
        if kind == "scripts flushed":
            self._victim.ask("SCRIPT", "FLUSH")
        elif kind.startswith(("link", "reply")):
            self._hurt_link(kind, member, worker, rng)
        elif kind in OF_THE_CLOCK:
            self._move_clock(kind, rng)
        elif kind in OF_THE_SERVER:
            self._hurt_server(kind, rng)
        else:
            self._hurt_worker(kind, worker, rng)
        self.done[kind] += 1

    def _hurt_worker(self, kind: str, worker: Member, rng: random.Random) -> None:
        pause_s = LEASE_S * rng.uniform(1.2, 2.0) if "paused" in kind else 0.0
        self._watch.hurt([worker.name], pause_s)
        if kind == "child killed":
            for child in rng.sample(worker.children(), 1) if worker.children() else ():
                send(child, signal.SIGKILL)
        elif kind == "largest process killed":
            send(worker.largest(), signal.SIGKILL)
        elif kind == "worker killed":
            worker.send(signal.SIGKILL)
        elif kind == "worker told to stop":
            worker.send(signal.SIGTERM)
        elif kind == "worker paused beyond its lease":
            worker.signal_all(signal.SIGSTOP)
            self._after(pause_s, lambda: worker.signal_all(signal.SIGCONT))
        else:
            worker.send(signal.SIGSTOP)
            self._after(pause_s, lambda: worker.send(signal.SIGCONT))

    def _hurt_link(self, kind: str, member: Member, worker: Member, rng: random.Random) -> None:
        link, seconds = member.link, 0.0
        if kind == "links reset":
            link.reset_all()
        elif kind.startswith("link silent"):
            seconds = rng.uniform(0.3, 4.0)
            link.cut("up" if kind.endswith("server") else "down" if kind.endswith("worker") else "both")
            self._after(seconds, link.heal)
        elif kind == "link slow":
            seconds = rng.uniform(0.5, 2.0)
            link.latency_s, link.bytes_per_s = 0.05, 100_000.0
            self._after(seconds, lambda: _make_fast(link))
        elif kind == "reply of a settle lost":
            member = worker
            worker.link.lose_reply(runs("settle"))
        elif kind == "reply of an enqueue lost":
            rng.choice(self._producers).link.lose_reply(runs("enqueue"))
        else:
            link.tear_reply(lambda _: True, after_bytes=rng.randint(1, 200))
        self._watch.hurt([member.name], seconds)

    def _hurt_server(self, kind: str, rng: random.Random) -> None:
        """None of this is an excuse for a job that is taken from its worker."""
        victim = self._victim
        if kind == "clients killed":
            victim.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        elif kind == "server paused":
            victim.ask("CLIENT", "PAUSE", rng.randint(200, 1_500), "WRITE")
        elif kind == "server asleep":
            victim.ask("DEBUG", "SLEEP", f"{rng.uniform(0.2, 1.0):.2f}")
        elif kind == "server stands still beyond the leases":
            victim.stand_still()
            self._after(LEASE_S * rng.uniform(1.2, 2.0), victim.go_on)
        elif kind == "server full":
            victim.fill()
            self._after(rng.uniform(0.3, 3.0), victim.make_room)
        elif kind == "server's disk full":
            victim.fill_disk(rng.randint(0, 4096))
            self._after(rng.uniform(0.3, 2.0), victim.clear_disk)
        else:
            victim.end(at_once=kind == "server killed")
            self._after(rng.uniform(0.0, 1.0), victim.start)

    def _move_clock(self, kind: str, rng: random.Random) -> None:
        victim = self._victim
        if kind.endswith("ahead"):
            victim.jump(HOUR_S)
        elif kind.endswith("back"):
            victim.go_back(HOUR_S)
            self._after(rng.uniform(0.3, 5.0), victim.come_back)
        elif kind.endswith("off"):
            victim.jump(rng.uniform(-1.5, 1.5))
        else:
            victim.drift(rng.choice((-0.3, 0.3)))
            self._after(rng.uniform(2.0, 6.0), lambda: victim.drift(0.0))


def _make_fast(link: FaultProxy) -> None:
    link.latency_s, link.bytes_per_s = 0.0, None
