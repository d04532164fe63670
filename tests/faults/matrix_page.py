"""Run every test of the fault matrix, and write docs/fault-matrix.md: `make matrix`.

Of a run that is over, `python matrix_page.py REPORT.xml` writes it too (pytest --junitxml=REPORT.xml -o junit_family=xunit1).
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections import Counter, defaultdict
from pathlib import Path

from fault_rows import SECTIONS, Row

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/fault-matrix.md"
HEAD = """\
# The fault matrix

Every fault and bad input that headrace answers for, what it must do then, and the tests that show it. `make matrix` runs these tests and writes
this page; the same tests run with `make test`, the long ones with `make full`.
"""


def all_tests() -> list[str]:
    return sorted({test for rows in SECTIONS.values() for row in rows for test in row.tests})


def run(tests: list[str]) -> dict[str, Counter[str]]:
    """How often each passed, failed, was skipped."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        subprocess.run(
            [
                sys.executable, "-m", "pytest", "-q", "-n", "2", "-m", "long or not long", "--timeout", "1200",
                f"--junitxml={report}", "-o", "junit_family=xunit1", *(f"tests/{test}" for test in tests),
            ],
            cwd=ROOT,
        )  # fmt: skip
        return read(report)


def read(report: Path) -> dict[str, Counter[str]]:
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for case in ElementTree.parse(report).iter("testcase"):
        name = str(case.get("name")).split("[")[0]
        inner = str(case.get("classname")).split(".")[-1]
        file = str(case.get("file")).removeprefix("tests/")
        middle = f"{inner}::" if inner.startswith("Test") else ""
        found[f"{file}::{middle}{name}"][_result(case)] += 1
    return found


def _result(case: ElementTree.Element) -> str:
    kinds = {child.tag for child in case}
    return "failed" if kinds & {"failure", "error"} else "skipped" if "skipped" in kinds else "passed"


def page(results: dict[str, Counter[str]]) -> str:
    parts = [HEAD]
    for section, rows in SECTIONS.items():
        parts.append(f"\n## {section}\n\n| when | headrace must | shown by | result |\n| --- | --- | --- | --- |\n")
        parts += [_line(row, results) for row in rows]
    return "".join(parts)


def _line(row: Row, results: dict[str, Counter[str]]) -> str:
    shown = "<br>".join(f"`{test}`" for test in row.tests) or f"*{row.absent}*"
    return f"| {row.fault} | {row.must} | {shown} | {_told(row, results)} |\n"


def _told(row: Row, results: dict[str, Counter[str]]) -> str:
    total: Counter[str] = sum((results.get(test, Counter()) for test in row.tests), Counter())
    if any(test not in results for test in row.tests):
        total["failed"] += 1
    return ", ".join(f"{count} {word}" for word, count in sorted(total.items())) or "–"


def main(reports: list[str]) -> int:
    results = read(Path(reports[0])) if reports else run(all_tests())
    PAGE.write_text(page(results), "utf8")
    bad = [test for test in all_tests() if results.get(test, Counter({"failed": 1}))["failed"]]
    print(
        f"{PAGE.relative_to(ROOT)}: {sum(map(len, SECTIONS.values()))} rows, {len(all_tests())} tests, {len(bad)} of them failed"
    )
    print(*bad, sep="\n")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
