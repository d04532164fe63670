"""The index of a queue that asks for one: it says what records say, whatever becomes of jobs; a search by it finds what a search without finds."""

from __future__ import annotations

import msgspec
import pytest
from engine_kit import Kit

from headrace.core.filters import parse_filter
from headrace.core.record import AttemptError, JobOptions, Record, State, Stored, decode, encode
from headrace.core.terms import terms_of
from headrace.engine import admin, index, ops
from headrace.engine.audit import audit, repair
from headrace.engine.call import command
from headrace.engine.clients import SyncClient
from headrace.engine.search import Found, find_jobs
from headrace.wire import encode_call


@pytest.fixture
def kit(client: SyncClient) -> Kit:
    return Kit(client)


def record(
    task: str = "mail.send", *, tags: list[str] | None = None, fields: dict[str, str] | None = None, call: object = None
) -> bytes:
    options = JobOptions(tags=tags or [], fields=fields or {})
    payload = msgspec.Raw(encode_call((call,), {"user": {"id": 42}}))
    return encode(Record(1, int(Stored.LIVE), 0, 0, task, payload, 1_700_000_000_000, options))


def add(kit: Kit, *jobs: tuple[str, bytes]) -> None:
    kit.client.enqueue(kit.queue.name, [ops.NewJob(job_id, data) for job_id, data in jobs])


def kept(kit: Kit) -> dict[str, set[str]]:
    """By id, the terms by which a job is found, as the sets of ids say."""
    found: dict[str, set[str]] = {}
    for term in kit.client.run(index.names_like(kit.queue, "", 1000)):
        key = (kit.queue.base + f"index:{term}").encode()
        for job_id in kit.client.run(command("ZRANGE", key, 0, -1, key=key, decode=list)):
            found.setdefault(job_id.decode(), set()).add(term)
    return found


def said(kit: Kit) -> dict[str, set[str]]:
    """The same, as records say."""
    found = {}
    states = tuple(State)
    for row in kit.client.run(admin.list_jobs(kit.queue, states, limit=1000)).rows:
        found[row.id] = set(terms_of(row.record))
    return found


def search(kit: Kit, text: str) -> tuple[set[str], list[Found]]:
    wanted = parse_filter(text, now_ms=1_800_000_000_000)
    pages: list[Found] = []
    cursor = ""
    while True:
        pages.append(kit.client.run(find_jobs([kit.queue], wanted, cursor=cursor, limit=20)))
        cursor = pages[-1].cursor
        if not cursor:
            ids = [row.id for page in pages for row in page.rows]
            assert len(ids) == len(set(ids))
            return set(ids), pages


def test_a_queue_that_does_not_ask_pays_nothing(kit: Kit) -> None:
    """No key of an index is there, whatever its jobs have."""
    add(kit, ("a", record(tags=["vip"])))
    session = kit.open("s")
    kit.settle(session, kit.claim(session))
    assert not {name for name in kit.key_names() if name.startswith(("index", "terms"))}
    assert kit.client.run(index.state_of(kit.queue)) is None


