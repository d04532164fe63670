"""Run one oracle against the headrace that PYTHONPATH names, in a process of its own: what must notice a mutant.

`python oracle.py SOURCE machine` or `python oracle.py SOURCE PYTEST-ARGUMENTS …`; exit code 0: nothing was noticed,
10: something was, anything else: the oracle itself is broken.
"""

from __future__ import annotations

import re
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import redis
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

import headrace
from headrace.engine.call import script
from headrace.server import EmbeddedServer

ROOT = Path(__file__).parents[2]
MOST_EXAMPLES = 200
NOTICED, MISSED = 10, 0


def main(source: str, *arguments: str) -> int:
    assert Path(headrace.__file__).is_relative_to(source), f"{headrace.__file__} is not in {source}"
    with EmbeddedServer() as server:
        with closing(redis.Redis.from_url(server.url)) as client:
            for path in (Path(source) / "headrace/engine/lua").glob("*.lua"):
                client.script_load(script(path.stem).source.decode())
        return _machine(server.url) if arguments == ("machine",) else _tests(arguments)


def _tests(arguments: tuple[str, ...]) -> int:
    """In a process of its own: pytest wants to be first to import what it looks into."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-n0", "-p", "no:cacheprovider", "--tb=line", *arguments]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    print(done.stdout)
    verdict = done.stdout.strip().rpartition("\n")[2]
    if done.returncode == 1 and re.match(r"\d+ (failed|passed|error)", verdict):
        return NOTICED
    return done.returncode or MISSED


def _machine(url: str) -> int:
    """The same histories each time; no time is spent on making a failing one shorter."""
    sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests/engine")]
    from queue_machine import QueueMachine

    class Machine(QueueMachine):
        pass

    Machine.url = url
    quick = settings(
        max_examples=MOST_EXAMPLES, stateful_step_count=100, deadline=None, derandomize=True, database=None,
        phases=[Phase.generate], suppress_health_check=list(HealthCheck), report_multiple_bugs=False,
    )  # fmt: skip
    try:
        run_state_machine_as_test(Machine, settings=quick)  # type: ignore[no-untyped-call]
    except Exception as error:
        print(f"{type(error).__name__}: {error}"[:500])
        return NOTICED
    return MISSED


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
