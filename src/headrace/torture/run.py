"""One torture run: set the field up, let the schedule loose, drain, and judge."""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from headrace.engine.admin import count_jobs
from headrace.engine.clients import ServerConfig, SyncClient
from headrace.engine.keys import queue_keys
from headrace.errors import HeadraceError, UsageError
from headrace.server import EmbeddedServer
from headrace.testing.clock import MovableClock
from headrace.testing.proxy import FaultProxy
from headrace.torture.chaos import OF_THE_CLOCK, OF_THE_DISK, OF_THE_SERVER, Chaos, schedule
from headrace.torture.field import POOLS, Files, Member, make_producer, make_worker
from headrace.torture.judge import Verdict, judge, read_audit
from headrace.torture.ledger import Ledger
from headrace.torture.names import QUEUES
from headrace.torture.server import Victim, make_server, mends_torn_tail
from headrace.torture.watch import Watch

PRODUCERS = 2
DRAIN_S = 120.0
STOP_S = 30.0


@dataclass(frozen=True, slots=True)
class Plan:
    """`url`: a server of one's own, which is then spared; None: an embedded one with its append-only file always synced.

    `binary`: another server program than the embedded one. `ledger`: postgresql://…, or "" for SQLite.
    """

    seconds: float
    seed: int
    url: str | None = None
    binary: str | None = None
    ledger: str = ""
    keep: bool = False


@dataclass(slots=True)
class Report:
    """What happened, and the verdict. `drain_s`: from the last fault to an empty queue; None: it did not come to rest."""

    seed: int
    seconds: float
    server: str
    faults: Counter[str] = field(default_factory=Counter)
    restarts: int = 0
    enqueues_again: int = 0
    enqueues_refused: int = 0
    drain_s: float | None = None
    verdict: Verdict = field(default_factory=Verdict)
    left: dict[str, int] = field(default_factory=dict)
    folder: str = ""

    @property
    def is_good(self) -> bool:
        return self.drain_s is not None and not self.left and self.verdict.is_good


def torture(plan: Plan, say: Callable[[str], None]) -> Report:
    """Run it.

    Raises:
        UsageError: the server has jobs in the queues that are used (high, default, low).
    """
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="headrace-torture-"))
        if not plan.keep:
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
        server, clock = (None, None) if plan.url is not None else make_server(folder, plan.binary)
        if server is not None:
            stack.enter_context(server)
            if clock is None:
                say(
                    "no libfaketime here that works with this server: its clock is not moved (Debian: apt-get install libfaketime)"
                )
        url = plan.url or (server.url if server is not None else "")
        client = SyncClient(ServerConfig(url))
        stack.callback(client.close)
        report = Report(plan.seed, plan.seconds, str(client.check_server()), folder=str(folder) if plan.keep else "")
        _see_empty(client)
        files = Files(folder, plan.ledger or str(folder / "ledger.sqlite"))
        files.audit.touch()
        ledger = Ledger(files.ledger)
        ledger.create()
        with _field(files, url, plan.seed) as (workers, producers):
            victim = Victim(url, server, clock)
            watch = stack.enter_context(Watch(workers))
            stack.callback(victim.close)
            chaos = Chaos(workers, producers, victim, watch)
            faults = schedule(plan.seed, plan.seconds, leave_out=_impossible(plan, folder, server, clock, say))
            say(f"seed {plan.seed}: {len(faults)} faults in {plan.seconds:g} s, on {report.server}")
            chaos.run(faults, say=say)
            chaos.heal()
            healed = time.monotonic()
            for producer in producers:
                again, full = _stop_producer(producer)
                report.enqueues_again += again
                report.enqueues_refused += full
            if _drain(client, chaos):
                report.drain_s = time.monotonic() - healed
            report.faults, report.restarts = chaos.done, sum(worker.starts - 1 for worker in workers)
            for worker in workers:
                worker.stop(STOP_S)
        acked = [line for path in folder.glob("*.acked") for line in path.read_text().split()]
        report.left = _left(client)
        report.verdict = judge(acked, read_audit(files.audit), ledger.read(), client, watch.health)
        return report


def _impossible(
    plan: Plan, folder: Path, server: EmbeddedServer | None, clock: MovableClock | None, say: Callable[[str], None]
) -> frozenset[str]:
    """The faults that cannot be made here, or must not."""
    if server is None:
        return OF_THE_SERVER
    left_out = frozenset() if clock else OF_THE_CLOCK
    if sys.platform != "linux":
        left_out |= OF_THE_DISK
    elif not mends_torn_tail(folder, plan.binary):
        say(
            "this server goes on inside the half transaction that a torn append-only file ends with: its disk is not filled"
        )
        left_out |= OF_THE_DISK
    return left_out


def _see_empty(client: SyncClient) -> None:
    for name in QUEUES:
        counts = client.run(count_jobs(queue_keys(name, client.prefix)))
        if counts.live or counts.totals:
            raise UsageError(f"queue {name!r} has been used on this server: torture an empty one, or another database")


@contextmanager
def _field(files: Files, url: str, seed: int) -> Iterator[tuple[list[Member], list[Member]]]:
    with ExitStack() as stack:

        def link(number: int) -> FaultProxy:
            return stack.enter_context(FaultProxy(url, seed=seed + number))

        def ending(member: Member) -> Member:
            stack.callback(member.stop, 5.0)
            return member

        workers = [ending(make_worker(pool, files, link(n))) for n, pool in enumerate(POOLS)]
        producers = [ending(make_producer(n, seed, files, link(100 + n))) for n in range(PRODUCERS)]
        yield workers, producers


def _stop_producer(producer: Member) -> tuple[int, int]:
    """It ends when its last call has been stored; how many calls it had sent again, and how many a full server refused."""
    producer.stop(60.0)
    said = Path(producer.log).read_text().split()[-2:]
    again, full = (int(word) for word in said) if len(said) == 2 and all(map(str.isdigit, said)) else (0, 0)
    return again, full


def _drain(client: SyncClient, chaos: Chaos) -> bool:
    ends = time.monotonic() + DRAIN_S
    while time.monotonic() < ends:
        chaos.keep_up()
        try:
            if not any(client.run(count_jobs(queue_keys(name))).live for name in QUEUES):
                return True
        except HeadraceError:
            pass  # it was restarted just now
        time.sleep(0.05)
    return False


def _left(client: SyncClient) -> dict[str, int]:
    """Live jobs by queue: none, if all is well."""
    counts = {name: client.run(count_jobs(queue_keys(name))).live for name in QUEUES}
    return {name: count for name, count in counts.items() if count}
