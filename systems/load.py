"""The load tests of all systems, one after the other, and one table of their figures: `python -m systems.load` (`make load`).

Each is shorter here than by itself (`python -m systems.tracking.load --help`). Exit code 1: a promise was broken.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

from systems.common.catalogue import SYSTEMS
from systems.common.load import FIGURES

SHORT = {
    "tracking": ("--seconds", "6", "--rounds", "1", "--away", "15"),
    "analytics": ("--views", "600000", "--days", "30", "--before", "10", "--cancels", "2"),
    "activity": ("--seconds", "6", "--rounds", "2", "--away", "15", "--rate", "20"),
    "notification": ("--notices", "1500", "--rate", "40", "--away", "60", "--waiting", "300"),
}


def main() -> int:
    load = ", ".join(f"{figure:.1f}" for figure in os.getloadavg())
    where = f"{os.cpu_count()} cores, load before the start {load}; Python {platform.python_version()}"
    with tempfile.TemporaryDirectory(prefix="hr-figures-") as folder:
        figures = Path(folder) / "figures"
        told = {**os.environ, FIGURES: str(figures)}
        codes = {}
        for system in SYSTEMS:
            words = [sys.executable, "-m", f"systems.{system.name}.load", *SHORT[system.name]]
            print(f"\n$ python {' '.join(words[1:])}", flush=True)
            codes[system.name] = subprocess.run(words, env=told).returncode
        rows = [json.loads(line) for line in figures.read_text().splitlines()]
    print(f"\n{where}\n\n| system | what | figures |\n|---|---|---|")
    print(*(f"| {system} | {what} | {figure} |" for system, what, figure in rows), sep="\n")
    broken = [name for name, code in codes.items() if code]
    if broken:
        print(f"\nA promise was broken: {', '.join(broken)}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
