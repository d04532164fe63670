"""Kills a move at its writes, lets all that has come to headrace run, and moves again. `rq_killed.py URL EVERY`: every so many-th.

Prints a line for each point: its phase and number, `ok` or what was lost or came twice, and whether the move was killed there.
"""

from __future__ import annotations

import os
import signal
import sys
from collections import Counter
from typing import Any

import msgspec
import redis
from redis.connection import AbstractConnection
from rq_golden import load

from headrace.contrib.rq.connections import app_of
from headrace.contrib.rq.migrate import Move
from headrace.contrib.rq.source import Source
from headrace.contrib.rq.stored import Place, RQKeys
from headrace.core.record import State
from headrace.engine import admin, flows, ops
from headrace.engine.keys import queue_keys

URL = sys.argv[1]
NOTHING = msgspec.msgpack.encode(b"")
RENEW = Source(redis.from_url(URL), RQKeys()).renewal.encode()


def move(tell: Any = lambda *_: None) -> None:
    connection = redis.from_url(URL)
    Move(Source(connection, RQKeys()), connection, queues=["default", "low"], tell=tell).run()


def die_at(phase: str, number: int) -> None:
    """This process dies around its `number`-th call of a script."""
    seen = 0
    is_script = False
    send, read = AbstractConnection.send_packed_command, AbstractConnection.read_response

    def sending(self: Any, command: Any, *args: Any, **kwargs: Any) -> None:
        nonlocal seen, is_script
        data = b"".join(command) if isinstance(command, (list, tuple)) else command
        is_script = b"EVALSHA" in bytes(data) and RENEW not in bytes(data)
        seen += is_script
        send(self, command, *args, **kwargs)
        if is_script and phase == "sent" and seen == number:
            os.kill(os.getpid(), signal.SIGKILL)

    def reading(self: Any, *args: Any, **kwargs: Any) -> Any:
        found = read(self, *args, **kwargs)
        if is_script and phase == "answered" and seen == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return found

    AbstractConnection.send_packed_command = sending  # type: ignore[method-assign]
    AbstractConnection.read_response = reading  # type: ignore[method-assign]


def run_and_drop(connection: Any, ran: Counter[str]) -> None:
    """All that headrace has runs, and nothing is kept of it, what is scheduled too; what has failed is looked at, and deleted."""
    app = app_of(connection)
    queues = [queue_keys(queue, app.prefix) for queue in ("default", "low")]
    app.client.run(ops.open_session(queues, "all", 60_000, split=False))
    for keys in queues:
        for row in app.client.run(admin.list_jobs(keys, {State.SCHEDULED}, limit=1000)).rows:
            app.client.run(ops.run_now(keys, row.id))
    while True:
        claims = app.client.run(ops.claim(queues, "all", 100, split=False)).claims
        if not claims:
            break
        ran.update(claim.id for claim in claims)
        outcomes = [ops.Settlement(claim.queue, claim.id, ops.Kind.DROPPED, NOTHING) for claim in claims]
        app.client.run(ops.settle(queues, "all", outcomes, split=False))
        for keys in queues:
            app.client.run(flows.deliver(keys))
    app.client.run(ops.close_session(queues, "all", split=False))
    for keys in queues:
        ran.update(row.id for row in app.client.run(admin.list_jobs(keys, {State.FAILED}, limit=1000)).rows)
        app.client.run(admin.purge(keys, State.FAILED))


def killed_at(phase: str, number: int) -> bool:
    """Whether a move got that far, and died there."""
    pid = os.fork()
    if pid == 0:
        die_at(phase, number)
        move()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


def main() -> None:
    connection = redis.from_url(URL)
    source = Source(connection, RQKeys())
    for phase in ("sent", "answered"):
        number = 1 - int(sys.argv[2])
        is_killed = True
        while is_killed:
            number += int(sys.argv[2])
            connection.flushdb()
            load(connection, "3.0.0")
            places = [
                (place, queue)
                for place in Place
                if place not in (Place.LOST, Place.RATE_LIMITED)
                for queue in ("default", "low")
            ]
            before = {job_id for place in places for job_id in source.all_ids(*place)}
            ran: Counter[str] = Counter()
            stays: set[str] = set()
            is_killed = killed_at(phase, number)
            connection.delete(source.keys.lock)  # as it does by itself some seconds later
            run_and_drop(connection, ran)
            move(lambda job_id, *_, into=stays: into.add(job_id))
            run_and_drop(connection, ran)
            twice = sorted(job_id for job_id, count in ran.items() if count > 1)
            lost = sorted(before - set(ran) - stays)
            left = {job_id for place in places for job_id in source.all_ids(*place)} - stays
            wrong = [f"twice {twice}"] * bool(twice) + [f"lost {lost}"] * bool(lost) + [f"left {left}"] * bool(left)
            noted = connection.hlen("rq:headrace:taken")
            wrong += [f"{noted} are under way"] * bool(noted)
            print(phase, number, " ".join(wrong) or "ok", "killed" if is_killed else "ended", len(ran), flush=True)


if __name__ == "__main__":
    main()
