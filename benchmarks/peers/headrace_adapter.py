"""headrace in the harness that measures job queues side by side: copy this file to its folder `adapters/headrace.py`.

`harness.record` is the harness's own module: where a job notes that it ran.
"""

from harness.record import OPTIONS, URL, ran, slowly

from headrace import Headrace

VENV = "v"
IMPORT = "from headrace import Headrace"
CONTENDERS = {
    "headrace": {
        "worker": "{bin}/headrace worker bench -A adapters.headrace:app --log-level warning --processes {procs}",
        "n": 100000,
        "producer": True,
        "delivery": "run again at once (child), within 25 s (machine)",
        "note": "prefork, results kept for an hour",
    },
    "headrace-dropped": {
        "worker": "{bin}/headrace worker bench -A adapters.headrace:app --log-level warning --processes {procs}",
        "n": 200000,
        "tier": "fast",
        "options": {"result_ttl": 0},
        "delivery": "run again at once (child), within 25 s (machine)",
        "note": "prefork, results not kept",
    },
    "headrace-asyncio": {
        "worker": "{bin}/headrace worker bench -A adapters.headrace:app --log-level warning --pool asyncio --processes {procs} --slots 100",
        "n": 50000,
        "delivery": "run again at once (child), within 25 s (machine)",
        "note": "asyncio, 100 slots",
    },
    "headrace-fork": {
        "worker": "{bin}/headrace worker bench -A adapters.headrace:app --log-level warning --pool fork --processes {procs}",
        "n": 2000,
        "minor": True,
        "delivery": "run again at once (child), within 25 s (machine)",
        "note": "a process a job",
    },
}


app = Headrace(URL, default_queue="bench", result_ttl=OPTIONS.get("result_ttl", 3600))


@app.task
def noop(number: int) -> None:
    ran(number)


@app.task
def stamp(number: int, sent: float) -> None:
    ran(number, sent)


@app.task
def page(url: str) -> None:
    pass


@app.task
def slow(number: int) -> None:
    slowly(number)


TASKS = {"noop": noop, "stamp": stamp, "page": page, "slow": slow}


def enqueue_one(task: str, *args: object) -> None:
    TASKS[task].enqueue(*args)


def enqueue_bulk(task: str, rows: list[tuple[object, ...]]) -> None:
    app.enqueue_many(TASKS[task].call(*args) for args in rows)
