"""A process dies at each point where it could leave something half done; another goes on, and every job runs.

`url` sees afterwards that every invariant of the data holds, as `headrace check` does.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from itertools import cycle
from pathlib import Path

import pytest
from scenario_lab import HERE, Lab, until
from test_faults import POOLS
from ticks import assert_each_tick_made_one_job, wait_for_ticks

from headrace import crash
from headrace.engine.call import script
from headrace.engine.keys import queue_keys
from headrace.testing import FaultProxy, runs

LONG = pytest.mark.long
SLOTS = 2


def phases(*names: str) -> list[str]:
    return [f"{name}.{phase}" for name in names for phase in crash.PHASES]


def points(short: list[str], all_of_them: list[str], pools: list[str]) -> list[object]:
    """The short ones with one pool each, in turn; the whole product in the long run."""
    picked = dict(zip(short, cycle(pools), strict=False))
    return [
        pytest.param(point, pool, id=f"{point} {pool}", marks=[] if picked.get(point) == pool else LONG)
        for point in all_of_them
        for pool in pools
    ]


@pytest.fixture
def once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Who dies at the point leaves word here, and nobody else dies."""
    found = tmp_path / "died"
    monkeypatch.setenv("HEADRACE_CRASH_ONCE", str(found))
    return found


def died(once: Path) -> tuple[str, int]:
    """The point and the pid, as soon as it has happened."""
    word: list[str] = until(lambda: once.exists() and once.read_text().split(), what="the crash")
    return word[0], int(word[1])


def all_ran(lab: Lab, count: int) -> None:
    """Each job ran to its end, nothing is left, and no more ran twice than one process can have had in hand."""
    until(lambda: len(lab.ends()) == count, timeout_s=60, what=f"{count} jobs ended")
    until(lambda: not lab.live_jobs(), timeout_s=60, what="nothing left anywhere")
    assert set(range(count)) == set(lab.starts())
    assert sum(lab.starts().values()) - count <= SLOTS


CHILD = [*phases("open", "claim", "settle"), "run.before", "run.mid", "run.after"]
CHILD_SHORT = ["settle.after_send", "claim.after_send", "run.mid"]


@pytest.mark.parametrize(("point", "pool"), points(CHILD_SHORT, CHILD, list(POOLS)))
def test_a_child_dies_and_is_replaced(
    lab: Lab, once: Path, monkeypatch: pytest.MonkeyPatch, point: str, pool: str
) -> None:
    """At its second settle, its second claim, its second job (its first where each job has a process of its own)."""
    is_first = point.startswith("open") or (pool == "fork" and point.startswith("run"))
    monkeypatch.setenv("HEADRACE_CRASH", point if is_first else f"{point}:2")
    for n in range(12):
        lab.app.enqueue("ledger.work", n, 0.01)
    worker = lab.start(*POOLS[pool])
    name, pid = died(once)
    assert name == point
    assert pid != worker.process.pid
    all_ran(lab, 12)
    assert 0 == worker.terminate()


@pytest.mark.parametrize(
    ("point", "pool"),
    points(["adopt.after_send", "give_back.after_send"], phases("adopt", "give_back"), ["prefork", "asyncio"]),
)
def test_a_child_dies_as_it_clears_up_after_a_lost_reply(
    lab: Lab, once: Path, monkeypatch: pytest.MonkeyPatch, point: str, pool: str
) -> None:
    """What it had claimed unheard comes back."""
    monkeypatch.setenv("HEADRACE_CRASH", point)
    with FaultProxy(lab.url) as link:
        lab.url = link.url
        for n in range(12):
            lab.app.enqueue("ledger.work", n, 0.01)
        link.lose_reply(runs("settle"))
        lab.start(*POOLS[pool])
        assert point == died(once)[0]
        all_ran(lab, 12)
        assert 0 == lab.workers[0].terminate()


@pytest.mark.parametrize(
    ("point", "pool"),
    points(
        ["progress.after_send", "save.after_send", "stream.after_send"],
        phases("progress", "lines", "save", "stream"),
        ["prefork", "asyncio", "fork"],
    ),
)
def test_a_child_dies_as_its_job_reports(
    lab: Lab, once: Path, monkeypatch: pytest.MonkeyPatch, point: str, pool: str
) -> None:
    monkeypatch.setenv("HEADRACE_CRASH", point)
    for n in range(4):
        lab.app.enqueue("ledger.yields" if point.startswith("stream") else "ledger.tells", n)
    lab.start(*POOLS[pool])
    assert point == died(once)[0]
    all_ran(lab, 4)


