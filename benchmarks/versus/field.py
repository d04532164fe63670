"""What a scenario has at hand: a server, a producer, a crew of worker processes, and the logs. One library, one scenario, one folder."""

from __future__ import annotations

import ast
import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from verdict import Answer, Effect, read_answers, read_effects

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
ENVIRONMENTS = ROOT / ".versus"
REBIRTH_S = 1.0
LOOK_AGAIN_S = 10.0
LIFE = "VERSUS_LIFE"


def pause(seconds: float) -> None:
    select.select([], [], [], max(seconds, 0))


@dataclass(frozen=True, slots=True)
class Library:
    """What an adapter says of its library, read without importing it.

    Attributes:
        workers: the command lines of the processes that one worker is made of.
    """

    name: str
    packages: list[str]
    shown: list[str]
    workers: list[str]
    settings: str
    own_recovery: str

    @property
    def bin(self) -> Path:
        return ENVIRONMENTS / self.name / "bin"


def load_library(name: str) -> Library:
    """The literal LIBRARY of an adapter."""
    tree = ast.parse((HERE / "adapters" / f"{name}.py").read_text("utf8"))
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "LIBRARY":
            return Library(name, **ast.literal_eval(node.value))
    raise LookupError(f"adapters/{name}.py has no LIBRARY")


class Logs:
    """The log of effects and the producer's log, read on as they grow."""

    def __init__(self, folder: Path) -> None:
        self.effects_path = folder / "effects"
        self.answers_path = folder / "answers"
        self.effects_path.touch()
        self.answers_path.touch()

    @property
    def effects(self) -> list[Effect]:
        return read_effects(self.effects_path.read_text())

    @property
    def answers(self) -> list[Answer]:
        return read_answers(self.answers_path.read_text())

    @property
    def effects_bytes(self) -> int:
        return self.effects_path.stat().st_size

    def undone(self, kind: str = "job") -> set[str]:
        """The acknowledged jobs that have not ended."""
        ended = {effect.name for effect in self.effects if effect.word == "end"}
        return {one.name for one in self.answers if one.is_ok and one.name.startswith(kind + "-")} - ended


def environment(library: Library, url: str, logs: Logs) -> dict[str, str]:
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("HEADRACE", "PYTHON", "VIRTUAL_ENV"))
    }
    return {
        **kept,
        "PATH": f"{library.bin}:{kept.get('PATH', '')}",
        "PYTHONPATH": str(HERE),
        "VERSUS_URL": url,
        "VERSUS_EFFECTS": str(logs.effects_path),
    }


class Producer:
    """The producer's process; `send` returns at once, `wait` when every call has been answered."""

    def __init__(self, library: Library, url: str, logs: Logs, out: Path) -> None:
        self._logs = logs
        self._ordered = 0
        self._next: dict[str, int] = {}
        with out.open("ab") as log:
            self._process = subprocess.Popen(
                [library.bin / "python", HERE / "producer.py", library.name, logs.answers_path],
                cwd=HERE, env=environment(library, url, logs), stdin=subprocess.PIPE, stdout=log, stderr=log, text=True,
            )  # fmt: skip

    def send(self, task: str, count: int, *, every_ms: float = 0, kind: str = "job") -> None:
        first = self._next.get(kind, 0)
        self._next[kind] = first + count
        self._ordered += count
        order = {"task": task, "kind": kind, "first": first, "count": count, "every_ms": every_ms}
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()

    @property
    def is_done(self) -> bool:
        """Whether every call has been answered.

        Raises:
            RuntimeError: the producer has ended.
        """
        if self._process.poll() is not None:
            raise RuntimeError(f"the producer ended with {self._process.returncode}")
        return len(self._logs.answers) >= self._ordered

    @property
    def unanswered(self) -> int:
        return self._ordered - len(self._logs.answers)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


