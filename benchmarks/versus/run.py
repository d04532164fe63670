"""The same chaos on other job queues and on headrace, side by side: `make versus`, or

    python benchmarks/versus/run.py [--only rq,headrace] [--scenario sigkill,poison] [--jobs 400] [--seed 11]

Builds one environment a library under .versus/ by pip, runs every library in every scenario (`cell.py`, a process each, some side by side), and prints
the tables. A run of everything at full size writes docs/versus.md; every run writes benchmarks/results/versus-*.json.

    adapters/   one file a library: how it is set up, started and asked; imported only in that library's environment
    effects.py  what the jobs do      producer.py  the program that enqueues      look.py  where the jobs are
    field.py    processes and logs    chaos.py     what is done to them           cell.py  one library, one scenario
    verdict.py  logs to figures       page.py      figures to the page
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import redis

from chaos import SCENARIOS
from field import ENVIRONMENTS, HERE, ROOT, Library, Plan, load_library
from headrace.server import EmbeddedServer
from page import page

LIBRARIES = ("headrace", "rq", "celery", "dramatiq", "saq", "taskiq", "pydocket", "arq")
FULL = Plan(seed=11, jobs=4000, restarts=40, recovery_s=120, stop_s=10)
LONGEST_CELL_S = 1800
_running: set[subprocess.Popen[str]] = set()


def built(library: Library) -> str:
    """Make the library's environment if it is not there; what went wrong, or ""."""
    ready = ENVIRONMENTS / library.name / ".ready"
    wanted = " ".join(library.packages)
    if ready.exists() and ready.read_text() == wanted:
        return ""
    packages = [word.format(root=ROOT) for word in library.packages]
    for command in (
        [sys.executable, "-m", "venv", str(ENVIRONMENTS / library.name)],
        [str(library.bin / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
            return f"not installed on Python {platform.python_version()}: {said[-1] if said else 'pip failed'}"
    ready.write_text(wanted)
    return ""


def versions(library: Library) -> list[str]:
    code = "import sys; from importlib.metadata import version; print(*(f'{n} {version(n)}' for n in sys.argv[1:]), sep='\\n')"
    command = [str(library.bin / "python"), "-c", code, *library.shown]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split("\n")[:-1]


def described(name: str) -> dict[str, Any]:
    """What the page says of a library; `missing` tells why it could not be installed."""
    library = load_library(name)
    missing = built(library)
    command = library.workers[0].format(bin="", url="URL").removeprefix("/")
    return {
        "versions": [] if missing else versions(library), "missing": missing, "command": command, "more": len(library.workers) - 1,
        "settings": library.settings, "own_recovery": library.own_recovery,
    }  # fmt: skip


def cell(name: str, scenario: str, plan: Plan, keep: Path | None) -> dict[str, Any]:
    """One library in one scenario; a row with `error` when the harness failed."""
    command = [
        sys.executable, str(HERE / "cell.py"), name, scenario, "--seed", str(plan.seed), "--jobs", str(plan.jobs),
        "--restarts", str(plan.restarts), "--recovery", str(plan.recovery_s), "--stop", str(plan.stop_s),
        *(["--keep", str(keep / f"{name}-{scenario}")] if keep else []),
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    _running.add(process)
    try:
        out, err = process.communicate(timeout=LONGEST_CELL_S)
    except subprocess.TimeoutExpired:
        process.terminate()
        out, err = process.communicate()
        err += f"\nnot done in {LONGEST_CELL_S} s"
    finally:
        _running.discard(process)
    lines = out.splitlines()
    if process.returncode or not lines:
        return {"library": name, "scenario": scenario, "error": err[-2000:] or f"exit code {process.returncode}"}
    return {**json.loads(lines[-1]), "restarts": plan.restarts}


def all_cells(wanted: list[tuple[str, str]], plan: Plan, lanes: int, keep: Path | None) -> list[dict[str, Any]]:
    """All of them, some side by side; each is told when it and those before it are done. When this is interrupted, so are they."""
    rows = []
    with ThreadPoolExecutor(lanes) as pool:
        waiting = [pool.submit(cell, name, scenario, plan, keep) for name, scenario in wanted]
        try:
            for done in waiting:
                rows.append(done.result())
                print(told(rows[-1]), flush=True)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in list(_running):
                process.terminate()
            raise
    return rows


def merged(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """One run made of several: what a later one has of a library in a scenario replaces what an earlier one had.

    Raises:
        SystemExit: their plans differ.
    """
    if any(run["plan"] != runs[0]["plan"] for run in runs):
        raise SystemExit("these runs have different plans: they cannot be one page")
    rows, libraries = {}, {}
    for run in runs:
        libraries |= run["libraries"]
        rows |= {(row["library"], row["scenario"]): row for row in run["rows"]}
    again = sorted({row["library"] for run in runs[1:] for row in run["rows"]})
    return {**runs[0], "libraries": libraries, "rows": list(rows.values()), "again": again}


def _show(run: dict[str, Any], target: Path | None) -> None:
    if target:
        target.write_text(page(run))
    else:
        print("\n" + page(run))


def told(row: dict[str, Any]) -> str:
    if "error" in row:
        return f"{row['scenario']:<15} {row['library']:<9} FAILED {row['error'].splitlines()[-1]}"
    figures = (
        "acknowledged",
        "lost",
        "unrun",
        "failed",
        "doubled",
        "again",
        "recovered_s",
        "works",
        "deaths",
        "took_s",
    )
    shown = (f"{name} {row[name]:.1f}" if isinstance(row[name], float) else f"{name} {row[name]}" for name in figures)
    return f"{row['scenario']:<15} {row['library']:<9} {', '.join(shown)} {row['notes']}"


def server_name() -> str:
    with EmbeddedServer() as server:
        client: Any = redis.Redis.from_url(server.url, protocol=2)
        info = client.info("server")
        client.close()
    return f"{info.get('server_name', 'redis').capitalize()} {info.get('valkey_version') or info['redis_version']}"


def _names(known: tuple[str, ...], asked: str) -> list[str]:
    names = [name for name in asked.split(",") if name] or list(known)
    if unknown := set(names) - set(known):
        raise SystemExit(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(known)}")
    return names


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help=f"some of {','.join(LIBRARIES)}")
    parser.add_argument("--scenario", default="", help=f"some of {','.join(SCENARIOS)}")
    parser.add_argument("--jobs", type=int, default=FULL.jobs)
    parser.add_argument("--restarts", type=int, default=FULL.restarts)
    parser.add_argument("--recovery", type=float, default=FULL.recovery_s, help="seconds given after the chaos")
    parser.add_argument("--seed", type=int, default=FULL.seed)
    parser.add_argument("--lanes", type=int, default=4, help="runs side by side")
    parser.add_argument("--keep", type=Path, help="a folder for all logs")
    parser.add_argument(
        "--rows",
        type=Path,
        nargs="+",
        help="make the page anew from the JSON of earlier runs of one plan; later ones replace",
    )
    parser.add_argument(
        "--note", default="", help="a sentence for the page's head: what else is to be known of the run"
    )
    parser.add_argument("--page", type=Path, help="write the page here; a full run writes docs/versus.md")
    options = parser.parse_args()
    names, scenarios = _names(LIBRARIES, options.only), _names(tuple(SCENARIOS), options.scenario)
    plan = Plan(options.seed, options.jobs, options.restarts, options.recovery, FULL.stop_s)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if options.rows:
        found = merged([json.loads(path.read_text()) for path in options.rows])
        _show({**found, "note": options.note}, options.page)
        return 0
    libraries = {name: described(name) for name in names}
    there = [name for name in names if not libraries[name]["missing"]]
    rows = all_cells([(name, scenario) for scenario in scenarios for name in there], plan, options.lanes, options.keep)
    run = {
        "plan": asdict(plan), "python": platform.python_version(), "cores": os.cpu_count(), "lanes": options.lanes,
        "server": server_name(), "libraries": libraries, "rows": rows, "note": options.note,
    }  # fmt: skip
    results = ROOT / "benchmarks" / "results"
    results.mkdir(exist_ok=True)
    (results / time.strftime("versus-%Y%m%dT%H%M%S.json")).write_text(json.dumps(run, indent=1))
    is_full = (
        plan == Plan(plan.seed, *list(asdict(FULL).values())[1:])
        and len(names) == len(LIBRARIES)
        and len(scenarios) == len(SCENARIOS)
    )
    _show(run, options.page or (ROOT / "docs" / "versus.md" if is_full else None))
    return int(any("error" in row for row in rows))


if __name__ == "__main__":
    sys.exit(main())
