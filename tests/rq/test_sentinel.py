"""A connection that Sentinels name, with passwords of theirs and of the server."""

from __future__ import annotations

import socket
from contextlib import closing
from pathlib import Path
from typing import Any

import redis
import rq_jobs
from rq_bench import Bench
from scenario_lab import until

from groups import NAME, start_sentinel
from headrace.contrib.rq import Queue
from headrace.contrib.rq.connections import connection_to, url_of
from headrace.server import EmbeddedServer


def test_queues_and_workers_are_where_sentinels_say(bench: Bench, tmp_path: Path) -> None:
    """Producers with `Sentinel.master_for`, workers with RQ's SENTINEL settings."""
    with EmbeddedServer() as primary, closing(redis.Redis(port=primary.port)) as client:
        client.acl_setuser("web", enabled=True, passwords=["+sesame"], keys=["*"], channels=["*"], commands=["+@all"])
        lines = ["requirepass mellon"]
        port, process = start_sentinel(tmp_path / "sentinel", primary.port, quorum=1, lines=lines)
        try:
            until(lambda: _is_listening(port))
            make: Any = redis.Sentinel
            sentinel = make(
                [("127.0.0.1", port)], sentinel_kwargs={"password": "mellon"}, username="web", password="sesame"
            )
            connection = sentinel.master_for(NAME)
            url = f"redis+sentinel://web:sesame@127.0.0.1:{port}/{NAME}/0?sentinel_password=mellon"
            assert url_of(connection) == url == url_of(connection_to(url))
            job = Queue(connection=connection).enqueue(rq_jobs.about_me, job_id="here", meta={"who": "me"})
            settings = {
                "INSTANCES": [("127.0.0.1", port)], "MASTER_NAME": NAME, "USERNAME": "web", "PASSWORD": "sesame",
                "SENTINEL_KWARGS": {"password": "mellon"},
            }  # fmt: skip
            (tmp_path / "sentinel_settings.py").write_text(f"SENTINEL = {settings!r}\n")
            words = ["-c", "sentinel_settings", "-P", str(tmp_path), "-P", str(Path(rq_jobs.__file__).parent)]
            done = bench.rq("worker", "--burst", *words, RQ_REDIS_URL="")
            assert done.returncode == 0 and job.return_value(refresh=True) == ("here", "me"), done.stderr
        finally:
            process.kill()
            process.wait()


def _is_listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