@pytest.mark.parametrize(("point", "pool"), points(["release.after_send"], phases("release"), list(POOLS)))
def test_a_child_dies_as_it_ends_its_session(
    lab: Lab, once: Path, monkeypatch: pytest.MonkeyPatch, point: str, pool: str
) -> None:
    """Its supervisor ends it instead: no session is left."""
    monkeypatch.setenv("HEADRACE_CRASH", point)
    worker = lab.start(*POOLS[pool])
    lab.app.enqueue("ledger.work", 0).result(timeout=20)
    worker.process.send_signal(signal.SIGTERM)
    assert worker.process.pid != died(once)[1]
    worker.process.wait(40)
    assert set() == lab.sessions()
    all_ran(lab, 1)


SUPERVISOR = [*phases("announce", "beat", "renew", "tally", "tend"), "spawn.before", "spawn.after"]
SUPERVISOR_SHORT = ["tend.after_send"]


@pytest.mark.parametrize(("point", "pool"), points(SUPERVISOR_SHORT, SUPERVISOR, ["prefork", "asyncio"]))
def test_a_supervisor_dies_and_another_worker_takes_over(
    lab: Lab, once: Path, monkeypatch: pytest.MonkeyPatch, point: str, pool: str
) -> None:
    """Its children go with it; when their leases end, their jobs run elsewhere."""
    for n in range(30):
        lab.app.enqueue("ledger.work", n, 0.05)
    repeats = point.startswith(("renew", "tend"))
    monkeypatch.setenv("HEADRACE_CRASH", f"{point}:2" if repeats else point)
    doomed = lab.start(*POOLS[pool], "--lease", "2", wait=False)
    monkeypatch.delenv("HEADRACE_CRASH")
    lab.start(*POOLS[pool], "--lease", "2", wait=False)
    assert (point, doomed.process.pid) == died(once)
    assert -signal.SIGKILL == doomed.process.wait(20)
    all_ran(lab, 30)


SCHEDULES = phases("fire", "schedule_look", "schedule_put", "schedule_renew")


@pytest.mark.parametrize(
    "point", [point if point == "schedule_put.after_send" else pytest.param(point, marks=LONG) for point in SCHEDULES]
)
def test_a_supervisor_dies_around_a_tick(lab: Lab, once: Path, monkeypatch: pytest.MonkeyPatch, point: str) -> None:
    """As it declares, looks, fires or says that its code is there still: each tick makes one job."""
    monkeypatch.setenv("HEADRACE_CRASH", point)
    doomed = lab.start("--processes", "1", "--lease", "2", app="clockwork:app", wait=False)
    monkeypatch.delenv("HEADRACE_CRASH")
    lab.start("--processes", "1", "--lease", "2", app="clockwork:app", wait=False)
    assert (point, doomed.process.pid) == died(once)
    wait_for_ticks(lab, 3)
    assert_each_tick_made_one_job(lab)


@pytest.mark.parametrize(("point", "pool"), points(["release.after_send"], phases("release"), ["prefork", "asyncio"]))
def test_a_supervisor_dies_as_it_gives_back_a_dead_childs_jobs(
    lab: Lab, once: Path, monkeypatch: pytest.MonkeyPatch, point: str, pool: str
) -> None:
    """Whether that has reached the server or not."""
    monkeypatch.setenv("HEADRACE_CRASH", point)
    doomed = lab.start(*POOLS[pool], "--lease", "2")
    monkeypatch.delenv("HEADRACE_CRASH")
    for n in range(6):
        lab.app.enqueue("ledger.work", n, 0.3)
    os.kill(lab.pid_of(0), signal.SIGKILL)
    assert (point, doomed.process.pid) == died(once)
    lab.start(*POOLS[pool], "--lease", "2")
    all_ran(lab, 6)


