"""Who was alive, and who was well, when: what decides whether a job that ran twice at once was rightly taken from its worker."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Self

from headrace.torture.field import LEASE_S, Member, descendants

LOOK_EVERY_S = 0.1
STALL_S = 0.5
"""A look that comes so late says that this machine stood still: its workers, too, may have been unable to renew."""
AFTERWARDS_S = LEASE_S + 1.0
"""How long after a fault a worker may still find its sessions gone."""

Span = tuple[float, float]


def now_s() -> float:
    """One clock for all processes of the machine, which nothing moves."""
    return time.monotonic()


@dataclass(slots=True)
class Health:
    """`alive`: pid -> when it was seen. `hurt`: a worker's name -> when it was under a fault of its own, or had just been."""

    alive: dict[int, list[Span]] = field(default_factory=lambda: defaultdict(list))
    hurt: dict[str, list[Span]] = field(default_factory=lambda: defaultdict(list))

    def see(self, pids: Iterable[int], at_s: float) -> None:
        for pid in pids:
            spans = self.alive[pid]
            if spans and at_s - spans[-1][1] < 10 * LOOK_EVERY_S:
                spans[-1] = (spans[-1][0], at_s)
            else:
                spans.append((at_s, at_s))

    def note(self, names: Iterable[str], from_s: float, to_s: float) -> None:
        for name in names:
            self.hurt[name].append((from_s, to_s + AFTERWARDS_S))

    def outlived(self, pid: int, from_s: float, to_s: float) -> bool:
        """Whether the process that was there at `from_s` was seen after `to_s`."""
        return any(
            first <= from_s + 10 * LOOK_EVERY_S and last > to_s for first, last in self.alive[pid] if last >= from_s
        )

    def was_well(self, name: str, from_s: float, to_s: float) -> bool:
        return not any(first <= to_s and from_s <= last for first, last in self.hurt[name])


class Watch:
    """Looks at the workers' processes, from a thread of its own; faults are told to it."""

    def __init__(self, workers: Sequence[Member]) -> None:
        self.health = Health()
        self._workers = workers
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._look_on, name="watch", daemon=True)

    def hurt(self, names: Iterable[str], seconds: float = 0.0) -> None:
        """These workers are under a fault of their own from now on, for so long."""
        self.health.note(names, now_s(), now_s() + seconds)

    def _look_on(self) -> None:
        last_s = now_s()
        while not self._is_over.wait(LOOK_EVERY_S):
            for worker in self._workers:
                self.health.see((worker.process.pid, *descendants(worker.process.pid)), now_s())
            if now_s() - last_s > STALL_S:
                self.health.note([worker.name for worker in self._workers], last_s, now_s())
            last_s = now_s()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()
