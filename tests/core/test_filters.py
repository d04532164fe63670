"""The language of filters: what it reads, what it refuses, and which jobs it means."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from headrace.core.failures import fingerprint
from headrace.core.filters import Filter, parse_filter, with_word
from headrace.core.record import AttemptError, JobOptions, Record, State, Stored
from headrace.errors import UsageError
from headrace.wire import encode_call

NOW_MS = 1_800_000_000_000


def read(text: str, **beside: Any) -> Filter:
    return parse_filter(text, now_ms=NOW_MS, **beside)


def record(*args: Any, task: str = "mail.send", options: JobOptions | None = None, **kwargs: Any) -> Record:
    payload = msgspec.Raw(encode_call(args, kwargs))
    return Record(1, int(Stored.LIVE), 0, 0, task, payload, NOW_MS - 60_000, options)


def failed(kind: str, message: str) -> Record:
    found = record()
    found.errors = [AttemptError(1, kind, message)]
    return found


def test_a_filter_names_states_keys_and_words() -> None:
    """`dead` is another word for failed; what was said beside it counts too; quotes hold words together."""
    found = read("task:mail.send state:dead,expired 'time out' args.user.id:42 since:2h tag:vip tag:new", queue="low")
    assert found == Filter(
        states=frozenset({State.FAILED, State.EXPIRED}), task="mail.send", queue="low", words=("time out",),
        args=(("user.id", "42"),), since_ms=NOW_MS - 7_200_000, tags=("vip", "new"),
    )  # fmt: skip
    assert read("").takes_all
    assert read("state:failed queue:low").takes_all
    assert not read("task:a").takes_all


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tsak:x", "no key 'tsak'"),
        ("state:done", "no state 'done'"),
        ("since:yesterday", "no duration"),
        ("task:", "say what, e.g. task:mail.send"),
        ("task:a task:b", "task is said twice"),
        ("args.:1", "no key 'args.'"),
        ("'open", "cannot be read"),
        ("since:" + "9" * 400 + "d", "no duration"),
    ],
)
def test_a_filter_that_cannot_be_meant_is_refused_in_words(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read(text)


@pytest.mark.parametrize(
    "text",
    [
        "task:mail.send", "task:send", "id:1k83", "1k83 mail", "tag:vip", "since:2m", "args.user.id:42", "args.to:an@example.org",
        "args.0:7", "args.user.tags.1:new", "args.a.b:dotted", "args.flag:true", "args.none:null", "args.order_id:9", "welcome",
    ],
)  # fmt: skip
def test_a_job_is_meant(text: str) -> None:
    """By what its task, id, tags, description, age and arguments say: also fields that its task declared."""
    job = record(
        7, user={"id": 42, "tags": ["old", "new"]}, to="an@example.org", flag=True, none=None,
        options=JobOptions(tags=["vip"], description="a welcome", fields={"order_id": "9"}), **{"a.b": "dotted"},
    )  # fmt: skip
    assert read(text).matches("1k83ra38f9clh3epqg26", job)


@pytest.mark.parametrize(
    "text",
    [
        "task:mail",
        "task:nd",
        "id:k83",
        "tag:vi",
        "since:30s",
        "args.user.id:43",
        "args.user:42",
        "args.1:7",
        "error:x",
        "absent",
        "group:g",
    ],
)
def test_a_job_is_not_meant(text: str) -> None:
    job = record(7, user={"id": 42}, options=JobOptions(tags=["vip"]))
    assert not read(text).matches("1k83ra38f9clh3epqg26", job)


def test_positional_arguments_have_names_where_the_task_is_known() -> None:
    """Those of its signature."""
    wanted = read("args.url:https://example.com")
    assert wanted.matches("x", record("https://example.com"), lambda _: ["url"])
    assert not wanted.matches("x", record("https://example.com"))


def test_an_error_is_its_type_its_message_or_its_fingerprint() -> None:
    """The type with its module, or without; part of the message; the id that `headrace dead ls` shows."""
    job = failed("smtplib.SMTPServerDisconnected", "connection lost after 3 s")
    for text in ("smtplib.SMTPServerDisconnected", "SMTPServerDisconnected", "'connection lost'", fingerprint(job)):
        assert read(f"error:{text}").matches("x", job)
    assert not read("error:SMTP").matches("x", job)
    assert not read("error:SMTP").matches("x", record())
    assert read("lost").matches("x", job)


def test_arguments_that_cannot_be_read_match_nothing() -> None:
    """A record whose payload is not one of ours is passed over."""
    job = record()
    job.payload = msgspec.Raw(b"\xc1")
    assert not read("args.a:1").matches("x", job)


def test_a_word_of_a_filter_is_put_in_another_s_place() -> None:
    """And taken out; what else was said stays."""
    assert with_word("task:a 'time out' queue:x", "queue", "low") == "task:a 'time out' queue:low"
    assert with_word("task:a queue:x", "queue", "") == "task:a"