@pytest.mark.parametrize("point", ["kill.before", pytest.param("kill.after", marks=LONG)])
def test_a_supervisor_dies_as_it_kills_an_overdue_job(
    lab: Lab, once: Path, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    """The process it had stopped does not outlive it; the job fails at its timeout elsewhere."""
    monkeypatch.setenv("HEADRACE_CRASH", point)
    arguments = ("--processes", "1", "--kill-after", "0.2", "--lease", "2")
    doomed = lab.start(*arguments)
    monkeypatch.delenv("HEADRACE_CRASH")
    job = lab.app.enqueue("ledger.holds_the_gil", 0)
    assert (point, doomed.process.pid) == died(once)
    lab.start(*arguments)
    until(lambda: lab.app.job(job.id).state == "failed", timeout_s=60)
    assert 2 == lab.starts()[0]
    until(lambda: not lab.live_jobs())


ENQUEUE = {
    "sync": "import headrace; headrace.Headrace().enqueue('ledger.work', 0)",
    "async": "import asyncio, headrace; asyncio.run(headrace.Headrace().aenqueue('ledger.work', 0))",
}


@pytest.mark.parametrize("how", ["sync", pytest.param("async", marks=LONG)])
@pytest.mark.parametrize("point", phases("enqueue"))
def test_a_producer_dies_with_its_job_stored_or_not(
    lab: Lab, once: Path, monkeypatch: pytest.MonkeyPatch, point: str, how: str
) -> None:
    """Whole or not at all: before it is sent, it is not there; later it is, and runs once."""
    assert -signal.SIGKILL == _run(lab, monkeypatch, ENQUEUE[how], point)
    assert point == died(once)[0]
    keys = queue_keys("default")
    if point == "enqueue.before_send":
        assert {} == lab.live_jobs()
        return
    until(lambda: lab.redis.llen(keys.ready) == 1, what="the job")
    lab.start("--processes", "1", "--burst", wait=False)
    all_ran(lab, 1)
    assert {0: 1} == lab.starts()


ACTS = {"cancel": "job.cancel()", "delete": "job.delete()", "requeue": "job.retry()", "watch": "job.wait(5)",
        "run_now": "app.client.run(ops.run_now(queue_keys('default'), job.id))",
        "note": "job.note('why', 'asked')", "unwatch": "job.wait(0)", "follow": "list(job.stream(timeout=5))"}  # fmt: skip


@pytest.mark.parametrize("point", [pytest.param(point, marks=LONG) for point in phases(*ACTS)])
def test_who_acts_on_a_job_dies(lab: Lab, once: Path, monkeypatch: pytest.MonkeyPatch, point: str) -> None:
    """The job is whole: what was asked for has been done to it, or has not; and can be asked for again."""
    act = point.partition(".")[0]
    job = lab.app.options(delay=1 if act == "run_now" else 0).enqueue("ledger.work", 0)
    if act == "requeue":
        job.cancel()
    start = "import headrace; from headrace.engine import ops; from headrace.engine.keys import queue_keys"
    source = f"{start}; app = headrace.Headrace(); job = app.job({job.id!r}); {ACTS[act]}"
    assert -signal.SIGKILL == _run(lab, monkeypatch, source, point)
    if act in {"delete", "cancel"}:
        monkeypatch.delenv("HEADRACE_CRASH")
        if point.endswith("before_send"):
            assert "queued" == lab.app.job(job.id).state
        lab.start("--processes", "1")
        until(lambda: not lab.live_jobs())
    else:
        if act == "requeue" and point.endswith("before_send"):
            assert lab.app.job(job.id).retry()
        monkeypatch.delenv("HEADRACE_CRASH")
        lab.start("--processes", "1")
        all_ran(lab, 1)


def _run(lab: Lab, monkeypatch: pytest.MonkeyPatch, source: str, point: str) -> int:
    """The exit code. The server knows the script: else what was sent asks only whether it does."""
    lab.redis.script_load(script(point.partition(".")[0]).source)
    monkeypatch.setenv("HEADRACE_CRASH", point)
    return subprocess.run(
        [sys.executable, "-c", source], cwd=HERE, timeout=60, stderr=subprocess.DEVNULL,
        env={**os.environ, "HEADRACE_URL": lab.url},
    ).returncode  # fmt: skip


def test_every_point_is_tried() -> None:
    """No point is without a test here."""
    tried = {*CHILD, *SUPERVISOR, *SCHEDULES, "kill.before", "kill.after"}
    tried |= {*phases("adopt", "give_back", "progress", "lines", "save", "stream", "release", "enqueue", *ACTS)}
    tried |= {*phases("arrive", "flow_put", "link", "limit_hold", "grow", "expect")}
    tried |= {*phases("grow_clear")}  # cut off at each call by tests/engine/test_growing.py
    assert set(crash.POINTS) == tried


FLOW = "from chain_jobs import double, one, text; (one.call(1) >> double >> text).enqueue()"
DEPENDENT = "from chain_jobs import app, one, says; says.options(depends_on=one.enqueue(1)).enqueue('after')"


@pytest.mark.parametrize(
    "point", [point if point == "arrive.after_send" else pytest.param(point, marks=LONG) for point in phases("arrive")]
)
def test_a_child_dies_as_it_passes_a_result_to_another_queue(
    lab: Lab, once: Path, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    """The letter was written with the job's end: another brings it, and the next step runs once."""
    monkeypatch.setenv("HEADRACE_CRASH", point)
    lab.start("default", "other", "--processes", "2", app="chain_jobs:app")
    assert produce(lab, FLOW) == 0
    assert point == died(once)[0]
    until(lambda: len(lab.lines("start")) == 3, timeout_s=30)
    assert [row[0] for row in lab.lines("start")] == ["one", "double", "text"]


@pytest.mark.parametrize(
    ("point", "runs_all"),
    [
        pytest.param("flow_put.before_send", False, marks=LONG),
        pytest.param("flow_put.after_send", False, marks=LONG),
        pytest.param("flow_put.after_reply", False, marks=LONG),
        pytest.param("enqueue.before_send", False, marks=LONG),
        pytest.param("enqueue.before_send:2", False, marks=LONG),
        pytest.param("enqueue.after_send:3", True, marks=LONG),
        ("flow_put.before_send:2", True),
    ],
)
def test_a_producer_dies_as_it_stores_a_flow(
    lab: Lab, once: Path, monkeypatch: pytest.MonkeyPatch, point: str, runs_all: bool
) -> None:
    """Either all of it runs, or nothing: what would wait for ever is cancelled after a minute."""
    monkeypatch.setenv("HEADRACE_CRASH", point)
    assert produce(lab, FLOW) == -signal.SIGKILL
    assert point.partition(":")[0] == died(once)[0]
    monkeypatch.delenv("HEADRACE_CRASH")
    lab.start("default", "other", "--processes", "1", app="chain_jobs:app")
    if runs_all:
        until(lambda: len(lab.lines("start")) == 3, timeout_s=30)
        return
    waiting = [lab.redis.hlen(f"{queue_keys(name).base}waiting") for name in ("default", "other")]
    assert sum(waiting) in (0, 1, 2)
    keys = [f"{queue_keys(name).base}{place}" for name in ("default", "other") for place in ("waiting", "incomplete")]
    until(lambda: not lab.redis.exists(*keys), timeout_s=90, what="the flow is given up")
    assert not lab.lines("start")


GROWS = "from growing_jobs import crawl, end; (crawl.call('r', 1, 2) >> end).enqueue()"


@pytest.mark.parametrize(
    "point",
    [point if point == "grow.after_send" else pytest.param(point, marks=LONG) for point in phases("grow", "expect")],
)
def test_a_child_dies_as_its_job_adds_to_its_flow(
    lab: Lab, once: Path, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    """Each added step is there once, and the last step waits for all of them."""
    monkeypatch.setenv("HEADRACE_CRASH", point)
    lab.start("default", "other", "--processes", "2", app="growing_jobs:app")
    monkeypatch.delenv("HEADRACE_CRASH")
    assert produce(lab, GROWS) == 0
    assert point == died(once)[0]
    until(lambda: [row for row in lab.lines("start") if row[0] == "end"], timeout_s=60)
    rows = [row[:2] for row in lab.lines("start")]
    assert rows[-1][0] == "end"
    assert {"r", "r0", "r1"} == {row[1] for row in rows if row[0] == "far"}
    until(lambda: not lab.live_jobs(), timeout_s=40)


@pytest.mark.parametrize("point", [pytest.param(point, marks=LONG) for point in phases("link")])
def test_a_producer_dies_as_it_links_a_job(lab: Lab, once: Path, monkeypatch: pytest.MonkeyPatch, point: str) -> None:
    """Who tends the queue links it: it starts when the other has ended."""
    monkeypatch.setenv("HEADRACE_CRASH", point)
    assert produce(lab, DEPENDENT) == -signal.SIGKILL
    monkeypatch.delenv("HEADRACE_CRASH")
    lab.start("default", "--processes", "1", app="chain_jobs:app")
    until(lambda: [row[0] for row in lab.lines("start")] == ["one", "says"], timeout_s=40)


@pytest.mark.parametrize(
    "point",
    [point if point == "limit_hold.after_send" else pytest.param(point, marks=LONG) for point in phases("limit_hold")],
)
def test_a_child_dies_as_it_tells_of_a_429(
    lab: Lab, once: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, point: str
) -> None:
    """Whether the limit is held or not, the job runs again, and so do the others."""
    monkeypatch.setenv("HEADRACE_CRASH", point)
    lab.start("--processes", "1", app="flow_jobs:app")
    code = f"from flow_jobs import asks; [asks.enqueue(n, 'api', {str(tmp_path / 'gate')!r}) for n in range(3)]"
    monkeypatch.delenv("HEADRACE_CRASH")
    assert produce(lab, code) == 0
    assert point == died(once)[0]
    until(lambda: len(lab.lines("start")) == 4, timeout_s=40)
    until(lambda: not lab.live_jobs(), timeout_s=40)


def produce(lab: Lab, code: str) -> int:
    """Run a producer of the chain's jobs; its exit code."""
    environment = {**os.environ, "HEADRACE_URL": lab.url, "LEDGER": str(lab.ledger)}
    return subprocess.run([sys.executable, "-c", code], cwd=HERE, env=environment).returncode
