"""The link does to bytes what it says, and nothing when nothing is asked of it."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
import redis
import redis.asyncio
from redis.backoff import NoBackoff
from redis.retry import Retry
from scenario_lab import until

from headrace.engine import ops
from headrace.engine.call import script
from headrace.engine.clients import ServerConfig, SyncClient
from headrace.errors import ServerUnreachable
from headrace.server import EmbeddedServer
from headrace.testing import FaultProxy, runs
from headrace.testing.proxy import message_end


@pytest.fixture
def link(url: str) -> Iterator[FaultProxy]:
    with FaultProxy(url, seed=1) as found:
        yield found


def connect(link: FaultProxy, timeout_s: float = 5.0, protocol: int = 2) -> Any:
    """One connection that tries nothing twice."""
    return redis.Redis.from_url(
        link.url,
        protocol=protocol,
        socket_timeout=timeout_s,
        retry=Retry(NoBackoff(), 0),
        single_connection_client=True,
    )


def is_set(word: str) -> Any:
    return lambda request: word.encode() in request


def counter(url: str) -> int:
    with closing(redis.Redis.from_url(url)) as direct:
        return int(direct.get("n") or 0)


@pytest.mark.parametrize("protocol", [2, 3])
def test_a_sound_link_changes_nothing(link: FaultProxy, protocol: int) -> None:
    """Replies of every kind, large ones too, and a hundred in one write."""
    with closing(connect(link, protocol=protocol)) as client:
        client.set("big", b"\r\n*3\r\n" * 100_000)
        assert b"\r\n*3\r\n" * 100_000 == client.get("big")
        client.hset("hash", mapping={"a": 1, "b": 2})
        assert {b"a": b"1", b"b": b"2"} == client.hgetall("hash")
        with pytest.raises(redis.ResponseError):
            client.lpush("hash", 1)
        pipeline = client.pipeline(transaction=False)
        for _ in range(100):
            pipeline.incr("n")
        assert list(range(1, 101)) == pipeline.execute()
        assert [None, [1, [b"x", []]]] == client.eval("return {false, {1, {'x', {}}}}", 0)


def test_a_lost_reply_is_lost_after_the_server_has_done_what_was_asked(link: FaultProxy, url: str) -> None:
    """Exactly that one; the ones around it pass."""
    with closing(connect(link)) as client:
        client.ping()
        trap = link.lose_reply(is_set("INCR"))
        assert 0 == trap.hits
        with pytest.raises(redis.ConnectionError):
            client.incr("n")
        assert 1 == trap.hits
        assert 1 == counter(url)
        assert 2 == client.incr("n")


def test_a_reply_is_found_among_those_of_other_requests_in_one_write(link: FaultProxy, url: str) -> None:
    """The first of three gets through, the second is lost, and so is all that comes after."""
    with closing(redis.Redis.from_url(url)) as direct, closing(connect(link)) as client:
        direct.set("x", 1)
        connection = client.connection
        trap = link.lose_reply(is_set("INCR"))
        connection.send_packed_command(connection.pack_commands([("GET", "x"), ("INCR", "n"), ("GET", "x")]))
        assert b"1" == connection.read_response()
        with pytest.raises(redis.ConnectionError):
            connection.read_response()
        assert (1, 1) == (trap.hits, counter(url))


def test_a_lost_request_never_reaches_the_server(link: FaultProxy, url: str) -> None:
    with closing(connect(link)) as client:
        trap = link.lose_request(is_set("INCR"), times=2)
        for _ in range(2):
            with pytest.raises(redis.ConnectionError):
                client.incr("n")
        assert 2 == trap.hits
        assert 0 == counter(url)
        assert 1 == client.incr("n")


@pytest.mark.parametrize("after_bytes", [1, 5, 1_000, 10**9])
def test_a_reply_is_torn(link: FaultProxy, after_bytes: int) -> None:
    """Its first bytes come, then a reset; never all of them."""
    with closing(connect(link)) as client:
        client.set("big", b"x" * 20_000)
        trap = link.tear_reply(is_set("GET"), after_bytes=after_bytes)
        connection = client.connection
        connection.send_command("GET", "big")
        sock = connection._sock
        got = b""
        with pytest.raises(ConnectionResetError):
            while data := sock.recv(1 << 16):
                got += data
        whole = b"$20000\r\n" + b"x" * 20_000 + b"\r\n"
        assert whole[: min(after_bytes, len(whole) - 1)] == got
        assert 1 == trap.hits


def test_a_trap_that_is_disarmed_spoils_no_more(link: FaultProxy) -> None:
    with closing(connect(link)) as client:
        trap = link.lose_reply(is_set("PING"), times=None)
        for _ in range(3):
            with pytest.raises(redis.ConnectionError):
                client.ping()
        trap.disarm()
        assert client.ping()
        assert 3 == trap.hits
        with pytest.raises(TimeoutError, match="3 times"):
            trap.wait(4, timeout_s=0.01)


def test_chances_are_the_same_with_the_same_seed(url: str) -> None:
    def losses() -> list[bool]:
        with FaultProxy(url, seed=7) as link, closing(connect(link)) as client:
            trap = link.lose_reply(is_set("ECHO"), times=None, chance=0.5)
            told = []
            for n in range(30):
                before = trap.hits
                try:
                    client.echo(str(n))
                except redis.ConnectionError:
                    assert trap.hits == before + 1
                told.append(trap.hits > before)
            return told

    first = losses()
    assert first == losses()
    assert {True, False} == set(first)


def test_a_scripts_runs_are_told_by_its_sha_or_its_text() -> None:
    found = script("enqueue")
    assert runs("enqueue")(b"*3\r\n$7\r\nEVALSHA\r\n$40\r\n" + found.sha)
    assert runs("enqueue")(b"*3\r\n$4\r\nEVAL\r\n" + found.source)
    assert not runs("enqueue")(b"*3\r\n$7\r\nEVALSHA\r\n$40\r\n" + script("settle").sha)


def test_a_script_that_the_server_does_not_know_yet_is_no_catch(link: FaultProxy, url: str) -> None:
    """NOSCRIPT passes; the reply to the script's text, which does the work, is the one that is lost."""
    client = SyncClient(ServerConfig(link.url), retry=False)
    try:
        with closing(redis.Redis.from_url(url)) as direct:
            direct.script_flush()
            trap = link.lose_reply(runs("announce"))
            with pytest.raises(ServerUnreachable):
                client.run(ops.announce_queues("hr", ["one"]))
            assert 1 == trap.hits
            assert {b"one"} == direct.smembers("hr:queues")
            client.run(ops.announce_queues("hr", ["two"]))
    finally:
        client.close()


