"""The page docs/versus.md, made from the rows of a run. Written by hand is only what holds of any run, or was found while it was set up."""

from __future__ import annotations

import math
import re
from typing import Any

Row = dict[str, Any]

TITLES = {
    "sigterm": "restarts by SIGTERM",
    "sigkill": "restarts by SIGKILL",
    "poison": "a poison job",
    "server_restart": "server killed",
    "full_server": "server full",
    "cut_link": "link cut 20 s",
    "dead_link": "connections dead for good",
}


def page(run: dict[str, Any]) -> str:
    """The whole page.

    Args:
        run: what run.py writes as JSON.
    """
    rows, plan = run["rows"], run["plan"]
    parts = [_head(run), _summary(run)]
    for scenario, title in TITLES.items():
        found = [row for row in rows if row["scenario"] == scenario]
        if found:
            parts += [f"## {title[0].upper()}{title[1:]}", _told(scenario, plan), _details(scenario, found, plan)]
    parts += ["## Where headrace is not best", _behind(rows), "## How each was set up", _settings(run), _limits(plan)]
    return "\n\n".join(parts) + "\n"


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _head(run: dict[str, Any]) -> str:
    plan = run["plan"]
    return f"""# The same chaos, eight libraries

What becomes of jobs when workers are restarted and killed, the server dies or is full, and links fail: the same jobs, the same faults at the
same moments, for each library on its newest release, with options that its own help and docstrings name. `make versus SEED={plan["seed"]}` makes
this page (half an hour; `make versus ONLY=rq,headrace SCENARIO=sigkill JOBS=400` prints a part of it). We wrote headrace, and chose the faults: run it
yourself, and read the [set-up](#how-each-was-set-up).

Seed {plan["seed"]}, {plan["jobs"]:,} jobs, {plan["restarts"]} restarts; Python {run["python"]}, {run["server"]} on loopback, {run["cores"]} cores,
{run["lanes"]} of the runs below side by side. {run.get("note", "")}{_again(run)}"""


def _again(run: dict[str, Any]) -> str:
    """Says so when the page is made of more than one run."""
    names = run.get("again")
    if not names:
        return ""
    return f""" The figures of {" and ".join(names)} are of a later run of the same plan and seed: after the
first one their settings were changed, so they met another load than the others."""


def _summary(run: dict[str, Any]) -> str:
    by = {(row["library"], row["scenario"]): row for row in run["rows"]}
    scenarios = [name for name in TITLES if any(row["scenario"] == name for row in run["rows"])]
    body = [
        [
            f"**{name}** {told['versions'][0].split()[1] if told['versions'] else ''}",
            *(_brief(by.get((name, scenario)), told) for scenario in scenarios),
        ]
        for name, told in run["libraries"].items()
    ]
    words = """*lost*: acknowledged, never run, and in no queue. *not run*: still in a queue, or held by a worker that is gone, when the time was up.
*failed*: given up by the library, which says so. *doubled*: ran to its end more than once. The seconds are from the end of the fault to the last
job's end; *0 s*: all was done before."""
    return table(["", *(TITLES[name] for name in scenarios)], body) + "\n\n" + words


def _brief(row: Row | None, told: dict[str, Any]) -> str:
    if row is None:
        return told.get("missing") or "–"
    if "error" in row:
        return "the harness failed"
    parts = [f"{row[key]} {word}" for key, word in _BAD.items() if row[key]]
    if row["lost"]:
        parts[0] = f"**{parts[0]}**"
    if row["scenario"] == "poison":
        given_up = "" if row["notes"]["poison_is"] == "failed" else ", not given up yet"
        parts = [f"{_counted(row['notes']['deliveries'], 'delivery', 'deliveries')}{given_up}", *parts]
    elif row["recovered_s"] is not None:
        parts.append(_seconds(row["recovered_s"]))
    if not row["works"]:
        parts.append("**no new job run**")
    return ", ".join(parts)


_BAD = {"lost": "lost", "unrun": "not run", "failed": "failed", "doubled": "doubled"}


def _counted(count: int, one: str, many: str) -> str:
    return f"{count:,} {one if count == 1 else many}"


def _seconds(value: float) -> str:
    return "0 s" if value == 0 else "< 1 s" if value < 1 else f"{value:.0f} s"


