"""Where a job must be before `enqueue` returns: in memory, at a replica, on disk; and what is said when it is not."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import redis
from scenario_lab import until

from headrace import Headrace, JobExists, NotDurable, State, UsageError
from headrace.core.options import Durability
from headrace.engine.call import command
from headrace.engine.keys import queue_keys
from headrace.server import EmbeddedServer
from servers import redis7_binary

REPLICATION = {"repl-diskless-sync-delay": "0", "repl-ping-replica-period": "1"}


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[EmbeddedServer, Any]]:
    """A primary with an append-only file, and a client of its replica."""
    with EmbeddedServer(config={**REPLICATION, "appendonly": "yes"}) as primary:
        config = {**REPLICATION, "replicaof": f"127.0.0.1 {primary.port}"}
        with (
            EmbeddedServer(config=config) as replica,
            closing(redis.Redis(port=replica.port, protocol=2, decode_responses=True)) as client,
        ):
            _wait_for_link(client)
            yield primary, client


def _wait_for_link(replica: Any) -> None:
    until(lambda: replica.info("replication")["master_link_status"] == "up", what="the replica")


def _commands(port: int) -> dict[str, int]:
    with closing(redis.Redis(port=port, protocol=2, decode_responses=True)) as client:
        stats: dict[str, Any] = client.info("commandstats")
    return {name.removeprefix("cmdstat_"): int(found["calls"]) for name, found in stats.items()}


@pytest.mark.parametrize("durability", ["replicated", "fsync"])
def test_a_job_is_confirmed_on_every_way_in(pair: tuple[EmbeddedServer, Any], durability: Durability) -> None:
    """By the app's default, by a task's, by `.options()`, in bulk, sync and async; one WAIT each."""
    primary, _ = pair
    word = "wait" if durability == "replicated" else "waitaof"
    with Headrace(primary.url, durability=durability, durability_timeout=20) as app:
        app.enqueue("a.task", 0)  # the server knows the script then
        before = _commands(primary.port)[word]
        jobs = [app.enqueue("a.task", 1), *app.enqueue_many([app.options().call("a.task", n) for n in range(5)])]
    with Headrace(primary.url, durability_timeout=20) as app:
        task = app.task(name="b.task", durability=durability)(_task)
        jobs += [task.enqueue(), app.options(durability=durability).enqueue("a.task"), app.enqueue(task)]

        async def alike() -> None:
            async with Headrace(primary.url, durability=durability, durability_timeout=20) as other:
                jobs.append(await other.aenqueue("a.task", 2))
                jobs.extend(await other.aenqueue_many([other.options().call("a.task", n) for n in range(5)]))

        asyncio.run(alike())
        assert {State.QUEUED} == {app.job(job.id).state for job in jobs}
    assert before + 7 == _commands(primary.port)[word]


def _task() -> None: ...


def test_memory_costs_no_round_trip_more(pair: tuple[EmbeddedServer, Any]) -> None:
    """The default: neither WAIT nor WAITAOF is sent; `.options` can ask for less than a task does."""
    primary, _ = pair
    before = _commands(primary.port)
    with Headrace(primary.url) as app:
        task = app.task(name="c.task", durability="fsync")(_task)
        task.options(durability="memory").enqueue()
        app.enqueue("a.task")
    after = _commands(primary.port)
    assert [before.get(name, 0) for name in ("wait", "waitaof")] == [after.get(name, 0) for name in ("wait", "waitaof")]


def test_a_durable_job_takes_one_round_trip(pair: tuple[EmbeddedServer, Any]) -> None:
    """WAIT travels with the script."""
    primary, _ = pair
    with Headrace(primary.url, durability="replicated", durability_timeout=20) as app:
        app.enqueue("a.task")
        connection = app.client._link()._open[None]
        writes: list[Any] = []
        send = connection.send_packed_command
        connection.send_packed_command = lambda packed, **more: (writes.append(packed), send(packed, **more))
        app.enqueue("a.task")
        assert 1 == len(writes)


def test_what_no_replica_has_is_told_with_its_id_and_can_be_sent_again(url: str) -> None:
    """Accepted and queued, not confirmed; sent again with its id it is not stored twice."""
    with Headrace(url, durability="replicated", durability_timeout=0.05) as app:
        with pytest.raises(NotDurable, match="no replica has it after") as caught:
            app.enqueue("a.task", 1)
        assert caught.value.job_id in str(caught.value)
        assert State.QUEUED == app.job(caught.value.job_id).state
        with pytest.raises(NotDurable):
            app.options(job_id=caught.value.job_id).enqueue("a.task", 1)
        with pytest.raises(JobExists):
            app.options(job_id=caught.value.job_id, durability="memory").enqueue("a.task", 1)
        assert 1 == app.client.run(_length("default"))

        async def alike() -> None:
            async with Headrace(url, durability="replicated", durability_timeout=0.05) as other:
                found = await asyncio.gather(*(other.aenqueue("a.task", n) for n in range(3)), return_exceptions=True)
                assert [1, 1, 1] == [len(error.job_ids) for error in found if isinstance(error, NotDurable)]
                assert 3 == len({error.job_id for error in found if isinstance(error, NotDurable)})

        asyncio.run(alike())
        assert 4 == app.client.run(_length("default"))


def test_bulk_tells_which_part_is_not_confirmed(url: str) -> None:
    """The other queue's part was stored as it should be; the note counts both."""
    with Headrace(url, durability_timeout=0.05) as app:
        calls = [app.queue("low").call("a.task", 0)]
        calls += [app.options(durability="replicated").call("a.task", n) for n in range(3)]
        with pytest.raises(NotDurable) as caught:
            app.enqueue_many(calls)
        assert 3 == len(caught.value.job_ids)
        assert ["4 of 4 jobs are stored, the last 3 of them not confirmed"] == caught.value.__notes__