@pytest.mark.parametrize("way", ["up", "down", "both"])
def test_in_a_black_hole_bytes_wait_and_nobody_is_told(link: FaultProxy, url: str, way: Any) -> None:
    """A request passes if only replies are held; a healed link delivers what has waited, late as it is."""
    with closing(connect(link, timeout_s=0.3)) as client:
        client.ping()
        link.cut(way)
        with pytest.raises(redis.TimeoutError):
            client.incr("n")
        assert (1 if way == "down" else 0) == counter(url)
        link.heal()
        until(lambda: counter(url) == 1, what="the request that had waited")
        assert 2 == client.incr("n")


def test_a_new_connection_in_a_black_hole_hears_nothing(link: FaultProxy) -> None:
    link.cut()
    with closing(connect_lazily(link, 0.3)) as client:
        with pytest.raises(redis.TimeoutError):
            client.ping()
        link.heal()
        assert client.ping()


def connect_lazily(link: FaultProxy, timeout_s: float) -> Any:
    return redis.Redis.from_url(link.url, protocol=2, socket_timeout=timeout_s, retry=Retry(NoBackoff(), 0))


def test_half_open_connections_are_silent_and_new_ones_work(link: FaultProxy) -> None:
    """The silent ones stay open until they are reset."""
    with closing(connect(link, timeout_s=0.3)) as old:
        assert old.ping()
        silent = link.go_silent()
        assert silent >= 1
        with pytest.raises(redis.TimeoutError):
            old.get("n")
        with closing(connect(link)) as fresh:
            assert fresh.ping()
        assert link.reset_all() >= silent


def test_open_connections_are_reset(link: FaultProxy) -> None:
    with closing(connect(link)) as one, closing(connect(link)) as two:
        one.ping(), two.ping()
        assert 2 == link.connections
        assert 2 == link.reset_all()
        for client in (one, two):
            with pytest.raises(redis.ConnectionError):
                client.ping()
            assert client.ping()
        assert 4 == link.accepted


def test_new_connections_are_refused_and_open_ones_stay(link: FaultProxy) -> None:
    with closing(connect(link)) as one:
        one.ping()
        link.refuse()
        assert one.ping()
        with pytest.raises(redis.ConnectionError, match="refused"):
            connect(link).ping()
        link.accept()
        with closing(connect(link)) as two:
            assert two.ping()