def _told(scenario: str, plan: dict[str, Any]) -> str:
    jobs = f"{plan['jobs']:,} jobs that do nothing, on three queues"
    return {
        "sigterm": f"{jobs}; the worker is told to stop {plan['restarts']} times, 20 ms to 2 s after its first job, and a fresh one is started as soon as "
        f"it has gone. One that is still there after {plan['stop_s']:g} s is killed (*late*), and so is what it leaves behind.",
        "sigkill": f"{jobs}; {plan['restarts']} times, 20 ms to 2 s after its first job, all processes of the worker are killed at once, as when a container or a "
        "machine dies, and a fresh one is started.",
        "poison": "One job kills the process that runs it, each time, among fifty good jobs of 10 ms. Watched for 30 s. A main process that ends by itself is "
        "started again after a second, as systemd would.",
        "server_restart": f"{max(plan['jobs'] // 4, 30):,} jobs at 50 a second; three times the server (append-only file, `appendfsync always`) is killed, and started "
        "after half a second. A refused enqueue is not tried again by the producer.",
        "full_server": f"{max(plan['jobs'] // 5, 30):,} jobs of 10 ms wait when the server's memory is declared full (`noeviction`) for 15 s; the producer goes on at 20 a "
        "second. Then there is room again.",
        "cut_link": "For 20 s nothing passes between worker and server, and nobody is told; then what was under way arrives. The producer has a link of its own, "
        "and goes on at 20 a second.",
        "dead_link": "The worker's open connections go silent for good, and nobody is told, as behind a router that has forgotten them; new connections work. The "
        "seconds count from 20 s after that.",
    }[scenario]


def _details(scenario: str, rows: list[Row], plan: dict[str, Any]) -> str:
    columns = {
        "": lambda row: row["library"],
        "acknowledged": lambda row: f"{row['acknowledged']:,}",
        "lost": lambda row: str(row["lost"]),
        f"not run in {plan['recovery_s']:g} s": lambda row: str(row["unrun"]),
        "failed": lambda row: str(row["failed"]),
        "doubled": lambda row: str(row["doubled"]),
        "started again": lambda row: str(row["again"]),
        "recovered after": lambda row: "–" if row["recovered_s"] is None else _seconds(row["recovered_s"]),
        **_OWN.get(scenario, {}),
        "worker at the end": _worker,
    }
    body = [
        [show(row) if "error" not in row else row["library"] if not name else "?" for name, show in columns.items()]
        for row in rows
    ]
    return table(list(columns), body)


def _worker(row: Row) -> str:
    ended = f"; ended by itself {_counted(row['deaths'], 'time', 'times')}" if row["deaths"] else ""
    if row["works"]:
        return f"works{ended}"
    return f"**ran no new jobs in 30 s**, {row['alive']} of {row['mains']} mains live{ended}"


def _told_producer(row: Row) -> str:
    told = row["notes"]["told"]
    if not told:
        return "nothing: all were taken"
    words = re.sub(r"(\\[xu][0-9a-f]+)+", "…", told[0]).replace("`", "'")
    return f"{row['notes']['refused']} refused: `{words[:100]}`"


_OWN: dict[str, dict[str, Any]] = {
    "sigterm": {"late": lambda row: f"{row['notes']['late']} of {row['mains'] * row['restarts']}"},
    "poison": {
        "deliveries in 30 s": lambda row: str(row["notes"]["deliveries"]),
        "good jobs done in 30 s": lambda row: str(row["notes"]["good_done"]),
        "the poison is then": lambda row: row["notes"]["poison_is"],
    },
    "server_restart": {
        "refused": lambda row: str(row["refused"]),
        "ran though refused": lambda row: str(row["unasked"]),
    },
    "full_server": {
        "done while full": lambda row: f"{row['notes']['done_while_full']} of {row['notes']['left_when_full']}",
        "what the producer is told": _told_producer,
        "slowest answer": lambda row: f"{row['notes']['slowest_answer_s']:.1f} s",
    },
}


