"""Jobs under several limits and unique keys, with a ledger of when each ran and in which process."""

from __future__ import annotations

import os
import select
import time

from headrace import Headrace, Limit, Unique, current_job

app = Headrace()
TOTAL, EACH, PACE, BURST = 5, 2, 400, 20


def note(word: str, number: int, key: str) -> None:
    handle = os.open(os.environ["LEDGER"], os.O_WRONLY | os.O_APPEND)
    try:
        os.write(handle, f"{word} {number} {time.monotonic()} {os.getpid()} {key} {current_job().attempt}\n".encode())
    finally:
        os.close(handle)


@app.task(
    result_ttl=0,
    limits=[
        Limit("all", concurrency=TOTAL),
        Limit("account:{account}", concurrency=EACH),
        Limit("pace", rate=f"{PACE}/s", burst=BURST),
    ],
)
def bounded(number: int, account: int) -> None:
    note("start", number, str(account))
    select.select([], [], [], 0.001 * (number % 7))
    note("end", number, str(account))


@app.task(result_ttl=0, unique=Unique("only:{key}"))
def only(number: int, key: int) -> None:
    note("start", number, str(key))
    select.select([], [], [], 0.001 * (number % 5))
    note("end", number, str(key))