def test_the_index_says_what_records_say_from_enqueue_to_the_end(kit: Kit) -> None:
    """Jobs that were there before, those that come, fail, are retried, succeed, are dropped, deleted, purged and trimmed."""
    add(kit, ("before", record("app.report", tags=["night"])))
    kit.client.run(index.start(kit.queue))
    assert kit.client.run(index.state_of(kit.queue)) == "1"
    add(kit, *((f"j{n}", record(tags=["vip", f"t{n}"], fields={"user.id": str(n)})) for n in range(8)))
    kit.client.enqueue(
        kit.queue.name,
        [ops.NewJob("late", record("app.late"), delay_ms=60_000), ops.NewJob("high", record("app.high"), priority=5)],
    )
    assert kept(kit) == said(kit)
    assert kept(kit)["j3"] == {"task:mail.send", "tag:vip", "tag:t3", "args.user.id:3"}
    session = kit.open("s")
    claims = {claim.id: claim for claim in kit.claim(session, 20)}

    def settle(job_id: str, kind: ops.Kind, state: Stored = Stored.LIVE) -> None:
        old = decode(claims[job_id].record)
        errors = [AttemptError(1, "ValueError", "no")] if kind in (ops.Kind.RETRY, ops.Kind.FAILED) else None
        new = encode(msgspec.structs.replace(old, state=int(state), attempt=1, errors=errors))
        done = ops.Settlement(
            kit.queue.name, job_id, kind, new, delay_ms=60_000 if kind is ops.Kind.RETRY else 0, keep_ms=60_000
        )
        kit.client.run(ops.settle(kit.queues, session, [done], split=kit.split))

    settle("j0", ops.Kind.SUCCEEDED, Stored.SUCCEEDED)
    settle("j1", ops.Kind.FAILED, Stored.FAILED)
    settle("j2", ops.Kind.RETRY)
    settle("j3", ops.Kind.DROPPED, Stored.SUCCEEDED)
    assert kept(kit) == said(kit)
    assert "error" in kept(kit)["j1"] & kept(kit)["j2"]
    assert "j3" not in kept(kit)
    kit.client.run(ops.delete(kit.queue, "j0"))
    kit.client.run(ops.retry(kit.queue, "j1"))
    kit.client.run(ops.cancel(kit.queue, "late"))
    kit.client.run(ops.close_session(kit.queues, session, split=kit.split))
    assert kept(kit) == said(kit)
    kit.client.run(ops.tend(kit.queue, sweep=False, done_max=0))
    kit.client.run(admin.purge(kit.queue, State.QUEUED))
    assert kept(kit) == said(kit)
    assert set(kept(kit)) == {"j2"}
    assert kit.client.run(audit(kit.queue)).violations == []


def test_a_worker_that_is_lost_three_times_leaves_a_job_that_is_found_by_its_error(kit: Kit) -> None:
    """Though no attempt of it told of one."""
    kit.client.run(index.start(kit.queue))
    add(kit, ("bad", record()))
    for n in range(4):
        session = kit.open(f"s{n}")
        if not kit.claim(session, 1):
            break
        kit.client.run(
            ops.release(kit.queues, session, blamed=["bad"], alone=n > 0, reason="killed by signal 11", split=kit.split)
        )
    assert kit.state("bad") == "failed"
    assert kept(kit) == said(kit) == {"bad": {"task:mail.send", "error"}}
    assert search(kit, "error:signal")[0] == {"bad"}
    kit.client.run(ops.retry(kit.queue, "bad"))
    assert kept(kit) == said(kit)


def test_what_replaces_a_waiting_job_s_arguments_is_found_by_the_new_ones(kit: Kit) -> None:
    """And no longer by the old."""
    kit.client.run(index.start(kit.queue))
    for number in ("1", "2"):
        new = ops.NewJob(
            f"j{number}",
            record(fields={"order": number}),
            ties=msgspec.msgpack.encode({"u": "k", "s": True}),
            on_conflict="replace",
        )
        kit.client.enqueue(kit.queue.name, [new])
    assert kept(kit) == {"j1": {"task:mail.send", "args.order:2"}}


@pytest.mark.parametrize("text", [
    "task:mail.send", "task:send", "task:none", "tag:t1", "tag:t1 tag:vip", "args.user.id:3", "args.user.id:42", "error:ValueError", "tag:vip state:failed",
    "tag:vip state:queued,running", "tag:t2 since:1d", "args.user.id:3 args.0:x",
])  # fmt: skip
def test_a_search_by_the_index_finds_what_a_search_without_finds(kit: Kit, text: str) -> None:
    """Each job once, also those whose task does not declare the argument that is asked for."""
    add(
        kit,
        *(
            (
                f"j{n}",
                record(
                    "mail.send" if n % 2 else "mail.sort",
                    tags=["vip", f"t{n % 5}"],
                    fields={"user.id": str(n % 4)} if n % 3 else {},
                ),
            )
            for n in range(60)
        ),
    )
    session = kit.open("s")
    for claim in kit.claim(session, 6):
        new = msgspec.structs.replace(
            decode(claim.record), state=int(Stored.FAILED), errors=[AttemptError(1, "ValueError", "no")]
        )
        done = ops.Settlement(kit.queue.name, claim.id, ops.Kind.FAILED, encode(new), keep_ms=60_000)
        kit.client.run(ops.settle(kit.queues, session, [done], split=kit.split))
    kit.claim(session, 3)
    without, _ = search(kit, text)
    kit.client.run(index.start(kit.queue))
    found, _ = search(kit, text)
    assert found == without