def _behind(rows: list[Row]) -> str:
    """Each figure in which another library did better than headrace, seconds by more than one."""
    lines = []
    for scenario, title in TITLES.items():
        found = {
            row["library"]: {**row, **row["notes"]}
            for row in rows
            if row["scenario"] == scenario and "error" not in row
        }
        ours = found.pop("headrace", None)
        for key, (word, margin) in _FEWER_IS_BETTER.items() if ours else ():
            if key not in ours:
                continue
            mine = math.inf if ours[key] is None else ours[key]
            better = {
                name: row[key] for name, row in found.items() if row[key] is not None and row[key] < mine - margin
            }
            if better:
                shown = ", ".join(
                    f"{name} {value:.0f}" for name, value in sorted(better.items(), key=lambda item: item[1])
                )
                lines.append(f"- {title}, {word}: headrace {'never' if mine == math.inf else f'{mine:.0f}'}; {shown}.")
    return "\n".join(lines) if lines else "In this run no other library had a better figure in these tables."


_FEWER_IS_BETTER = {
    "lost": ("lost", 0),
    "unrun": ("not run", 0),
    "failed": ("failed", 0),
    "doubled": ("doubled", 0),
    "again": ("started again", 0),
    "refused": ("refused enqueues", 0),
    "recovered_s": ("seconds to recover", 1.0),
    "deliveries": ("deliveries of the poison in 30 s", 0),
    "slowest_answer_s": ("seconds of the slowest answer to the producer", 1.0),
}


def _settings(run: dict[str, Any]) -> str:
    body = [
        [f"{name}", ", ".join(told["versions"]) or told.get("missing", ""), f"`{told['command']}`" + (f" and {told['more']} more" if told["more"] else ""),
         told["settings"], told["own_recovery"]]
        for name, told in run["libraries"].items()
    ]  # fmt: skip
    return (
        "Each has three processes that run one job at a time. Where a library's own recovery takes longer than the time given here, and it offers a "
        "setting for that, it is set to 30 s or less; its default is in brackets. Where one worker serves one queue only, there is one for each queue. Results are kept as each does "
        "by default.\n\n" + table(["", "versions", "worker", "set", "what it says of recovery"], body)
    )


def _limits(plan: dict[str, Any]) -> str:
    return f"""## How it is judged

- A job writes its start and its end to a log, each by one `O_APPEND` write. The producer notes each enqueue that returned. When the chaos is over, a job
  that was acknowledged and has no end is looked up in the library's own keys on the server: waiting, held, failed, or nowhere.
- After the chaos there are {plan["recovery_s"]:g} s to recover, and more as long as jobs still end; meanwhile a job a second comes to each queue, since some
  look for what was left behind only when they are busy. Then six new jobs tell whether the worker works.
- A socket timeout is set for Celery only, whose transport documents one for dead connections. Others may take one in redis-py's URL; that was not tried, and
  may change what becomes of them there.
- The settings are ours, from help texts and docstrings, not from people who run these libraries. Two were wrong and were taken back while this was set up: in one
  run each, SAQ lost 16 jobs under SIGKILL with a `sweep` every 10 s and 3 with its default, and arq left 1,610 of 4,000 jobs waiting with `max_jobs=1` and its
  default `poll_delay`, none with 0.01 s. RQ and Celery lost jobs at their defaults, too (3 in 15 SIGTERMs, 6 in 15 SIGKILLs), which were in no list of the server.
- The moments of all faults come from the seed alone, and count from the worker's first job, so that slow and fast starters are hit alike. What a fault hits
  there is up to the operating system: another run has other small numbers. A zero here is a zero in this run, not a proof.
- All of them promise *at least once* at best, headrace too: a doubled job is no broken promise, but it is work done twice.
- The jobs are tiny, so what is measured is the machinery between them: claims, prefetches, acknowledgements. Speed is not compared here: several runs share
  the cores, and one job at a time in a process is little for those on one event loop. But the seconds after restarts are also those of
  a backlog: pydocket, measured apart, ran 28 jobs a second with `--concurrency 1` and 199 with its default of 10, so most of its seconds are our choice.
- A library that is done quickly is idle at more of the kills, and they hit fewer of its jobs. That headrace started none again when it was killed says this of
  it, not that it cannot happen: [`headrace torture`](howto/torture.md) kills it while it is busy, and there jobs do run again.
- A start that takes long and a stop that takes long share the cores with three other runs: *late* is partly the machine's.
- Celery has no list of failed jobs without a result backend, so its failures would show as lost; none of these jobs raises.
- The libraries keep different promises about order, priorities, results and schedules, and have users and years that headrace has not; none of that is in the table."""
