"""The user of docs/howto/access.md can do all that headrace does, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import redis
from click.testing import CliRunner
from scenario_lab import Lab, until

from headrace import Headrace, State
from headrace.cli.main import command

PAGE = Path(__file__).parents[2] / "docs/howto/access.md"


@pytest.fixture(params=["url", "redis7_url"])
def user_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of the page's user, on an empty server."""
    url: str = request.getfixturevalue(request.param)
    found = re.search(r"^ACL SETUSER headrace (.*)$", PAGE.read_text("utf8"), re.MULTILINE)
    assert found is not None
    with closing(redis.Redis.from_url(url)) as admin:
        admin.execute_command("ACL", "SETUSER", "headrace", "reset", *found[1].split())
        yield url.replace("redis://", "redis://headrace:PASSWORD@")
        admin.execute_command("ACL", "DELUSER", "headrace")


def test_its_user_can_do_all_that_headrace_does(user_url: str, tmp_path: Path) -> None:
    """Run, retry, put off, cancel, take over from a killed process, look on and clean up."""
    with closing(Lab(user_url, tmp_path)) as lab:
        worker = lab.start("--processes", "2", ready=2)
        app = lab.app
        again, later = (
            app.enqueue("ledger.fails_twice", 1),
            app.options(delay=0.1, priority=5).enqueue("ledger.work", 2),
        )
        many = app.enqueue_many(app.options(durability="memory").call("ledger.work", n) for n in range(5, 8))
        asks, endless = app.enqueue("ledger.reports", 3), app.enqueue("ledger.poison", 4)
        assert (3, 2) == (again.result(timeout=30), later.result(timeout=30))
        assert [5, 6, 7] == [job.result(timeout=30) for job in many]
        until(lambda: asks.refresh().state == State.RUNNING)
        asks.cancel()
        until(lambda: asks.refresh().state in (State.CANCELLED, State.SUCCEEDED))
        tells = app.enqueue("ledger.tells", 9)
        assert 9 == tells.result(timeout=30) and ["begun"] == [line.text for line in tells.logs()]
        until(lambda: endless.refresh().state == State.FAILED)
        for words in (["status"], ["queue", "ls"], ["workers", "ls"], ["job", "ls"], ["dead", "ls"],
                      ["job", "show", endless.id], ["dead", "retry", "--all", "--yes"], ["queue", "pause", "low"],
                      ["queue", "resume", "low"], ["queue", "purge", "low", "--yes"]):  # fmt: skip
            done = CliRunner().invoke(command, [*words, "--url", user_url])
            assert "refuses this user" not in done.output, (words, done.output)
        with closing(redis.Redis.from_url(user_url.replace("headrace:PASSWORD@", ""))) as admin:
            admin.execute_command("ACL", "SETUSER", "headrace", "+scan")
        assert "refuses this user" not in CliRunner().invoke(command, ["check", "--url", user_url]).output
        assert 0 == worker.terminate()
        assert "refuses this user" not in worker.said


def test_its_user_can_do_nothing_else(user_url: str) -> None:
    """Not even see what others keep there."""
    with closing(redis.Redis.from_url(user_url)) as client:
        words: list[tuple[Any, ...]] = [
            ("FLUSHALL",), ("CONFIG", "GET", "*"), ("KEYS", "*"), ("GET", "other"), ("HGET", "other", "x"), ("SCAN", "0"),
            ("EVAL", "return redis.call('HGET', 'other', 'x')", 0), ("ACL", "LIST"), ("SHUTDOWN",),
        ]  # fmt: skip
        for one in words:
            with pytest.raises(redis.ResponseError, match=r"permission|can't access|ACL failure"):
                client.execute_command(*one)


def test_on_a_cluster_two_more_rights_are_enough(cluster_url: str) -> None:
    """Those that the page names."""
    text = PAGE.read_text("utf8")
    rights = re.search(r"^ACL SETUSER headrace (.*)$", text, re.MULTILINE)
    more = re.search(r"On a cluster add `([^`]*)`", text)
    assert rights is not None
    assert more is not None
    addresses = cluster_url.partition("://")[2].split(",")
    for address in addresses:
        with closing(redis.Redis.from_url(f"redis://{address}")) as admin:
            admin.execute_command("ACL", "SETUSER", "headrace", "reset", *rights[1].split(), *more[1].split())
    with Headrace(f"redis+cluster://headrace:PASSWORD@{','.join(addresses)}") as app:
        jobs = [app.queue(queue).enqueue("some.task") for queue in ("high", "default", "low")]
        assert ["queued"] * 3 == [app.job(job.id).state for job in jobs]
    for address in addresses:
        with closing(redis.Redis.from_url(f"redis://{address}")) as admin:
            admin.execute_command("ACL", "DELUSER", "headrace")
