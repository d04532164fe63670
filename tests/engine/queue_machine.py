"""Two clients call one queue in any order; after each call the server holds exactly what the model says.

Sessions that have ended, claims that others took over, replies that were lost, scripts that were flushed, connections
that were dropped and the server's clock moved forward are all part of it. At the end the queue is drained, and
nothing may be left.
"""

from __future__ import annotations

from typing import Any

import msgspec
import redis
from engine_kit import record_bytes
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from queue_model import DAY_MS, LIVE, Model, Outcome

from faketime import ServerClock
from headrace.core.record import Record, Stored, decode, encode
from headrace.engine import admin, index, ops
from headrace.engine.audit import audit
from headrace.engine.clients import ServerConfig, SyncClient
from headrace.engine.keys import queue_keys
from headrace.errors import JobExists, JobNotFound, SessionGone

IDS = st.sampled_from(["a", "b", "c", "d", "e"])
SESSIONS = st.sampled_from(["s1", "s2", "s3"])
WAITERS = st.sampled_from(["w1", "w2"])
PRIORITIES = st.sampled_from([0, 0, 0, 7, 100, -7, -100])
# No sum of steps of the clock comes nearer than 100 s to a sum of these, so that real time does not count.
LEASE_MS, DELAY_MS, KEEP_MS, EXPIRY_MS = 1_000_000, 5_000_000, 3_600_000, 3_600_000
DELAYS = st.sampled_from([0, 0, 0, DELAY_MS])
STEPS_S = st.sampled_from([700, 700, 90_000])
NEAR_MS = 60_000
REASON = "killed by SIGKILL"
SWEPT = "worker lost: its lease ended"
STATES = {ops.Kind.SUCCEEDED: Stored.SUCCEEDED, ops.Kind.FAILED: Stored.FAILED, ops.Kind.CANCELLED: Stored.CANCELLED}
QUEUE = queue_keys("default")


