"""The bare loop: what the scripts and redis-py can do with no library around them. The yardstick of every ratio here."""

from __future__ import annotations

import sys
import time
from typing import Any

import hiredis
import msgspec
import redis

from headrace.core.record import Record, Stored, encode, new_job_id
from headrace.engine.call import script
from headrace.engine.keys import QueueKeys, queue_keys

LAYOUT = b"1"
SESSION = "bare"


def connect(url: str) -> Any:
    connection = redis.ConnectionPool.from_url(url, protocol=2).make_connection()
    connection.connect()
    return connection


def call(connection: Any, name: str, keys: tuple[bytes, ...], *args: Any) -> Any:
    found = script(name)
    connection.send_packed_command([hiredis.pack_command((b"EVALSHA", found.sha, len(keys), *keys, *args))])
    try:
        return connection.read_response()
    except redis.exceptions.NoScriptError:
        connection.send_packed_command([hiredis.pack_command((b"EVAL", found.source, len(keys), *keys, *args))])
        return connection.read_response()


def record(task: str = "bench.tasks.noop") -> bytes:
    """A job as headrace stores it: 130 bytes with its URL."""
    payload = msgspec.msgpack.encode([["https://example.com/some/path/to/a/page?with=query&and=more"], {}])
    return encode(Record(1, int(Stored.LIVE), 0, 0, task, msgspec.Raw(payload), int(time.time() * 1000)))


def settle_keys(queue: QueueKeys) -> tuple[bytes, ...]:
    return (*queue.block(script("settle").keys[:-1]), queue.held(SESSION))


def enqueue(connection: Any, queue: QueueKeys, total: int, batch: int, body: bytes) -> None:
    keys = queue.block(script("enqueue").keys)
    for number in range(0, total, batch):
        jobs = [part for _ in range(batch) for part in (new_job_id(), body)]
        call(connection, "enqueue", keys, LAYOUT, "bare", number + 1, batch, *jobs)


def work(connection: Any, queue: QueueKeys, total: int, batch: int, keep: bool) -> None:
    """Claim, decode, run a no-op, settle and claim the next, until `total` jobs are done."""
    keys = settle_keys(queue)
    call(connection, "open", queue.block(script("open").keys), LAYOUT, SESSION, 60_000)
    _, claims = call(connection, "settle", keys, LAYOUT, SESSION, batch, 1)
    decode = msgspec.msgpack.Decoder(Record).decode
    arguments = msgspec.msgpack.Decoder().decode
    done = 0
    while done < total:
        outcomes: list[Any] = []
        ids, records = claims[0][6], claims[0][7]
        for job_id, raw in zip(ids, records, strict=True):
            args, kwargs = arguments(decode(raw).payload)
            noop(*args, **kwargs)
            outcomes += (job_id, 3_600_000, raw[:2] + b"\x06" + raw[3:]) if keep else (job_id, 0, b"")
        done += len(ids)
        want = min(batch, total - done)
        _, claims = call(connection, "settle", keys, LAYOUT, SESSION, want, 1, 1, b"s" if keep else b"d", 0, len(ids), *outcomes)


def noop(*args: Any) -> None:
    return None


if __name__ == "__main__":
    url, queue, total, batch, keep = sys.argv[1], queue_keys(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), sys.argv[5] == "kept"
    link = connect(url)
    began = time.perf_counter()
    work(link, queue, total, batch, keep)
    print(time.perf_counter() - began)
