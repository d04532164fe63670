"""The supervisor: the process that owns a worker's leases, deadlines and restarts, and runs no user code.

Duties, each a class with a `run_once` that returns the seconds to its next turn:
 1. `Launcher`: the spawner, which imports the app.
 2. `Roster`: children are started, collected when dead, started again; who is blamed.
 3. `Leases`: sessions are renewed; running jobs hear that they are cancelled.
 4. `Deadlines`: overdue jobs are interrupted, then killed; old batches are broken up.
 5. `Errands`: releases and give-backs reach the server, however long it is away.
 6. `Tender`: due jobs are promoted, due schedules fired, lost workers' jobs taken over.
 7. `Schedules`: what the code declares is told to the server.
 8. `Presence`: beats, and commands from afar.
 9. `Historian`: how much the queues' totals have grown is noted.
10. `MemoryLimit`: children that have grown too large are replaced.
11. `Systemd`: a service manager hears that it is ready, and alive.
Probes and scrapers are answered by `Vitals`, on the same loop.
The supervisor itself starts and ends them, and turns signals into what they mean.

Linux, macOS: the process must have no other children of its own, since it collects them all.
"""

from __future__ import annotations

import asyncio
import faulthandler
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Awaitable, Callable
from typing import NamedTuple, Protocol

from headrace.engine import ops
from headrace.engine.clients import AsyncClient, ServerConfig, ServerInfo, backoff_s, masked_url
from headrace.errors import ServerBusy, ServerError, ServerUnreachable, UsageError
from headrace.version import __version__
from headrace.worker.board import Board
from headrace.worker.config import WorkerConfig
from headrace.worker.crew import Crew
from headrace.worker.deadlines import Deadlines
from headrace.worker.errands import Errands
from headrace.worker.history import Historian
from headrace.worker.launcher import Launcher, SpawnFailed
from headrace.worker.leases import Leases
from headrace.worker.messages import Hello
from headrace.worker.presence import Presence
from headrace.worker.processes import Death, adopt_orphans, send_signal
from headrace.worker.reload import Reloader
from headrace.worker.roster import MemoryLimit, Roster
from headrace.worker.schedules import Schedules
from headrace.worker.systemd import Systemd
from headrace.worker.tend import Tender
from headrace.worker.vitals import Vitals

OK, WRONG_USE, UNREACHABLE, BROKEN, MISCONFIGURED, INTERRUPTED, TERMINATED = 0, 2, 69, 70, 78, 130, 143
ERRANDS_GRACE_S = 5.0
KILL_WAIT_S = 5.0


class Duty(Protocol):
    async def run_once(self) -> float: ...


def run(config: WorkerConfig) -> int:
    """Run a worker until it is told to stop; returns the process's exit code."""
    return run_counting(config).code


class Ended(NamedTuple):
    """The exit code of a worker that has ended, and how many jobs it ran."""

    code: int
    jobs: int


def run_counting(config: WorkerConfig, serve: Callable[[socket.socket], int] | None = None) -> Ended:
    """As `run`.

    Args:
        serve: `spawner.serve`, bound to an app that this process has: then `config.app_path` is not imported.
    """
    supervisor = Supervisor(config, is_adopting=adopt_orphans(), serve=serve)
    try:
        code = asyncio.run(supervisor.main())
    except KeyboardInterrupt:
        code = INTERRUPTED
    return Ended(code, supervisor.jobs_done)


