"""An app whose schedules tick each second; each run of a job leaves a line `tick JOB_ID`."""

from __future__ import annotations

import os
import select

from headrace import Headrace, current_job

app = Headrace()
_file = os.open(os.environ["LEDGER"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)


@app.every(1, name="pulse", catch_up="all")
@app.task
def tick() -> None:
    os.write(_file, f"tick {current_job().id}\n".encode())


@app.task
def holds() -> None:
    """Runs until it is cancelled."""
    os.write(_file, b"begin\n")
    try:
        while True:
            select.select([], [], [], 0.05)
    finally:
        os.write(_file, b"stop\n")


app.cron("0 3 * * *", name="nightly", tz="Asia/Ho_Chi_Minh")(tick)
