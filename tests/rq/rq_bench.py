"""A connection, this folder's programs as processes, and the ledger their jobs write."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import redis

HERE = Path(__file__).parent


class Bench:
    """Starts this folder's programs, and reads the ledger their jobs write."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.connection: Any = redis.from_url(url)
        self.ledger = folder / "ledger"
        self.ledger.touch()
        self.folder = folder
        self.processes: list[subprocess.Popen[bytes]] = []
        self._seen: list[psutil.Process] = []

    def start(self, program: str, *args: str) -> subprocess.Popen[bytes]:
        log = self.folder / f"{len(self.processes)}.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, str(HERE / program), *args], cwd=HERE, stdout=out, stderr=subprocess.STDOUT,
                start_new_session=True, env={**os.environ, "REDISTOGO_URL": self.url, "LEDGER": str(self.ledger)},
            )  # fmt: skip
        self.processes.append(process)
        return process

    def log_of(self, process: subprocess.Popen[bytes]) -> str:
        return (self.folder / f"{self.processes.index(process)}.log").read_text(errors="replace")

    def children_of(self, pid: int) -> list[psutil.Process]:
        try:
            found = psutil.Process(pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []
        self._seen += found
        return found

    def work(self, *args: str) -> bool:
        """Run what is there; whether there was anything."""
        process = self.start("burst_worker.py", *args)
        assert process.wait(60) == 0, self.log_of(process)
        return "worked True" in self.log_of(process)

    def told(self, process: subprocess.Popen[bytes]) -> list[str]:
        """What its jobs and handlers have said, in order."""
        lines = self.log_of(process).splitlines()
        return [line.removeprefix("told ") for line in lines if line.startswith("told ")]

    def rq(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """`headrace rq …`; a variable that is "" is not set."""
        given = {"RQ_REDIS_URL": self.url, "REDISTOGO_URL": self.url, "LEDGER": str(self.ledger), **environment}
        variables = {name: value for name, value in {**os.environ, **given}.items() if value}
        return subprocess.run(
            [sys.executable, "-m", "headrace", "rq", *words], cwd=HERE.parent, capture_output=True, text=True,
            timeout=90, env=variables,
        )  # fmt: skip

    def ran(self) -> list[int]:
        return [int(line) for line in self.ledger.read_text().split()]

    def close(self) -> None:
        for process in self.processes:
            self.children_of(process.pid)
            if process.poll() is None:
                process.kill()
                process.wait(10)
        for child in self._seen:
            if child.is_running():
                child.kill()
        self.connection.close()