class QueueMachine(RuleBasedStateMachine):
    """`model` says what the server must hold; `seen` are all claims ever handed out, `mine` the newest of each held job."""

    url = ""
    clock: ServerClock | None = None

    def __init__(self) -> None:
        super().__init__()
        self.raw: Any = redis.Redis.from_url(self.url)
        self.raw.flushall()
        self.clients = [SyncClient(ServerConfig(self.url)) for _ in range(2)]
        self.model = Model(now_ms=self._server_ms())
        self.seen: list[ops.Claim] = []
        self.mine: dict[str, dict[str, ops.Claim]] = {}
        self.fence = 0
        self.sent: list[ops.NewJob] = []
        self.sent_at_ms = 0
        self.turn = 0

    def teardown(self) -> None:
        try:
            self.a_check_finds_nothing()
            self.drain()
        finally:
            for client in self.clients:
                client.close()
            self.raw.close()

    def run(self, op: ops.Call[Any] | ops.Steps[Any]) -> Any:
        """By the other client each time."""
        self.turn += 1
        return self.clients[self.turn % 2].run(op)

    # -- producers

    @initialize(data=st.data(), priorities=st.lists(PRIORITIES, min_size=4, max_size=4), is_indexed=st.booleans())
    def begin(self, data: st.DataObject, priorities: list[int], is_indexed: bool) -> None:
        """Sessions, one of them with jobs: without them most steps would meet nothing. With an index, or without."""
        if is_indexed:
            self.run(index.start(QUEUE))
        for session in ("s1", "s2", "s3"):
            self.open(session)
        for job_id, priority in zip("abcd", priorities, strict=True):
            self.enqueue(job_id, data.draw(DELAYS), priority, data.draw(st.booleans()), False)
        self.claim("s1", 2, True)

    @rule(
        job_id=IDS,
        delay=DELAYS,
        priority=PRIORITIES,
        front=st.booleans(),
        expires=st.booleans(),
    )
    def enqueue(self, job_id: str, delay: int, priority: int, front: bool, expires: bool) -> None:
        ms = EXPIRY_MS if expires and self.clock else 0
        record = record_bytes(priority=priority, expires_at_ms=1 << 40 if ms else 0)
        job = ops.NewJob(job_id, record, priority, front, delay, check_id=True, expires_in_ms=ms)
        is_new = self.model.enqueue(job_id, priority=priority, front=front, delay_ms=delay, expires_in_ms=ms)
        number = len(self.sent) + 1
        try:
            self.run(ops.enqueue(QUEUE, [job], "producer", number))
        except JobExists:
            assert not is_new
        else:
            assert is_new
            self.sent.append(job)
            self.sent_at_ms = self._server_ms()

    @rule(data=st.data())
    def send_an_old_call_again(self, data: st.DataObject) -> None:
        """Its reply had been lost: it is recognised, whatever became of the job."""
        if self.sent:
            number = data.draw(st.integers(1, len(self.sent)))
            self.run(ops.enqueue(QUEUE, [self.sent[number - 1]], "producer", number))

    # -- consumers

    @rule(session=SESSIONS)
    def open(self, session: str) -> None:
        self.run(ops.open_session([QUEUE], session, LEASE_MS, split=False))
        self.model.open(session, LEASE_MS)
        self.mine.setdefault(session, {})

    @rule(session=SESSIONS, want=st.integers(1, 3), suspects=st.booleans())
    def claim(self, session: str, want: int, suspects: bool) -> None:
        try:
            claimed = self.run(ops.claim([QUEUE], session, want, take_suspects=suspects, split=False))
        except SessionGone:
            assert session not in self.model.leases
            return
        self.expect_claims(session, claimed, want, suspects)

    @rule(session=SESSIONS)
    def work(self, session: str) -> None:
        """Be there, and take something: without it histories run dry."""
        self.open(session)
        self.claim(session, 2, True)

    def expect_claims(self, session: str, claimed: ops.Claimed, want: int, suspects: bool) -> None:
        assert session in self.model.leases, "a session that is gone was given jobs"
        expected = self.model.claim(session, want, suspects)
        assert expected.ids == [claim.id for claim in claimed.claims]
        assert (expected.more, expected.suspects_waiting) == (claimed.more, claimed.suspects_waiting)
        assert (claimed.next_due_ms is None) == (not self.model.delayed or self.model.is_paused)
        if claimed.next_due_ms is not None:
            earliest = min(self.model.delayed.values()) - self.model.now_ms
            assert abs(claimed.next_due_ms - earliest) < NEAR_MS
        for claim in claimed.claims:
            assert claim.is_suspect == expected.is_suspect
        self.remember(session, claimed.claims)

    def remember(self, session: str, claims: list[ops.Claim]) -> None:
        for claim in claims:
            assert claim.fence > self.fence, "a fence was used twice"
            self.check_record(claim.id, decode(claim.record))
            assert claim.is_suspect == (claim.id in self.model.crashes)
            self.mine[session][claim.id] = claim
            self.seen.append(claim)
        self.fence = max([self.fence, *(claim.fence for claim in claims)])

    @precondition(lambda self: bool(self.seen))
    @rule(session=SESSIONS, want=st.integers(0, 2), is_late=st.booleans(), reply_is_lost=st.booleans(), data=st.data())
    def settle(self, session: str, want: int, is_late: bool, reply_is_lost: bool, data: st.DataObject) -> None:
        """With any claim ever seen: what the session does not hold now is refused.

        Of a job that it holds it knows the newest claim: it came with the session, by a claim or by an adoption.
        """
        mine = self.mine.get(session, {})
        known = self.seen if is_late or not mine else list(mine.values())
        drawn = data.draw(st.lists(st.sampled_from(known), min_size=1, max_size=3, unique_by=lambda claim: claim.id))
        claims = [mine.get(claim.id, claim) for claim in drawn]
        kinds = [data.draw(st.sampled_from(list(ops.Kind))) for _ in claims]
        delays = [data.draw(st.sampled_from([0, DELAY_MS])) for _ in claims]
        is_done = self.settle_claims(session, claims, kinds, delays, want, reply_is_lost=reply_is_lost)
        if is_done and reply_is_lost:
            self.adopt(session, data.draw(SESSIONS.filter(lambda other: other != session)))

    def settle_claims(
        self, session: str, claims: list[ops.Claim], kinds: list[ops.Kind], delays: list[int], want: int,
        *, reply_is_lost: bool = False,
    ) -> bool:  # fmt: skip
        """False: the session is gone."""
        outcomes = [
            self.settlement(claim, kind, delay) for claim, kind, delay in zip(claims, kinds, delays, strict=True)
        ]
        try:
            settled = self.run(ops.settle([QUEUE], session, outcomes, want=want, split=False))
        except SessionGone:
            assert session not in self.model.leases
            return False
        assert session in self.model.leases, "a session that is gone could settle"
        told = [Outcome(item.id, item.kind, item.delay_ms or item.keep_ms, item.is_suspect) for item in outcomes]
        assert sorted(self.model.settle(session, told)) == sorted(settled.lost)
        for outcome in outcomes:
            self.mine[session].pop(outcome.id, None)
        if want and reply_is_lost:
            self.model.claim(session, want, True)
        elif want:
            self.expect_claims(session, settled.claimed, want, True)
        return True

    def settlement(self, claim: ops.Claim, kind: ops.Kind, delay_ms: int) -> ops.Settlement:
        record = decode(claim.record)
        charged = kind not in (ops.Kind.PARK, ops.Kind.RELEASE)
        state = int(STATES.get(kind, Stored.SUCCEEDED if kind is ops.Kind.DROPPED else Stored.LIVE))
        new = msgspec.structs.replace(record, state=state, attempt=record.attempt + charged, reason=None)
        data = encode(new)
        if kind is ops.Kind.RELEASE:
            data = b""
        elif kind is ops.Kind.DROPPED and delay_ms and record.reason is None:
            data = b"\xc4\x01\x05"  # the result alone, as workers send it
        return ops.Settlement(
            claim.queue, claim.id, kind, data,
            delay_ms=delay_ms if kind in (ops.Kind.RETRY, ops.Kind.PARK) else 0,
            keep_ms=KEEP_MS if kind in STATES else 0, is_suspect=claim.is_suspect,
        )  # fmt: skip

    @rule(kind=st.sampled_from(list(ops.Kind)), data=st.data())
    def end_what_is_held(self, kind: ops.Kind, data: st.DataObject) -> None:
        """The usual way: a session settles a batch that it holds, all of one kind, and claims the next."""
        held = sorted(session for session, claims in self.mine.items() if claims)
        if held:
            session = data.draw(st.sampled_from(held))
            claims = list(self.mine[session].values())
            self.settle_claims(session, claims, [kind] * len(claims), [0] * len(claims), 2)

    @rule(session=SESSIONS, data=st.data())
    def give_back(self, session: str, data: st.DataObject) -> None:
        held = sorted(self.model.held.get(session, ()))
        ids = data.draw(st.lists(st.sampled_from(held) if held else IDS, min_size=1, max_size=3, unique=True))
        try:
            given = self.run(ops.give_back([QUEUE], session, [("default", job_id) for job_id in ids], split=False))
        except SessionGone:
            assert session not in self.model.leases
            return
        assert session in self.model.leases, "a session that is gone could give back"
        assert self.model.give_back(session, ids) == given
        for job_id in given:
            self.mine[session].pop(job_id, None)

    @rule(
        session=SESSIONS, blamed=st.lists(IDS, max_size=4, unique=True), alone=st.booleans(),
        stopped=st.sampled_from([False, False, False, True]),
    )  # fmt: skip
    def release(self, session: str, blamed: list[str], alone: bool, stopped: bool) -> None:
        self.blame(session, blamed, alone=alone, stopped=stopped)

    @precondition(lambda self: bool(self.model.suspects) and not self.model.is_paused)
    @rule()
    def die_of_a_suspect(self) -> None:
        """A worker that took a suspect, alone, is gone: without it hardly any job dies of its crashes."""
        self.release("s1", [], False, False)
        self.open("s1")
        self.claim("s1", 1, True)
        for job_id in list(self.mine["s1"]):
            self.blame("s1", [job_id], alone=True, stopped=False)

    def blame(self, session: str, blamed: list[str], *, alone: bool, stopped: bool) -> None:
        released = self.run(
            ops.release([QUEUE], session, blamed=blamed, alone=alone, reason=REASON, stopped=stopped, split=False)
        )
        expected = self.model.release(session, blamed, alone=alone, stopped=stopped, reason=REASON)
        assert expected == (released.suspects, released.returned, released.failed)
        self.mine.pop(session, None)

    @rule(old=SESSIONS, new=SESSIONS)
    def adopt(self, old: str, new: str) -> None:
        if old == new:
            return
        adopted = self.run(ops.adopt([QUEUE], old, new, LEASE_MS, split=False))
        assert self.model.adopt(old, new, LEASE_MS) == [claim.id for claim in adopted]
        self.mine.pop(old, None)
        self.mine[new] = {}
        self.remember(new, adopted)

    @rule(sessions=st.lists(SESSIONS, min_size=1, max_size=2, unique=True))
    def renew(self, sessions: list[str]) -> None:
        renewed = self.run(ops.renew([QUEUE], sessions, LEASE_MS, split=False))
        assert self.model.renew(sessions, LEASE_MS) == set(renewed.gone)
        assert {("default", job_id) for job_id in self.model.cancels} == set(renewed.cancels)

    # -- supervisors, and time

    @rule(sweep=st.booleans(), done_max=st.sampled_from([ops.DONE_MAX, ops.DONE_MAX, 1]))
    def tend(self, sweep: bool, done_max: int) -> None:
        tended = self.run(ops.tend(QUEUE, sweep=sweep, done_max=done_max))
        promoted, swept, jobs, trimmed = self.model.tend(sweep=sweep, done_max=done_max, reason=SWEPT)
        assert (promoted, swept, jobs, trimmed) == (
            tended.promoted, tended.swept_sessions, tended.swept_jobs, tended.trimmed,
        )  # fmt: skip
        for session in swept:
            self.mine.pop(session, None)
        if not self.raw.hexists(QUEUE.producers, "producer"):
            assert self.model.now_ms - self.sent_at_ms > DAY_MS - NEAR_MS, "a producer was forgotten within a day"
            self.sent.clear()

    @rule(seconds=STEPS_S)
    def time_passes(self, seconds: int) -> None:
        """The server's own clock, where it can be moved; else all that waits for an instant comes nearer by as much."""
        ms = seconds * 1000
        if self.clock:
            self.clock.advance(seconds)
            self.model.rings.clear()
        else:
            for key in (QUEUE.delayed, QUEUE.sessions, QUEUE.done, QUEUE.dead):
                for member, score in self.raw.zrange(key, 0, -1, withscores=True):
                    self.raw.zadd(key, {member: score - ms})
            for place in (self.model.delayed, self.model.leases, self.model.done, self.model.dead):
                for name in place:
                    place[name] -= ms
        self.model.now_ms = self._server_ms()

    @rule(what=st.sampled_from(["scripts are flushed", "connections are dropped", "paused", "resumed", "resumed"]))
    def disturb(self, what: str) -> None:
        if what == "scripts are flushed":
            self.raw.script_flush()
        elif what == "connections are dropped":
            self.raw.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        else:
            self.pause_or_resume(what == "paused")

    # -- operators and users

    def pause_or_resume(self, pause: bool) -> None:
        was = self.model.is_paused
        changed = self.run(admin.pause(QUEUE, "deploy") if pause else admin.resume(QUEUE))
        assert changed == (was != pause)
        self.model.is_paused = pause
        self.model.must_ring = self.model.must_ring or not pause

    @rule(job_id=IDS, verb=st.sampled_from(["cancel", "cancel", "retry", "retry", "delete", "purge", "run_now"]))
    def operate(self, job_id: str, verb: str) -> None:
        if verb == "purge":
            self.purge("delayed" if job_id in self.model.delayed else "priority", [job_id])
        else:
            getattr(self, verb)(job_id)

    @rule(job_id=IDS, verb=st.sampled_from(["retry", "delete", "forget", "forget and enqueue", "purge the queue"]))
    def cancel_and(self, job_id: str, verb: str) -> None:
        """What follows on a cancel meets the entry that may linger."""
        self.cancel(job_id)
        holder = self.model.holder_of(job_id)
        if holder and verb in ("delete", "forget"):
            self.run(ops.give_back([QUEUE], holder, [("default", job_id)], split=False))
            self.model.give_back(holder, [job_id])
            self.mine[holder].pop(job_id, None)
        if verb == "purge the queue":
            self.purge("ready", ["one", "two"])
        elif verb.startswith("forget"):
            self.purge("done", [job_id])
            if verb != "forget":
                self.enqueue(job_id, 0, 0, False, False)
        else:
            getattr(self, verb)(job_id)

    def cancel(self, job_id: str) -> None:
        assert self.model.cancel(job_id) == self.answer(ops.cancel(QUEUE, job_id))

    def retry(self, job_id: str) -> None:
        assert self.model.retry(job_id) == self.answer(ops.retry(QUEUE, job_id))

    def run_now(self, job_id: str) -> None:
        assert self.model.run_now(job_id) == self.answer(ops.run_now(QUEUE, job_id))

    def delete(self, job_id: str) -> None:
        assert self.model.delete(job_id) == self.answer(ops.delete(QUEUE, job_id))

    def purge(self, place: str, ids: list[str]) -> None:
        if place == "ready":
            gone = self.run(admin._purge(QUEUE, place, len(ids), ()))[1] if ids else 0
        else:
            gone = self.run(admin.purge_jobs(QUEUE, place, ids))
        assert self.model.purge(place, ids) == gone

    @rule(job_id=IDS, waiter=WAITERS, verb=st.sampled_from(["progress", "stray progress", "watch", "watch", "unwatch"]))
    def follow(self, job_id: str, waiter: str, verb: str) -> None:
        if verb.endswith("progress"):
            self.tell_progress(job_id, self.model.holder_of(job_id) if verb == "progress" else None)
        elif verb == "watch":
            self.watch(job_id, waiter)
        else:
            self.stop_watching(job_id, waiter)

    def tell_progress(self, job_id: str, session: str | None) -> None:
        told = self.run(ops.set_progress(QUEUE, (session or "none", ""), job_id, b"\x90"))
        assert self.model.note_progress(job_id, session) == told

    def watch(self, job_id: str, waiter: str) -> None:
        try:
            record = self.run(ops.watch(QUEUE, job_id, waiter))
        except JobNotFound:
            assert self.model.watch(job_id, waiter) == "none"
        else:
            assert self.model.watch(job_id, waiter) == ("watching" if record is None else "ended")

    def stop_watching(self, job_id: str, waiter: str) -> None:
        self.run(ops.unwatch(QUEUE, job_id, waiter))
        self.model.unwatch(job_id, waiter)

    def answer(self, op: ops.Steps[str]) -> str:
        try:
            return str(self.run(op))
        except JobNotFound:
            return "none"

    # -- what must hold after each step

    def _server_ms(self) -> int:
        seconds, micros = self.raw.time()
        return int(seconds) * 1000 + int(micros) // 1000

    @invariant()
    def the_server_holds_what_the_model_says(self) -> None:
        model, pipe = self.model, self.raw.pipeline(transaction=False)
        pipe.hgetall(QUEUE.jobs)
        pipe.lrange(QUEUE.ready, 0, -1).lrange(QUEUE.suspects, 0, -1).zrange(QUEUE.priority, 0, -1, withscores=True)
        for key in (QUEUE.delayed, QUEUE.sessions, QUEUE.done, QUEUE.dead):
            pipe.zrange(key, 0, -1, withscores=True)
        pipe.hgetall(QUEUE.crashes).smembers(QUEUE.cancels).hkeys(QUEUE.progress).smembers(QUEUE.lingering)
        pipe.hgetall(QUEUE.watched).hgetall(QUEUE.stats).hgetall(QUEUE.meta).time().zrem(QUEUE.wake, "1")
        sessions = sorted(model.held)
        for session in sessions:
            pipe.smembers(QUEUE.held(session))
        for waiter in ("w1", "w2"):
            pipe.lrange(QUEUE.waiter(waiter), 0, -1)
        (
            jobs, ready, suspects, ranks, delayed, leases, done, dead, crashes, cancels, progress, lingering,
            watched, stats, meta, time, rang, *rest,
        ) = pipe.execute()  # fmt: skip
        assert model.ready == _texts(ready)
        assert model.suspects == _texts(suspects)
        assert model.by_rank() == [job_id.decode() for job_id, _ in ranks]
        for mine, theirs in ((model.delayed, delayed), (model.leases, leases), (model.done, done), (model.dead, dead)):
            _near(mine, theirs)
        assert {name.encode(): b"%d" % count for name, count in model.crashes.items()} == crashes
        assert model.cancels == set(_texts(cancels))
        assert model.progress == set(_texts(progress))
        assert model.lingering == set(_texts(lingering))
        assert self.expected_tokens() == {name.decode(): set(_texts(value.split())) for name, value in watched.items()}
        assert dict(+model.totals) == {name.decode(): int(count) for name, count in stats.items()}
        assert model.is_paused == (b"paused" in meta)
        assert int(meta.get(b"fence", 0)) >= self.fence
        assert rang or not model.must_ring, "nobody was woken for a job that can be claimed"
        for session, ids in zip(sessions, rest, strict=False):
            assert model.held[session] == set(_texts(ids))
        for waiter, records in zip(("w1", "w2"), rest[len(sessions) :], strict=True):
            told = [decode(record).state if record else 0 for record in records]
            assert sorted(model.rings.get(waiter, [])) == sorted(told)
        assert set(model.jobs) == set(_texts(jobs))
        for job_id, data in jobs.items():
            self.check_record(job_id.decode(), decode(data))
        model.must_ring = False
        model.now_ms = int(time[0]) * 1000 + int(time[1]) // 1000

    def check_record(self, job_id: str, record: Record) -> None:
        """A claim's record, or a stored one, is what the model says."""
        job = self.model.jobs[job_id]
        assert (job.state, job.attempt, job.reason, job.priority) == (
            record.state, record.attempt, record.reason, record.priority,
        )  # fmt: skip
        assert abs(job.expires_at_ms - record.expires_at_ms) < NEAR_MS

    def expected_tokens(self) -> dict[str, set[str]]:
        tokens: dict[str, set[str]] = {}
        for job_id, waiters in self.model.waiters.items():
            if waiters:
                tokens[job_id] = {f"w:{waiter}" for waiter in waiters}
        for token, ids in (("p", self.model.progress), ("c", self.model.cancels)):
            for job_id in ids:
                tokens.setdefault(job_id, set()).add(token)
        return tokens

    @rule()
    def a_check_finds_nothing(self) -> None:
        assert [] == self.clients[0].run(audit(QUEUE)).violations

    def drain(self) -> None:
        """Everything runs to its end, everything kept is forgotten; then only the queue's own few keys are there."""
        client = self.clients[0]
        client.run(admin.resume(QUEUE))
        for session in self.raw.zrange(QUEUE.sessions, 0, -1):
            client.run(ops.close_session([QUEUE], session.decode(), split=False))
        client.run(ops.open_session([QUEUE], "last", LEASE_MS, split=False))
        for _ in range(40):
            for member in self.raw.zrange(QUEUE.delayed, 0, -1):
                self.raw.zadd(QUEUE.delayed, {member: 1})
            claimed = client.run(ops.claim([QUEUE], "last", 10, split=False))
            ended = [
                ops.Settlement("default", claim.id, ops.Kind.DROPPED, b"\xc4\x01\x05", is_suspect=claim.is_suspect)
                for claim in claimed.claims
            ]
            assert [] == client.run(ops.settle([QUEUE], "last", ended, split=False)).lost
            if not (claimed.claims or claimed.more or self.raw.exists(QUEUE.delayed)):
                break
        for place in (QUEUE.done, QUEUE.dead):
            for member in self.raw.zrange(place, 0, -1):
                self.raw.zadd(place, {member: 1})
        client.run(ops.tend(QUEUE, sweep=False))
        client.run(ops.close_session([QUEUE], "last", split=False))
        mine = {QUEUE.meta, QUEUE.stats, QUEUE.producers, QUEUE.wake}
        left = {key for key in self.raw.scan_iter() if b":waiter:" not in key}
        assert left <= mine, f"left behind: {left - mine}"
        assert set(self.raw.hkeys(QUEUE.meta)) <= {
            b"layout",
            b"fence",
            b"seq",
            b"trim_at",
            b"longest_lease",
            b"indexed",
        }


def _texts(items: Any) -> list[str]:
    return [item.decode() for item in items]


def _near(mine: dict[str, int], theirs: list[tuple[bytes, float]]) -> None:
    """The same names, at nearly the same instants; the server's are taken over, as order within a millisecond is its own."""
    assert set(mine) == {name.decode() for name, _ in theirs}
    for name, at in theirs:
        assert abs(mine[name.decode()] - at) < NEAR_MS, f"{name.decode()} is due {at - mine[name.decode()]:.0f} ms off"
        mine[name.decode()] = int(at)


__all__ = ["LIVE", "QueueMachine"]