class Crew:
    """One worker: the library's own processes, in as many mains as its docs have. A supervisor such as systemd would see the mains.

    Attributes:
        deaths: mains that ended by themselves; each was started again after a second, as a supervisor would.
        late: mains that were still there at the deadline of a stop.
    """

    def __init__(self, library: Library, url: str, logs: Logs, out: Path) -> None:
        self._commands = [line.format(bin=library.bin, url=url).split() for line in library.workers]
        self._environment = environment(library, url, logs)
        self._out = out
        self._mains: list[subprocess.Popen[bytes]] = []
        self._ended_at: dict[int, float] = {}
        self._life = f"{os.getpid()}-{id(self)}"
        self.deaths = 0
        self.late = 0

    @property
    def size(self) -> int:
        return len(self._commands)

    @property
    def alive(self) -> int:
        return sum(main.poll() is None for main in self._mains)

    def start(self) -> None:
        self._mains = [self._launch(command) for command in self._commands]
        self._ended_at = {}

    def _launch(self, command: list[str]) -> subprocess.Popen[bytes]:
        with self._out.open("ab") as log:
            return subprocess.Popen(
                command, cwd=HERE, env={**self._environment, LIFE: self._life}, stdin=subprocess.DEVNULL, stdout=log,
                stderr=log, start_new_session=True,
            )  # fmt: skip

    def tend(self) -> None:
        """Start again what ended by itself, a second after it was seen."""
        for at, main in enumerate(self._mains):
            if main.poll() is None:
                continue
            if at not in self._ended_at:
                self._ended_at[at] = time.monotonic()
                self.deaths += 1
            elif time.monotonic() - self._ended_at[at] >= REBIRTH_S:
                del self._ended_at[at]
                self._mains[at] = self._launch(self._commands[at])

    def stop(self, deadline_s: float) -> None:
        """SIGTERM to the mains; at the deadline SIGKILL; what is left of their processes goes with them."""
        for main in self._mains:
            if main.poll() is None:
                main.send_signal(signal.SIGTERM)
        ends = time.monotonic() + deadline_s
        while self.alive and time.monotonic() < ends:
            pause(0.01)
        self.late += self.alive
        self.kill()

    def kill(self) -> None:
        """SIGKILL to all processes at once, as when a container or a machine dies: mains first, until none is left."""
        while found := self._members():
            for process in found:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            for main in self._mains:
                with suppress(subprocess.TimeoutExpired):
                    main.wait(5)
            pause(0.005)

    def _members(self) -> list[psutil.Process]:
        """All processes of this worker that run, wherever they have been adopted: they have its mark in their environment."""
        mark, found = f"{LIFE}={self._life}".encode(), []
        for process in psutil.process_iter():
            with suppress(OSError, psutil.Error):
                if (
                    mark in Path(f"/proc/{process.pid}/environ").read_bytes()
                    and process.status() != psutil.STATUS_ZOMBIE
                ):
                    found.append(process)
        return sorted(found, key=lambda process: process.pid)


class Field:
    """One library in one scenario.

    Args:
        server: its URL for the producer; the worker's may lead by way of a proxy.
    """

    def __init__(self, library: Library, folder: Path, server: Any, worker_url: str, plan: Plan) -> None:
        self.peer = library
        self.server = server
        self.plan = plan
        self.logs = Logs(folder)
        self.crew = Crew(library, worker_url, self.logs, folder / "worker.log")
        self.producer = Producer(library, server.url, self.logs, folder / "producer.log")
        self.chaos_ended_ns = 0
        self.notes: dict[str, Any] = {}

    def until(self, done: Callable[[], Any], timeout_s: float, *, every_s: float = 0.05, tended: bool = True) -> bool:
        """Wait, and start again what ends by itself; whether it was done in time."""
        ends = time.monotonic() + timeout_s
        while not done():
            if time.monotonic() > ends:
                return False
            if tended:
                self.crew.tend()
            pause(every_s)
        return True

    def rest(self, seconds: float) -> None:
        self.until(lambda: False, seconds)

    def wait_for_first_job(self, timeout_s: float = 20.0) -> bool:
        """Until a job starts, or goes on; whether one did."""
        seen = self.logs.effects_bytes
        return self.until(lambda: self.logs.effects_bytes > seen, timeout_s, every_s=0.002, tended=False)

    def end_chaos(self) -> None:
        self.chaos_ended_ns = time.monotonic_ns()

    def recover(self) -> None:
        """Wait until all acknowledged jobs are done: for the plan's time, and on as long as jobs still end, to three times that.

        Meanwhile a job a second comes to each queue, as in production: some libraries look for what was left behind only when they are busy.
        """
        self.until(lambda: self.producer.is_done, 60)
        self.notes["unanswered"] = self.producer.unanswered
        began = moved = ticked = time.monotonic()
        left = self.logs.undone()
        while left:
            now = time.monotonic()
            if now - began > self.plan.recovery_s and (now - moved > 10 or now - began > 3 * self.plan.recovery_s):
                break
            if now - ticked > 1 and self.producer.is_done:
                self.producer.send("note", 3, kind="tick")
                ticked = now
            self.rest(0.25)
            before, left = left, self.logs.undone()
            moved = time.monotonic() if left != before else moved

    def look(self) -> dict[str, str]:
        """Where the library has its jobs."""
        done = subprocess.run(
            [self.peer.bin / "python", HERE / "look.py", self.peer.name], cwd=HERE, capture_output=True, text=True,
            env=environment(self.peer, self.server.url, self.logs), check=False,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"look.py {self.peer.name}: {done.stderr[-2000:]}")
        return dict(json.loads(done.stdout))

    def look_twice(self) -> dict[str, str]:
        """As `look`; what is nowhere then is looked for again a while later: it may have been between two places."""
        places = self.look()
        if nowhere := self.logs.undone() - places.keys():
            self.rest(LOOK_AGAIN_S)
            again = self.look()
            places |= {name: again[name] for name in nowhere & again.keys()}
        return places

    def probe(self) -> bool:
        """Whether the worker runs new jobs of every queue."""
        self.producer.send("note", 6, kind="probe")
        self.until(lambda: self.producer.is_done, 20)
        return self.until(lambda: not self.logs.undone("probe"), 30, every_s=0.2)

    def close(self) -> None:
        self.crew.kill()
        self.producer.close()


@dataclass(frozen=True, slots=True)
class Plan:
    """How large, how long: the same for all libraries."""

    seed: int
    jobs: int
    restarts: int
    recovery_s: float
    stop_s: float