def test_few_of_many_are_found_at_once(kit: Kit) -> None:
    """A term that few jobs have, in a queue of thousands: only those are read."""
    kit.client.run(index.start(kit.queue))
    for first in range(0, 3_000, 1_000):
        add(kit, *((f"j{n}", record(fields={"order": str(n)})) for n in range(first, first + 1_000)))
    add(kit, ("rare", record("mail.rare", tags=["vip"])))
    for text, job_id in (("task:mail.rare", "rare"), ("tag:vip", "rare"), ("args.order:1234", "j1234")):
        page = kit.client.run(find_jobs([kit.queue], parse_filter(text, now_ms=0)))
        assert [row.id for row in page.rows] == [job_id]
        assert page.looked_at == 1


def test_a_record_that_is_too_large_to_be_read_is_found_all_the_same(kit: Kit) -> None:
    """By its tag: it is looked at beside those that have the tag's term."""
    kit.client.run(index.start(kit.queue))
    add(kit, ("large", record(tags=["vip"], call=list(range(10_000)))), ("small", record(tags=["vip"])))
    assert kept(kit)["large"] == {"task:mail.send", "?"}
    assert search(kit, "tag:vip")[0] == {"large", "small"}
    assert search(kit, "task:mail.send")[0] == {"large", "small"}
    assert kit.client.run(audit(kit.queue)).violations == []


def test_long_words_in_any_script_are_found(kit: Kit) -> None:
    """A term is cut where it is too long, in the middle of no character."""
    kit.client.run(index.start(kit.queue))
    texts = ["ế" * 100, "x" * 300, "ab\0cd", "công việc " * 15, "x" * 189 + "ế"]
    add(
        kit,
        *(
            (f"j{n}", record("t" * 190 + text[:10], tags=[text[:100]], fields={"name": text[:150]}))
            for n, text in enumerate(texts)
        ),
    )
    assert kept(kit) == said(kit)
    for n, text in enumerate(texts):
        wanted = msgspec.structs.replace(parse_filter("", now_ms=0), args=(("name", text),))
        page = kit.client.run(find_jobs([kit.queue], wanted))
        assert f"j{n}" in [row.id for row in page.rows]


def test_an_index_that_is_ended_leaves_no_key(kit: Kit) -> None:
    """And jobs are found as before."""
    kit.client.run(index.start(kit.queue))
    add(kit, ("a", record(tags=["vip"])), ("b", record()))
    kit.client.run(index.end(kit.queue))
    assert not {name for name in kit.key_names() if name.startswith(("index", "terms"))}
    assert search(kit, "tag:vip")[0] == {"a"}
    kit.client.run(index.start(kit.queue))
    assert kept(kit) == said(kit)


@pytest.mark.damages
def test_a_damaged_index_is_found_and_mended(kit: Kit) -> None:
    """What is missing, what is too much, and what belongs to no job."""
    kit.client.run(index.start(kit.queue))
    add(kit, *((f"j{n}", record(tags=["vip"])) for n in range(4)))
    base = kit.queue.base
    for words in (
        ("ZREM", base + "index:tag:vip", "j0"), ("ZADD", base + "index:tag:vip", 1, "nobody"), ("HDEL", base + "index", "j1"),
        ("HSET", base + "index", "gone", "tag:vip"), ("ZADD", base + "index:tag:other", 1, "j2"), ("ZREM", base + "terms", "task:mail.send"),
    ):  # fmt: skip
        kit.client.run(command(*words, key=kit.queue.jobs, decode=int))
    assert {"index"} == {found.rule for found in kit.client.run(audit(kit.queue)).violations}
    assert kit.client.run(repair(kit.queue)).violations == []
    assert kept(kit) == said(kit)
