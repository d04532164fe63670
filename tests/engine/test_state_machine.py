"""Any history of calls, stale ones and repeated ones among them, leaves each live job in exactly one place."""

from __future__ import annotations

import time
from typing import Any

import pytest
import redis
from engine_kit import Kit, ids_of
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from headrace.core.record import Stored, decode
from headrace.engine import ops
from headrace.engine.clients import ServerConfig, SyncClient
from headrace.errors import JobExists, JobNotFound, SessionGone

IDS = st.sampled_from(["a", "b", "c", "d", "e"])
SESSIONS = st.sampled_from(["s1", "s2", "s3"])
KINDS = st.sampled_from([ops.Kind.SUCCEEDED, ops.Kind.FAILED, ops.Kind.RETRY, ops.Kind.PARK, ops.Kind.DROPPED])


class Machine(RuleBasedStateMachine):
    """The model: `held` maps a session that is open to the ids it holds; `gone` knows ids that exist no more."""

    url = ""

    def __init__(self) -> None:
        super().__init__()
        self.client = SyncClient(ServerConfig(self.url), retry=False)
        self.redis: Any = redis.Redis.from_url(self.url, decode_responses=True)
        self.raw: Any = redis.Redis.from_url(self.url)
        self.redis.flushall()
        self.kit = Kit(self.client)
        self.held: dict[str, dict[str, ops.Claim]] = {}
        self.seen: list[ops.Claim] = []
        self.fence = 0

    @initialize()
    def begin(self) -> None:
        """Sessions that hold something: without them most steps would meet nothing."""
        for session in ("s1", "s2", "s3"):
            self.open(session)
        self.kit.add("a", "b", "c", "d")
        self.claim("s1", 2, True)

    @rule(session=SESSIONS)
    def work(self, session: str) -> None:
        """Be there, and take something."""
        self.open(session)
        self.claim(session, 2, True)

    def teardown(self) -> None:
        self.client.close()
        self.redis.close()
        self.raw.close()

    @rule(
        job_id=IDS, delay=st.sampled_from([0, 0, 60_000]), priority=st.sampled_from([0, 0, 7, -7]), front=st.booleans()
    )
    def enqueue(self, job_id: str, delay: int, priority: int, front: bool) -> None:
        existed = self.kit.state(job_id) != "none"
        try:
            self.kit.add(job_id, delay_ms=delay, priority=priority, at_front=front)
        except JobExists:
            assert existed
        else:
            assert not existed

    @rule(session=SESSIONS)
    def open(self, session: str) -> None:
        self.kit.open(session)
        self.held.setdefault(session, {})

    @rule(session=SESSIONS, want=st.integers(1, 3), suspects=st.booleans())
    def claim(self, session: str, want: int, suspects: bool) -> None:
        try:
            claims = self.kit.claim(session, want, take_suspects=suspects)
        except SessionGone:
            assert session not in self.held
            return
        assert session in self.held
        for claim in claims:
            assert not any(claim.id in jobs for jobs in self.held.values()), "claimed twice at once"
            assert claim.fence > self.fence
            assert decode(claim.record).state == Stored.LIVE
            self.held[session][claim.id] = claim
            self.seen.append(claim)
        assert len(claims) == 1 or not any(claim.is_suspect for claim in claims), "suspects are claimed alone"
        self.fence = max([self.fence, *(claim.fence for claim in claims)])

    @rule(session=SESSIONS, kind=KINDS, data=st.data())
    def settle(self, session: str, kind: ops.Kind, data: st.DataObject) -> None:
        """With any claim ever seen: what the session does not hold now is refused.

        Of a job that it holds it knows the newest claim: it came with the session, by a claim or by an adoption.
        """
        if not self.seen:
            return
        drawn = data.draw(st.lists(st.sampled_from(self.seen), min_size=1, max_size=3, unique_by=lambda c: c.id))
        claims = [self.held.get(session, {}).get(claim.id, claim) for claim in drawn]
        try:
            lost = self.kit.settle(session, claims, kind, ms=60_000 if kind == ops.Kind.PARK else 0).lost
        except SessionGone:
            assert session not in self.held
            return
        expected = [claim.id for claim in claims if claim.id not in self.held[session]]
        assert sorted(expected) == sorted(lost)
        for claim in claims:
            self.held[session].pop(claim.id, None)

    @rule(session=SESSIONS, data=st.data())
    def give_back(self, session: str, data: st.DataObject) -> None:
        held = sorted(self.held.get(session, ()))
        job_id = data.draw(st.sampled_from(held) if held else IDS)
        try:
            given = self.client.run(ops.give_back(self.kit.queues, session, [("default", job_id)], split=False))
        except SessionGone:
            assert session not in self.held
            return
        assert (job_id in self.held[session]) == (given == [job_id])
        self.held[session].pop(job_id, None)

    @rule(session=SESSIONS, blamed=IDS, alone=st.booleans())
    def release(self, session: str, blamed: str, alone: bool) -> None:
        self.kit.release(session, blamed, alone=alone)
        self.held.pop(session, None)

    @rule(old=SESSIONS, new=SESSIONS)
    def adopt(self, old: str, new: str) -> None:
        if old == new:
            return
        adopted = self.client.run(ops.adopt(self.kit.queues, old, new, 10_000, split=False))
        expected = {**self.held.pop(old, {}), **self.held.get(new, {})}
        assert sorted(expected) == ids_of(adopted)
        self.held[new] = {claim.id: claim for claim in adopted}

    @rule(session=SESSIONS)
    def lease_ends(self, session: str) -> None:
        if session in self.held:
            self.redis.zadd(self.kit.queue.sessions, {session: int(time.time() * 1000) - 1})
            tended = self.client.run(ops.tend(self.kit.queue, sweep=True))
            assert [session] == tended.swept_sessions
            del self.held[session]

    @rule(job_id=IDS)
    def cancel(self, job_id: str) -> None:
        running = any(job_id in jobs for jobs in self.held.values())
        try:
            answer = self.client.run(ops.cancel(self.kit.queue, job_id))
        except JobNotFound:
            return
        assert (answer == "asked") == running

    @rule(job_id=IDS)
    def retry(self, job_id: str) -> None:
        before = self.kit.state(job_id)
        try:
            answer = self.client.run(ops.retry(self.kit.queue, job_id))
        except JobNotFound:
            assert before == "none"
        else:
            assert (answer == "queued") == (before in {"succeeded", "failed", "cancelled", "expired"})

    @rule(job_id=IDS)
    def delete(self, job_id: str) -> None:
        running = any(job_id in jobs for jobs in self.held.values())
        try:
            answer = self.client.run(ops.delete(self.kit.queue, job_id))
        except JobNotFound:
            return
        assert (answer == "running") == running

    @rule()
    def flush_scripts(self) -> None:
        self.redis.script_flush()

    @rule()
    def retention_ends(self) -> None:
        for place in (self.kit.queue.done, self.kit.queue.dead):
            for job_id in self.redis.zrange(place, 0, -1):
                self.redis.zadd(place, {job_id: 1})
        self.client.run(ops.tend(self.kit.queue, sweep=False))

    @rule()
    def delays_end(self) -> None:
        for job_id in self.redis.zrange(self.kit.queue.delayed, 0, -1):
            self.redis.zadd(self.kit.queue.delayed, {job_id: 1})

    @invariant()
    def every_live_job_is_in_one_place(self) -> None:
        queue, found = self.kit.queue, self.redis
        places = [
            *found.lrange(queue.ready, 0, -1), *found.zrange(queue.priority, 0, -1), *found.zrange(queue.delayed, 0, -1),
            *found.lrange(queue.suspects, 0, -1), *(job for jobs in self.held.values() for job in jobs),
        ]  # fmt: skip
        records = {job_id.decode(): decode(data) for job_id, data in self.raw.hgetall(queue.jobs).items()}
        for job_id, record in records.items():
            if record.state == Stored.LIVE:
                assert places.count(job_id) == 1, f"{job_id} is in {places.count(job_id)} places: {places}"
            else:
                kept = queue.dead if record.state == Stored.FAILED else queue.done
                assert found.zscore(kept, job_id) is not None
        for session, jobs in self.held.items():
            assert set(jobs) == found.smembers(queue.held(session))
        stale = {
            job for job in found.lrange(queue.ready, 0, -1) if job not in records or records[job].state != Stored.LIVE
        }
        assert stale == found.smembers(queue.lingering)
        held_keys = {key for key in found.scan_iter(f"{queue.base}held:*")}
        assert held_keys <= {queue.held(session).decode() for session in self.held}
        assert set(found.zrange(queue.sessions, 0, -1)) == set(self.held)
        assert set(found.hkeys(queue.crashes)) <= set(records)
        assert found.smembers(queue.cancels) <= {job for jobs in self.held.values() for job in jobs} | {
            job for job, record in records.items() if record.state == Stored.LIVE
        }


@pytest.mark.parametrize("examples", [60, pytest.param(1_500, marks=pytest.mark.long)])
def test_no_history_loses_or_doubles_a_job(url: str, examples: int) -> None:
    """Each live job stands in exactly one place, whatever was called, by whom, and how late."""

    class OnThisServer(Machine):
        pass

    OnThisServer.url = url
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        OnThisServer,
        settings=settings(
            max_examples=examples, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