def test_latency_and_rate_make_it_slow(link: FaultProxy) -> None:
    """At least as slow as they say."""
    with closing(connect(link)) as client:
        client.set("big", b"x" * 20_000)
        link.latency_s, link.jitter_s = 0.05, 0.01
        began = time.monotonic()
        client.ping()
        assert time.monotonic() - began >= 0.1
        link.latency_s = link.jitter_s = 0.0
        link.bytes_per_s = 100_000
        began = time.monotonic()
        client.get("big")
        assert time.monotonic() - began >= 0.2


def test_the_upstream_can_be_switched(link: FaultProxy) -> None:
    """New connections go to the other server."""
    with EmbeddedServer() as other, closing(connect(link)) as client:
        client.set("name", "first")
        link.upstream = ("127.0.0.1", other.port)
        assert b"first" == client.get("name")
        link.reset_all()
        with pytest.raises(redis.ConnectionError):
            client.get("name")
        assert client.get("name") is None


def test_a_replicas_stream_passes_as_it_is(url: str, link: FaultProxy) -> None:
    """On the link between a replica and its primary only the faults of bytes apply; traps see nothing."""
    trap = link.lose_reply(lambda request: b"REPLCONF" not in request and b"PING" not in request, times=None)
    config = {"replicaof": f"127.0.0.1 {link.port}"}
    with closing(redis.Redis.from_url(url)) as primary:
        primary.config_set("repl-diskless-sync-delay", 0)
        primary.set("x", random.Random(1).randbytes(100_000))
        with EmbeddedServer(config=config) as server, closing(redis.Redis.from_url(server.url)) as copy:
            trap.disarm()
            until(lambda: copy.get("x") == primary.get("x"), what="the copy")
            link.cut()
            primary.set("y", 1)
            assert copy.get("y") is None
            link.heal()
            until(lambda: copy.get("y") == b"1", what="the rest of the stream")


def test_async_clients_use_it_too(link: FaultProxy) -> None:
    """Its thread is its own: the caller's loop may drive it."""

    async def main() -> None:
        client: Any = redis.asyncio.Redis.from_url(
            link.url, protocol=2, retry=redis.asyncio.retry.Retry(NoBackoff(), 0)
        )
        try:
            link.latency_s = 0.01
            assert [True] * 20 == await asyncio.gather(*(client.ping() for _ in range(20)))
            link.lose_reply(is_set("INCR"))
            with pytest.raises(redis.ConnectionError):
                await client.incr("n")
            assert 2 == await client.incr("n")
        finally:
            await client.aclose(close_connection_pool=True)

    asyncio.run(main())


def test_a_url_keeps_its_login_and_database() -> None:
    with FaultProxy("rediss://me:secret@example.invalid:7000/3?ssl_cert_reqs=none") as link:
        assert f"rediss://me:secret@127.0.0.1:{link.port}/3?ssl_cert_reqs=none" == link.url
    with FaultProxy(("127.0.0.1", 1)) as link:
        assert f"redis://127.0.0.1:{link.port}/0" == link.url


MESSAGES = [b"+OK\r\n", b":1\r\n", b"$-1\r\n", b"$0\r\n\r\n", b"$4\r\n\r\n\r\n\r\n", b"*-1\r\n", b"*0\r\n", b"*2\r\n*1\r\n:1\r\n$1\r\nx\r\n",
            b"%1\r\n+a\r\n*1\r\n:2\r\n", b"_\r\n", b">2\r\n+a\r\n+b\r\n", b"=7\r\ntxt:abc\r\n", b"|1\r\n+a\r\n+b\r\n:3\r\n"]  # fmt: skip


@pytest.mark.parametrize("message", MESSAGES)
def test_the_end_of_a_message_is_found_wherever_it_is_cut(message: bytes) -> None:
    for cut in range(len(message)):
        assert 0 == message_end(b"+first\r\n" + message[:cut], 8)
    assert 8 + len(message) == message_end(b"+first\r\n" + message + b"+next\r\n", 8)


@pytest.mark.parametrize("noise", [b"\x16\x03\x01", b"PING\r\n", b"$EOF:abc\r\n"])
def test_what_is_no_message_is_said_so(noise: bytes) -> None:
    with pytest.raises(ValueError):
        message_end(noise, 0)
