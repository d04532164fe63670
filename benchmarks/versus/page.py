"""The page docs/versus.md, made from the rows of a run. Nothing in it is written by hand but what holds of any run."""

from __future__ import annotations

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
same moments, for each library on its newest release, set up for production as its own documentation says. `make versus SEED={plan["seed"]}` makes
this page (half an hour; `make versus ONLY=rq,headrace SCENARIO=sigkill JOBS=400` prints a part of it). We wrote headrace, and chose the faults: run it
yourself, and read the [set-up](#how-each-was-set-up).

Seed {plan["seed"]}, {plan["jobs"]:,} jobs, {plan["restarts"]} restarts; Python {run["python"]}, {run["server"]} on loopback, {run["cores"]} cores,
{run["lanes"]} of the runs below side by side."""


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
        parts = [f"{row['notes']['deliveries']:,} deliveries{given_up}", *parts]
    elif row["recovered_s"] is not None:
        parts.append(_seconds(row["recovered_s"]))
    if not row["works"]:
        parts.append("**worker dead**")
    return ", ".join(parts)


_BAD = {"lost": "lost", "unrun": "not run", "failed": "failed", "doubled": "doubled"}


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
    ended = f"; ended by itself {row['deaths']} times" if row["deaths"] else ""
    if row["works"]:
        return f"works{ended}"
    return f"**runs nothing**, {row['alive']} of {row['mains']} mains live{ended}"


def _told_producer(row: Row) -> str:
    told = row["notes"]["told"]
    return f"{row['notes']['refused']} refused: `{told[0][:110]}`" if told else "nothing: all were taken"


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
    """Each figure in which another library did better than headrace."""
    figures = {
        "lost": "lost",
        "unrun": "not run",
        "failed": "failed",
        "doubled": "doubled",
        "again": "started again",
        "recovered_s": "seconds to recover",
    }
    lines = []
    for scenario, title in TITLES.items():
        ours = next(
            (
                row
                for row in rows
                if row["scenario"] == scenario and row["library"] == "headrace" and "error" not in row
            ),
            None,
        )
        others = [
            row for row in rows if row["scenario"] == scenario and row["library"] != "headrace" and "error" not in row
        ]
        if ours is None:
            continue
        for key, word in figures.items():
            mine = ours[key]
            better = [row for row in others if _beats(row[key], mine, 1.0 if key == "recovered_s" else 0)]
            if better:
                told = ", ".join(f"{row['library']} {row[key]:.0f}" for row in sorted(better, key=lambda row: row[key]))
                lines.append(f"- {title}, {word}: headrace {'–' if mine is None else f'{mine:.0f}'}; {told}.")
    return "\n".join(lines) if lines else "In this run no other library had a better figure in these tables."


def _beats(theirs: float | None, ours: float | None, margin: float) -> bool:
    return theirs is not None and (ours is None or theirs < ours - margin)


def _settings(run: dict[str, Any]) -> str:
    body = [
        [f"{name}", ", ".join(told["versions"]) or told.get("missing", ""), f"`{told['command']}`" + (f" and {told['more']} more" if told["more"] else ""),
         told["settings"], told["own_recovery"]]
        for name, told in run["libraries"].items()
    ]  # fmt: skip
    return (
        "Each has three processes that run one job at a time. Where a library offers a setting that makes it recover sooner, it is set to about 30 s: "
        "the defaults in brackets are often far longer. Where one worker serves one queue only, there is one for each queue. Results are kept as each does "
        "by default.\n\n" + table(["", "versions", "worker", "set", "what it says of recovery"], body)
    )


def _limits(plan: dict[str, Any]) -> str:
    return f"""## How it is judged

- A job writes its start and its end to a log, each by one `O_APPEND` write. The producer notes each enqueue that returned. When the chaos is over, a job
  that was acknowledged and has no end is looked up in the library's own keys on the server: waiting, held, failed, or nowhere.
- After the chaos there are {plan["recovery_s"]:g} s to recover, and more as long as jobs still end; meanwhile a job a second comes to each queue, since some
  look for what was left behind only when they are busy. Then six new jobs tell whether the worker works.
- Options of a library that shorten its recovery are set where its documentation names them. Most also pass options on to redis-py (`socket_timeout`,
  `socket_keepalive`): with those, some would notice a dead connection that they do not notice here.
- The moments of all faults come from the seed alone, and count from the worker's first job, so that slow and fast starters are hit alike. What a fault hits
  there is up to the operating system: another run has other small numbers. A zero here is a zero in this run, not a proof.
- All of them promise *at least once* at best, headrace too: a doubled job is no broken promise, but it is work done twice.
- The jobs are tiny, so what is measured is the machinery between them: claims, prefetches, acknowledgements. Speed is not compared here: several runs share
  the cores.
- Celery has no list of failed jobs without a result backend, so its failures would show as lost; none of these jobs raises.
- The libraries keep different promises about order, priorities, results and schedules, and have users and years that headrace has not; none of that is in the table."""
