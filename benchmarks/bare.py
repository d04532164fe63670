"""The bare loop: what the scripts and redis-py can do with no library around them. The yardstick of every ratio here."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import hiredis
import msgspec
import redis

from headrace.core.record import Record, Stored, encode, new_job_id
from headrace.engine.call import script
from headrace.engine.keys import QueueKeys, queue_keys

LAYOUT = b"1"
SESSION = "bare"
IDS, RECORDS = 7, 8  # in the answer of settle, of the first queue


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
    payload = msgspec.msgpack.encode([["https://example.com/some/path/to/a/page?with=query&and=more"]])
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
    reply = call(connection, "settle", keys, LAYOUT, SESSION, batch, 1)
    decode = msgspec.msgpack.Decoder(Record).decode
    arguments = msgspec.msgpack.Decoder().decode
    done = 0
    while done < total:
        outcomes: list[Any] = []
        ids, records = reply[IDS], reply[RECORDS]
        for job_id, raw in zip(ids, records, strict=True):
            (args,) = arguments(decode(raw).payload)
            noop(*args)
            outcomes += (job_id, 3_600_000, raw[:2] + b"\x06" + raw[3:]) if keep else (job_id, 0, b"")
        done += len(ids)
        want = min(batch, total - done)
        reply = call(
            connection, "settle", keys, LAYOUT, SESSION, want, 1, 1, b"s" if keep else b"d", 0, len(ids), *outcomes
        )


def pipelined_cost(connection: Any, server: Any, queue: QueueKeys, total: int, body: bytes, width: int = 32) -> float:
    """Server CPU (µs) a job, enqueued, claimed and settled one a call, `width` calls in a pipeline (no idle waits)."""

    def send(name: str, keys: tuple[bytes, ...], calls: list[tuple[Any, ...]]) -> list[Any]:
        sha = script(name).sha
        packed = b"".join(hiredis.pack_command((b"EVALSHA", sha, len(keys), *keys, *args)) for args in calls)
        connection.send_packed_command([packed])
        return [connection.read_response() for _ in calls]

    server.reset()
    enqueue(connection, queue, 1, 1, body)
    work(connection, queue, 1, 1, False)
    server.reset()
    keys, put = settle_keys(queue), queue.block(script("enqueue").keys)
    began = server.cpu_s()
    for first in range(0, total, width):
        send("enqueue", put, [(LAYOUT, "bare", first + n + 1, 1, new_job_id(), body) for n in range(width)])
    call(connection, "open", queue.block(script("open").keys), LAYOUT, SESSION, 60_000)
    replies = send("settle", keys, [(LAYOUT, SESSION, 1, 1)] * width)
    while ids := [reply[IDS][0] for reply in replies if reply[IDS]]:
        replies = send("settle", keys, [(LAYOUT, SESSION, 1, 1, 1, b"d", 0, 1, job_id, 0, b"") for job_id in ids])
    return float((server.cpu_s() - began) / total * 1e6)


def one_by_one(connection: Any, queue: QueueKeys, count: int, body: bytes) -> tuple[float, float]:
    """Median wall time (µs) of an enqueue, and of a settle that claims the next."""
    put, keys = queue.block(script("enqueue").keys), settle_keys(queue)
    call(connection, "open", queue.block(script("open").keys), LAYOUT, SESSION, 600_000)
    enqueues, settles = [], []
    job_id = b""
    for number in range(count):
        began = time.perf_counter()
        call(connection, "enqueue", put, LAYOUT, "one", number + 1, 1, new_job_id(), body)
        middle = time.perf_counter()
        group = (1, b"d", 0, 1, job_id, 0, b"") if job_id else ()
        job_id = call(connection, "settle", keys, LAYOUT, SESSION, 1, 1, *group)[IDS][0]
        enqueues.append(middle - began)
        settles.append(time.perf_counter() - middle)
    return statistics.median(enqueues) * 1e6, statistics.median(settles) * 1e6


def own_calls(work: Callable[[], Any]) -> int:
    """How many calls of functions under headrace/ one `work()` makes (sys.setprofile)."""
    count = 0

    def look(frame: Any, event: str, _: Any) -> None:
        nonlocal count
        if event == "call" and "/headrace/" in frame.f_code.co_filename:
            count += 1

    sys.setprofile(look)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


def noop(*args: Any) -> None:
    return None


if __name__ == "__main__":
    url, queue, total, batch, keep = (
        sys.argv[1],
        queue_keys(sys.argv[2]),
        int(sys.argv[3]),
        int(sys.argv[4]),
        sys.argv[5] == "kept",
    )
    link = connect(url)
    began = time.perf_counter()
    work(link, queue, total, batch, keep)
    print(time.perf_counter() - began)
