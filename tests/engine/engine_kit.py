"""Short forms of the engine's operations, for tests."""

from __future__ import annotations

import time

import msgspec

from headrace.core.record import JobOptions, Record, Stored, decode, encode, new_job_id
from headrace.engine import ops, schedules
from headrace.engine.clients import SyncClient
from headrace.engine.keys import queue_keys

LEASE_MS = 10_000


def record_bytes(*, priority: int = 0, expires_at_ms: int = 0, layout: int = 1) -> bytes:
    payload = msgspec.Raw(msgspec.msgpack.encode([[1], {}]))
    return encode(
        Record(layout, int(Stored.LIVE), expires_at_ms, priority, "kit.task", payload, int(time.time() * 1000))
    )


def ended(record: bytes, state: Stored) -> bytes:
    return encode(msgspec.structs.replace(decode(record), state=int(state)))


class Kit:
    """One queue (or two) as a producer and some consumers see it."""

    def __init__(self, client: SyncClient, *names: str) -> None:
        self.client = client
        self.queues = [queue_keys(name) for name in names or ("default",)]
        self.queue = self.queues[0]
        self.split = client.is_cluster

    def add(self, *ids: str, **options: int | bool) -> list[str]:
        priority = int(options.get("priority", 0))
        expires = int(options.pop("expires_at_ms", 0))
        names = list(ids) or [new_job_id()]
        jobs = [
            ops.NewJob(name, record_bytes(priority=priority, expires_at_ms=expires), check_id=True, **options)  # type: ignore[arg-type]
            for name in names
        ]
        self.client.enqueue(self.queue.name, jobs)
        return names

    def record(self, *, priority: int = 0, text: str = "", ties: bytes | None = None, **_: object) -> bytes:
        """A record whose argument is `text`."""
        payload = msgspec.Raw(msgspec.msgpack.encode([[text], {}]))
        options = None if ties is None else JobOptions(ties=ties)
        return encode(Record(1, int(Stored.LIVE), 0, priority, "kit.task", payload, int(time.time() * 1000), options))

    def key_names(self) -> set[str]:
        """The keys of the queue that are there, without what they have in common."""
        pattern = self.queue.base + "*"
        keys = self.client.run(ops.command("KEYS", pattern, key=self.queue.jobs, decode=list))
        return {key.decode().removeprefix(self.queue.base) for key in keys}

    def open(self, session: str, lease_ms: int = LEASE_MS) -> str:
        self.client.run(ops.open_session(self.queues, session, lease_ms, split=self.split))
        return session

    def claim(
        self, session: str, want: int = 10, *, take_suspects: bool = True, side_by_side: bool = False
    ) -> list[ops.Claim]:
        return self.claimed(session, want, take_suspects=take_suspects, side_by_side=side_by_side).claims

    def claimed(
        self, session: str, want: int = 10, *, take_suspects: bool = True, side_by_side: bool = False
    ) -> ops.Claimed:
        options = {"take_suspects": take_suspects, "side_by_side": side_by_side, "split": self.split}
        return self.client.run(ops.claim(self.queues, session, want, **options))

    def settle(
        self,
        session: str,
        claims: list[ops.Claim],
        kind: ops.Kind = ops.Kind.SUCCEEDED,
        *,
        ms: int = 60_000,
        want: int = 0,
    ) -> ops.Settled:
        states = {
            ops.Kind.SUCCEEDED: Stored.SUCCEEDED,
            ops.Kind.DROPPED: Stored.SUCCEEDED,
            ops.Kind.FAILED: Stored.FAILED,
            ops.Kind.CANCELLED: Stored.CANCELLED,
        }
        outcomes = [
            ops.Settlement(
                claim.queue, claim.id, kind, ended(claim.record, states.get(kind, Stored.LIVE)),
                delay_ms=ms if kind in (ops.Kind.RETRY, ops.Kind.PARK) else 0,
                keep_ms=0 if kind in (ops.Kind.RETRY, ops.Kind.PARK) else ms,
                is_suspect=claim.is_suspect,
            )
            for claim in claims
        ]  # fmt: skip
        return self.client.run(ops.settle(self.queues, session, outcomes, want=want, split=self.split))

    def release(
        self, session: str, *blamed: str, alone: bool = True, reason: str = "killed by SIGKILL"
    ) -> ops.Released:
        return self.client.run(
            ops.release(self.queues, session, blamed=blamed, alone=alone, reason=reason, split=self.split)
        )

    def look(self, job_id: str) -> ops.Look | None:
        return self.client.run(ops.look(self.queue, job_id))

    def state(self, job_id: str) -> str:
        found = self.look(job_id)
        return "none" if found is None else str(found.state)


def make_due(client: SyncClient, name: str, ago_ms: int = 0) -> schedules.Found:
    """As if this schedule's next tick had come that long ago, whatever it is."""
    found = client.run(schedules.find("hr", name))
    entry = msgspec.structs.replace(found.entry, next_ms=found.server_ms - ago_ms, written="due")
    assert client.run(schedules._put(found.queue, name, found.data, entry))
    return client.run(schedules.find("hr", name))


def ids_of(claims: list[ops.Claim]) -> list[str]:
    return [claim.id for claim in claims]