class Supervisor:
    """One worker."""

    def __init__(
        self, config: WorkerConfig, *, is_adopting: bool, serve: Callable[[socket.socket], int] | None = None
    ) -> None:
        self._config = config
        self._board = Board.create(config.children, config.slots)
        self._crew = Crew(config, self._board)
        self._errands = Errands(self._crew)
        self._launcher = Launcher(self._board, is_adopting=is_adopting, tell_death=self._bury, serve=serve)
        self._roster = Roster(self._crew, self._launcher, self._errands)
        self._schedules = Schedules(self._crew)
        self._presence = Presence(self._crew, self._obey, self._state)
        self._vitals = Vitals(self._crew, self._roster, self._schedules, self._state)
        self._systemd = Systemd(self._crew, self._vitals, self._state, os.environ)
        self._reloader = Reloader(self._crew, self._launcher, self._roster)
        self._tasks: set[asyncio.Task[None]] = set()
        self._signals: list[int] = []
        self._told = asyncio.Event()
        self._is_quiet = False
        self._handled: list[int] = []
        self._jobs_seen, self._active_s = 0, time.monotonic()

    @property
    def jobs_done(self) -> int:
        """How many its children have run."""
        return self._crew.counts()["jobs_done"]

    async def main(self) -> int:
        """Start, run until told to stop, end; the exit code."""
        try:
            code = await self._open_vitals()
            if code is not None:
                return code
            if self._config.reload:
                self._keep(self._reloader.watch())
                await asyncio.sleep(0)  # it watches now: before the app is imported
            code = await self._begin()
            if code is not None:
                return code
            self._install_signals()
            self._vitals.has_begun = True
            for duty in self._duties():
                self._keep(self._repeat(duty))
            self._reloader.may_reload.set()
            return await self._end(await self._until_told())
        finally:
            await self._leave()

    # Start

    async def _open_vitals(self) -> int | None:
        """Probes are answered from the first moment on; an exit code when that cannot be."""
        if self._config.health_port is None:
            return None
        try:
            address = await self._vitals.open(self._config.health_host, self._config.health_port)
        except UsageError as error:
            return self._refuse(MISCONFIGURED, f"--health-port: {error}")
        self._crew.say(f"health and metrics on {address}")
        return None

    async def _begin(self) -> int | None:
        """Import the app and find the server; an exit code when that fails, after one sentence that says why."""
        try:
            hello = await self._launcher.start(self._config)
        except SpawnFailed as error:
            return self._refuse(BROKEN, str(error))
        if hello.error:
            return self._refuse(WRONG_USE, hello.error)
        if hello.threads and self._config.start == "fork":
            return self._refuse(MISCONFIGURED, _threads_text(hello.threads))
        queues = self._config.queues or hello.queues
        try:
            client = AsyncClient(ServerConfig(hello.url, prefix=hello.prefix), retry=False)
            self._crew.connect(client, queues)
            self._crew.schedules = hello.schedules
            info = await self._find_server()
        except UsageError as error:
            return self._refuse(WRONG_USE, str(error))
        except ServerUnreachable as error:
            return self._refuse(UNREACHABLE, str(error))
        except ServerError as error:
            return self._refuse(MISCONFIGURED, str(error))
        self._crew.say(self._start_line(hello, queues, info))
        if self._config.reload:
            self._crew.say(f"tasks: {', '.join(hello.tasks) or 'none yet'}")
        if hello.async_tasks and self._config.pool == "prefork":
            count = len(hello.async_tasks)
            self._crew.say(f"{count} async task(s) run one at a time here; --pool asyncio runs them side by side")
        return None

    async def _find_server(self) -> ServerInfo:
        attempt = 0
        while True:
            try:
                info = await self._crew.client.check_server()
                names = [queue.name for queue in self._crew.queues]
                await self._crew.run(ops.announce_queues(self._crew.client.prefix, names))
                return info
            except ServerBusy as error:
                attempt += 1
                self._crew.health.note(error)
            await asyncio.sleep(backoff_s(attempt, 1.0))

    def _refuse(self, code: int, text: str) -> int:
        print(f"headrace worker: {text}", file=sys.stderr, flush=True)
        return code

    def _start_line(self, hello: Hello, queues: list[str], info: ServerInfo) -> str:
        config = self._config
        slots = f" ×{config.slots}" if config.slots > 1 else ""
        if config.weights:
            order = ", ".join(f"{name}={share}" for name, share in config.weights.items()) + " (weighted)"
        else:
            order = ", ".join(queues) + (" (strict)" if len(queues) > 1 else "")
        return (
            f"headrace {__version__} worker {config.worker_id} · {config.pool} ×{config.children}{slots} · {order} · "
            f"{len(hello.tasks)} task(s) · {masked_url(hello.url)} ({info})"
        )

    def _duties(self) -> list[Duty]:
        return [
            self._roster,
            Leases(self._crew),
            Deadlines(self._crew, self._errands),
            Tender(self._crew, self._schedules),
            self._schedules,
            self._presence,
            Historian(self._crew),
            MemoryLimit(self._crew),
            self._systemd,
        ]

    # Run

    async def _repeat(self, duty: Duty) -> None:
        while True:
            try:
                pause_s = await duty.run_once()
            except Exception:  # a duty goes on, and its bug is reported
                self._crew.say(f"our bug in {type(duty).__name__}, going on: {traceback.format_exc()}")
                pause_s = 1.0
            await asyncio.sleep(pause_s)

    def _keep(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _until_told(self) -> int:
        """Wait for a reason to end; the exit code if all goes well from then on."""
        while not self._told.is_set():
            if self._roster.failed:
                self._crew.say(self._roster.failed)
                return BROKEN
            if self._roster.is_finished:
                return OK
            if self._is_idle_too_long():
                self._crew.say(f"nothing has run for {self._config.max_idle_ms / 1000:g} s: ending")
                return OK
            if self._crew.health.is_denied_for_good:
                self._crew.say("the server has refused this worker for 5 minutes: giving up")
                return MISCONFIGURED
            if self._roster.needs_spawner:
                await self._start_spawner()
            await _wait(self._told, 0.05)
        return OK

    def _is_idle_too_long(self) -> bool:
        most_ms = self._config.max_idle_ms
        if not most_ms:
            return False
        crew, now = self._crew, time.monotonic()
        is_ready = any(child.was_ready for child in crew.living())
        if not is_ready or self.jobs_done != self._jobs_seen or any(crew.running(child) for child in crew.living()):
            self._jobs_seen, self._active_s = self.jobs_done, now
        return (now - self._active_s) * 1000 >= most_ms

    async def _start_spawner(self) -> None:
        try:
            hello = await self._launcher.start(self._config)
        except SpawnFailed as error:
            text = str(error)
        else:
            text = hello.error
            if not text and hello.schedules != self._crew.schedules:
                self._crew.schedules = hello.schedules
        if text:
            self._crew.say(f"no spawner: {text}; trying again")
            await _wait(self._told, 1.0)
        else:
            self._roster.needs_spawner = False

    def _bury(self, death: Death) -> None:
        self._roster.bury(death)

    # Signals and commands

    def _install_signals(self) -> None:
        loop = asyncio.get_running_loop()
        meanings: list[tuple[int, Callable[[], None]]] = [
            (signal.SIGTERM, lambda: self._tell_stop(signal.SIGTERM)),
            (signal.SIGINT, lambda: self._tell_stop(signal.SIGINT)),
            (signal.SIGTSTP, lambda: self._obey("quiet")),
            (signal.SIGCONT, lambda: self._obey("resume")),
            (signal.SIGUSR1, lambda: self._obey("stacks")),
            (signal.SIGTTIN, lambda: self._obey("stacks")),
            (signal.SIGHUP, lambda: self._keep(self._reload())),
            (signal.SIGCHLD, self._roster.collect),
        ]
        for number, act in meanings:
            loop.add_signal_handler(number, act)
            self._handled.append(number)
        self._roster.collect()

    async def _reload(self) -> None:
        self._systemd.tell_reloading()
        await self._reloader.run_once(["on SIGHUP"])
        self._systemd.tell_reloaded()

    def _tell_stop(self, number: int) -> None:
        self._signals.append(number)
        self._told.set()
        self._roster.changed.set()

    def _obey(self, command: str) -> None:
        """What an operator may ask for, by signal or from afar."""
        if command == "stop":
            self._tell_stop(signal.SIGTERM)
        elif command in ("quiet", "resume"):
            is_quiet = command == "quiet"
            if is_quiet != self._is_quiet:
                self._is_quiet = is_quiet
                self._crew.set_quiet(is_quiet)
                self._crew.say("quiet: running jobs finish, no other is taken" if is_quiet else "taking jobs again")
        elif command == "stacks":
            self._show_stacks()
        elif command == "kill":
            self._kill_running()
        else:
            self._crew.say(f"an operator asked for {command!r}, which this version does not know")

    def _kill_running(self) -> None:
        """End the processes of the jobs that run now; those have failed, or are tried again as their policies say."""
        for child in self._crew.living():
            jobs = [job_id for _, job_id in self._crew.running(child)]
            if jobs:
                self._crew.say(
                    f"an operator kills child {child.number} (pid {child.pid}), which runs {', '.join(jobs[:5])}"
                )
                child.overdue.update(jobs)
                self._crew.kill(child, "an operator killed its process")

    def _show_stacks(self) -> None:
        for child in self._crew.living():
            for queue, job_id in self._crew.running(child):
                self._crew.say(f"child {child.number} (pid {child.pid}) runs job {job_id} of queue {queue}")
            send_signal(child.pid, signal.SIGUSR1)
        faulthandler.dump_traceback(file=sys.stderr, all_threads=True)

    def _state(self) -> str:
        return "stopping" if self._roster.is_stopping else "quiet" if self._is_quiet else "running"

    # End

    async def _end(self, code: int) -> int:
        """Drain: children finish what they run, leases beating; after the grace, or a second signal, at once."""
        crew, config = self._crew, self._config
        self._roster.is_stopping = True
        self._systemd.tell_stopping()
        for child in crew.living():
            crew.ask_to_stop(child)
        if crew.living() and self._signals:
            running = sum(len(crew.running(child)) for child in crew.living())
            again = "another Ctrl-C" if self._signals[-1] == signal.SIGINT else "a second SIGTERM"
            grace_s = config.grace_ms / 1000
            crew.say(f"stopping: {running} running job(s) have {grace_s:g} s; {again} hands them back at once")
        ends = time.monotonic() + config.grace_ms / 1000
        while crew.living() and time.monotonic() < ends and len(self._signals) < 2:
            self._roster.changed.clear()
            await _wait(self._roster.changed, min(0.25, max(0.0, ends - time.monotonic())))
            self._ask_again()
        if crew.living():
            running = sum(len(crew.running(child)) for child in crew.living())
            await self._kill_all()
            if running:
                crew.say(f"{running} running job(s) were handed back, no attempt counted")
                code = code or (INTERRUPTED if self._signals and self._signals[-1] == signal.SIGINT else TERMINATED)
        left = await self._errands.finish(ERRANDS_GRACE_S)
        if left:
            crew.say(f"the server is away: what {left} consumer(s) held is taken over when their leases end")
        crew.say("stopped")
        return code

    def _ask_again(self) -> None:
        """A child that was being forked when the others were asked."""
        for child in self._crew.living():
            if not child.is_stopping:
                self._crew.ask_to_stop(child)

    async def _kill_all(self) -> None:
        for child in self._crew.living():
            self._crew.kill(child, "worker stopped")
        ends = time.monotonic() + KILL_WAIT_S
        while self._crew.living() and time.monotonic() < ends:
            self._roster.changed.clear()
            await _wait(self._roster.changed, 0.1)

    async def _leave(self) -> None:
        tasks = list(self._tasks)
        while self._tasks:
            # More than once: asyncio.wait_for of Python 3.11 loses a cancellation that comes together with its result.
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(self._tasks, timeout=0.1)
        await asyncio.gather(*tasks, return_exceptions=True)
        for number in self._handled:
            asyncio.get_running_loop().remove_signal_handler(number)
        await self._vitals.aclose()
        self._launcher.close()
        if self._crew.is_connected:
            if self._handled:
                await self._presence.leave()
            await self._crew.client.aclose()


async def _wait(event: asyncio.Event, timeout_s: float) -> None:
    try:
        await asyncio.wait_for(event.wait(), timeout_s)
    except TimeoutError:
        return


def _threads_text(names: list[str]) -> str:
    shown = ", ".join(names[:5])
    return (
        f"the app started {len(names)} thread(s) while it was imported ({shown}); processes forked from it "
        "would inherit their locks: start them in @app.on_start instead, or use --start spawn"
    )
