"""The scenarios: what is done to a library's worker and server, at moments that the seed alone decides.

Each gets a `Field`, and leaves what only it can know in `field.notes`. Common to all: three queues, a worker of three processes of one
job at a time, a producer with a link of its own, and a supervisor that starts a main process again a second after it has ended by itself.
"""

from __future__ import annotations

import math
import random
import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import redis

from field import Field, Library, Plan, pause
from headrace.server import EmbeddedServer
from headrace.testing import FaultProxy
from verdict import first_ends

CUT_S = 20.0
FULL_S = 15.0
POISON_S = 30.0
LIVES_S = (0.02, 2.0)


def lifetimes(plan: Plan, what: str) -> Iterator[float]:
    """How long each worker lives after its first job: from 20 ms to 2 s, as many short as long."""
    chance = random.Random(f"{plan.seed}/{what}")
    low, high = (math.log(limit) for limit in LIVES_S)
    yield from (math.exp(chance.uniform(low, high)) for _ in range(plan.restarts))


def _restarts(field: Field, what: str, end: Callable[[], None]) -> None:
    plan = field.plan
    idle = 0
    for number, life_s in enumerate(lifetimes(plan, what)):
        share = plan.jobs * (number + 1) // plan.restarts - plan.jobs * number // plan.restarts
        field.producer.send("note", share // 2)
        field.crew.start()
        idle += not field.wait_for_first_job()
        field.producer.send("note", share - share // 2, every_ms=4)
        pause(life_s)
        end()
    field.crew.start()
    field.until(lambda: field.producer.is_done, 60)
    field.end_chaos()
    field.notes.update(idle=idle, late=field.crew.late)
    field.recover()


def sigterm(field: Field) -> None:
    """The worker is told to stop, so often; one that has not gone by the deadline is killed."""
    _restarts(field, "sigterm", lambda: field.crew.stop(field.plan.stop_s))


def sigkill(field: Field) -> None:
    """All processes of the worker are killed at once, so often."""
    _restarts(field, "sigkill", field.crew.kill)


def poison(field: Field) -> None:
    """One job kills its process each time it runs, in the middle of fifty good ones."""
    field.producer.send("work", 25)
    field.producer.send("poison", 1, kind="poison")
    field.producer.send("work", 25)
    field.until(lambda: field.producer.is_done, 30, tended=False)
    field.crew.start()
    field.wait_for_first_job()
    field.rest(POISON_S)
    field.end_chaos()
    effects = field.logs.effects
    field.notes["deliveries"] = sum(e.word == "start" and e.name.startswith("poison") for e in effects)
    field.notes["good_done"] = sum(name.startswith("job") for name in first_ends(effects))
    field.recover()
    for _ in range(4):  # it may be between two places just now
        field.notes["poison_is"] = field.look().get("poison-000000", "in no queue")
        if field.notes["poison_is"] != "in no queue":
            break
        field.rest(2)


def server_restart(field: Field) -> None:
    """The server is killed three times under load; it comes back after half a second with all it had acknowledged on disk."""
    chance = random.Random(f"{field.plan.seed}/server_restart")
    count = max(field.plan.jobs // 4, 30)
    span_s = count * 0.02
    field.crew.start()
    field.producer.send("note", count, every_ms=20)
    field.wait_for_first_job()
    began = time.monotonic()
    for moment in sorted(chance.uniform(0.1, 0.8) * span_s for _ in range(3)):
        field.rest(began + moment - time.monotonic())
        field.server.kill()
        field.rest(0.5)
        field.server.start()
    field.until(lambda: field.producer.is_done, 120)
    field.end_chaos()
    field.recover()


def full_server(field: Field) -> None:
    """The server has no room for fifteen seconds, with jobs in the queues, and a producer that goes on."""
    backlog = max(field.plan.jobs // 5, 30)
    client: Any = redis.Redis.from_url(field.server.url, protocol=2)
    field.producer.send("work", backlog)
    field.until(lambda: field.producer.is_done, 30, tended=False)
    field.crew.start()
    field.wait_for_first_job()
    pause(0.3)
    client.config_set("maxmemory", "100kb")
    full_ns = time.monotonic_ns()
    field.producer.send("note", int(FULL_S * 20), every_ms=50)
    field.rest(FULL_S + 1)
    client.config_set("maxmemory", "0")
    room_ns = time.monotonic_ns()
    field.until(lambda: field.producer.is_done, 120)
    field.chaos_ended_ns = room_ns
    during = [a for a in field.logs.answers if full_ns <= a.began_ns < room_ns]
    ends = first_ends(field.logs.effects).values()
    field.notes["left_when_full"] = backlog - sum(at < full_ns for at in ends)
    field.notes["done_while_full"] = sum(full_ns <= at < room_ns for at in ends)
    field.notes["refused"] = sum(not a.is_ok for a in during)
    field.notes["told"] = sorted({re.sub(r"redis://\S+", "URL", a.error) for a in during if a.error})[:3]
    field.notes["slowest_answer_s"] = max((a.ended_ns - a.began_ns for a in during), default=0) / 1e9
    field.recover()
    client.close()


def _through_a_broken_link(field: Field, link: FaultProxy, breaks: Callable[[], object]) -> None:
    field.crew.start()
    field.producer.send("note", int((CUT_S + 10) * 20), every_ms=50)
    field.wait_for_first_job()
    field.rest(3)
    breaks()
    field.rest(CUT_S)
    link.heal()
    healed_ns = time.monotonic_ns()
    field.until(lambda: field.producer.is_done, 60)
    field.chaos_ended_ns = healed_ns
    field.recover()


def cut_link(field: Field, link: FaultProxy) -> None:
    """Nothing passes between worker and server for twenty seconds, and nobody is told; then what was under way arrives."""
    _through_a_broken_link(field, link, link.cut)


def dead_link(field: Field, link: FaultProxy) -> None:
    """The worker's open connections are half-open for good, as behind a router that forgot them; new ones work."""
    _through_a_broken_link(field, link, link.go_silent)


SCENARIOS: dict[str, Callable[..., None]] = {
    "sigterm": sigterm, "sigkill": sigkill, "poison": poison, "server_restart": server_restart, "full_server": full_server,
    "cut_link": cut_link, "dead_link": dead_link,
}  # fmt: skip
LINKED = {cut_link, dead_link}


@contextmanager
def laid_out(library: Library, scenario: str, plan: Plan, folder: Path) -> Iterator[tuple[Field, Callable[[], None]]]:
    """A fresh server and field, and the scenario to be run on it."""
    act = SCENARIOS[scenario]
    lasts = act is server_restart
    with ExitStack() as stack:
        server = stack.enter_context(
            EmbeddedServer(
                data_dir=folder / "data" if lasts else None, config={"appendfsync": "always"} if lasts else {}
            )
        )
        link = stack.enter_context(FaultProxy(server.url, seed=plan.seed)) if act in LINKED else None
        field = stack.enter_context(closing(Field(library, folder, server, link.url if link else server.url, plan)))
        yield field, partial(act, field, link) if link else partial(act, field)
