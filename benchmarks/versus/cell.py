"""One library in one scenario, in a process of its own: prints what became of it as one line of JSON.

python cell.py LIBRARY SCENARIO --seed N --jobs N --restarts N [--keep FOLDER]
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from chaos import SCENARIOS, laid_out
from field import Plan, load_library
from verdict import judge


def run(name: str, scenario: str, plan: Plan, folder: Path) -> dict[str, object]:
    began = time.monotonic()
    library = load_library(name)
    with laid_out(library, scenario, plan, folder) as (field, act):
        act()
        places = field.look_twice()
        figures = judge(field.logs.effects, field.logs.answers, places, field.chaos_ended_ns)
        works = field.probe()
        return {
            "library": name, "scenario": scenario, **asdict(figures), "works": works, "alive": field.crew.alive,
            "mains": field.crew.size, "deaths": field.crew.deaths, "notes": field.notes,
            "took_s": round(time.monotonic() - began, 1),
        }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peer")
    parser.add_argument("scenario", choices=SCENARIOS)
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--jobs", type=int, default=4000)
    parser.add_argument("--restarts", type=int, default=40)
    parser.add_argument("--recovery", type=float, default=120.0)
    parser.add_argument("--stop", type=float, default=10.0)
    parser.add_argument("--keep", type=Path, help="a folder for the logs")
    options = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell ignores it, and every child would
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    plan = Plan(options.seed, options.jobs, options.restarts, options.recovery, options.stop)
    with tempfile.TemporaryDirectory(prefix="versus-") as folder:
        if options.keep:
            options.keep.mkdir(parents=True, exist_ok=True)
        print(json.dumps(run(options.peer, options.scenario, plan, options.keep or Path(folder))))


if __name__ == "__main__":
    main()