def test_a_stopped_replica_confirms_when_it_goes_on(pair: tuple[EmbeddedServer, Any]) -> None:
    """NotDurable at first; once it follows again, sending the job again by its id is answered with JobExists: confirmed."""
    primary, replica = pair
    with Headrace(primary.url, durability="replicated", durability_timeout=0.2) as app:
        replica.replicaof("NO", "ONE")
        with pytest.raises(NotDurable) as caught:
            app.enqueue("a.task", 1)
        replica.replicaof("127.0.0.1", primary.port)
        _wait_for_link(replica)

        def is_confirmed() -> bool:
            try:
                app.options(job_id=caught.value.job_id).enqueue("a.task", 1)
            except NotDurable:
                return False
            except JobExists:
                return True
            raise AssertionError("it was stored twice")

        until(is_confirmed)
        assert replica.hexists("hr:{default}:jobs", caught.value.job_id)


def test_a_server_that_cannot_confirm_says_why(url: str, tmp_path: Path) -> None:
    """No append-only file, or no WAITAOF at all: named in the error, and the connection stays usable."""
    servers = {url: "set `appendonly yes`"}
    with EmbeddedServer(binary=redis7_binary() or None) as old:
        if redis7_binary():
            servers[old.url] = "needs Redis or Valkey 7.2"
        for where, told in servers.items():
            with Headrace(where, durability="fsync") as app:
                for number in range(2):
                    with pytest.raises(NotDurable, match=told) as caught:
                        app.enqueue("a.task", number)
                    assert State.QUEUED == app.job(caught.value.job_id).state


def test_forgotten_scripts_are_sent_again_and_replies_do_not_shift(pair: tuple[EmbeddedServer, Any]) -> None:
    """NOSCRIPT in front of WAIT: both are read, both are sent again."""
    primary, _ = pair
    with (
        closing(redis.Redis(port=primary.port, protocol=2)) as admin,
        Headrace(primary.url, durability="replicated", durability_timeout=20) as app,
    ):
        for number in range(3):
            admin.script_flush()
            job = app.enqueue("a.task", number)
            assert State.QUEUED == app.job(job.id).state

        async def alike() -> None:
            async with Headrace(primary.url, durability="replicated", durability_timeout=20) as other:
                for number in range(3):
                    admin.script_flush()
                    job = await other.aenqueue("a.task", number)
                    assert State.QUEUED == (await other.ajob(job.id)).state

        asyncio.run(alike())


@pytest.mark.parametrize("wrong", ["disk", "", None, 1, True, ["fsync"]])
def test_a_wrong_durability_fails_where_it_is_written(url: str, wrong: Any) -> None:
    """And the message names the parameter."""
    app = Headrace(url)
    for call in (
        lambda: Headrace(url, durability=wrong),
        lambda: app.task(durability=wrong)(_task),
        lambda: app.options(durability=wrong),
        lambda: app.task(name="d.task")(_task).options(durability=wrong),
    ):
        with pytest.raises(UsageError, match="durability: expected 'memory', 'replicated' or 'fsync'"):
            call()
    app.close()


@pytest.mark.parametrize("wrong", [0, -1, 61, "1", None])
def test_a_wrong_timeout_fails_where_it_is_written(url: str, wrong: Any) -> None:
    with pytest.raises(UsageError, match="durability_timeout"):
        Headrace(url, durability="fsync", durability_timeout=wrong)


def _length(queue: str) -> Any:
    key = queue_keys(queue).ready
    return command("LLEN", key, key=key, decode=int)
