"""RQ's small functions that other packages import, and its log handlers."""

from __future__ import annotations

import io
import logging
from datetime import UTC, datetime

import pytest

from headrace.contrib.rq import logutils, utils
from headrace.contrib.rq.exceptions import NoRedisConnectionException, ShutDownImminentException, TimeoutFormatError
from headrace.contrib.rq.serializers import JSONSerializer, resolve_serializer
from headrace.contrib.rq.webhook import Webhook


def test_durations_are_read_as_rq_reads_them() -> None:
    """Seconds, texts of them, and texts with a unit; what is none says how to write one."""
    told = {None: None, 5: 5, 5.9: 5, "7": 7, "-1": -1, "10s": 10, "23m": 1380, "1h": 3600, "2D": 172_800}
    assert {given: utils.parse_timeout(given) for given in told} == told
    for wrong in ("", "h", "1w", "1h30m", "soon"):
        with pytest.raises(TimeoutFormatError, match="'1h', '23m'"):
            utils.parse_timeout(wrong)


def test_a_dotted_path_finds_what_it_names() -> None:
    """A function, a method of a class, a builtin; a module that fails to import is not passed over."""
    assert utils.import_attribute("json.dumps") is __import__("json").dumps
    assert utils.import_attribute("collections.OrderedDict.fromkeys")("a") == {"a": None}
    assert utils.import_attribute("max") is max
    for wrong in ("no_such_module.thing", "json.no_such", "nothing_at_all"):
        with pytest.raises(ValueError, match="Invalid attribute name"):
            utils.import_attribute(wrong)
    assert utils.resolve_function_reference("a.b") == (None, "a.b")
    assert utils.resolve_function_reference([].append) == (None, "None.list.append")
    with pytest.raises(TypeError, match="callable"):
        utils.resolve_function_reference(7)
    assert utils.backend_class(logging, "Logger") is logging.Logger is utils.backend_class(None, "", "logging.Logger")


def test_texts_and_times_go_both_ways() -> None:
    """A call as people read it, cut where it is long; RQ's way to write an instant."""
    assert utils.get_call_string("f", (1, "x" * 9), {"b": 2, "a": 1}, 5) == "f(1, 'xxxx..., a=1, b=2)"
    assert utils.get_call_string(None, (), {}) is None
    at = datetime(2026, 1, 2, 3, 4, 5, 600, tzinfo=UTC)
    assert utils.utcparse(utils.utcformat(at)) == at == utils.str_to_date(utils.utcformat(at).encode())
    assert utils.utcparse("2026-01-02T03:04:05Z") == at.replace(microsecond=0)
    with pytest.raises(ValueError, match="Empty"):
        utils.str_to_date("")
    assert (utils.as_text(b"a"), utils.as_text("b"), utils.decode_redis_hash({b"a": b"1"}, decode_values=True)) == (
        "a",
        "b",
        {"a": "1"},
    )
    with pytest.raises(ValueError, match="Unknown type"):
        utils.as_text(5)  # type: ignore[arg-type]
    assert abs(utils.current_timestamp() - utils.now().timestamp()) < 5


def test_lists_are_taken_as_rq_takes_them() -> None:
    """One or several; in slices; without what is None; names of queues; the halves of an execution's key."""
    assert utils.ensure_job_list("a") == ["a"] and utils.ensure_job_list(("a", "b")) == ["a", "b"]
    assert utils.compact([1, None, 0]) == [1, 0] and list(utils.split_list([1, 2, 3], 2)) == [[1, 2], [3]]
    assert utils.ceildiv(7, 2) == 4 and utils.parse_names(["a"]) == ["a"]
    assert utils.parse_composite_key("job:run") == ("job", "run") and utils.parse_composite_key("job") == ("job", "")


def test_a_serializer_has_dumps_and_loads() -> None:
    """By name, by path, as an object; else it says what is missing."""
    assert (
        resolve_serializer("json")
        is JSONSerializer
        is resolve_serializer("headrace.contrib.rq.serializers.JSONSerializer")
    )
    with pytest.raises(NotImplementedError, match="dumps"):
        resolve_serializer(object())


def test_errors_and_webhooks_carry_what_rq_s_do() -> None:
    """A missing connection is a TypeError, as in RQ 2 and 3, under RQ 1's name; a webhook is plain data."""
    assert issubclass(NoRedisConnectionException, TypeError)
    assert ShutDownImminentException("stop", {"a": 1}).extra_info == {"a": 1}
    hook = Webhook("https://example.com/x", "finished", headers={"A": "b"}, timeout=3)
    assert Webhook.from_dict(hook.to_dict()) == hook != Webhook.from_dict({"url": hook.url, "job_status": "finished"})
    for wrong in ({"method": "PUT"}, {"timeout": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Webhook(hook.url, "failed", **wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="headers"):
        Webhook(hook.url, "failed", headers="A: b")  # type: ignore[arg-type]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_logger_without_handlers_gets_them_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Errors go to stderr, the rest to stdout; a second call sets the level only; on a terminal what is bad has a colour."""
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # those of pytest
    name = "headrace.test.rq"
    logutils.setup_loghandlers("info", log_format="%(message)s", name=name)
    logutils.setup_loghandlers(logging.DEBUG, name=name)
    logger = logging.getLogger(name)
    logger.debug("small")
    logger.error("bad")
    told = capsys.readouterr()
    assert (told.out, told.err, len(logger.handlers), logger.propagate) == ("small\n", "bad\n", 2, False)
    logger.handlers.clear()
    stream = Terminal()
    monkeypatch.setattr("sys.stdout", stream)
    handler = logutils.ColorizingStreamHandler(stream=stream)
    logger.addHandler(handler)
    logger.warning("hm")
    logger.info("fine")
    logger.handlers.clear()
    assert (
        stream.getvalue() == "\x1b[33mhm\x1b[0m\nfine\n"
        and logutils.make_colorizer("darkgreen")("x") == "\x1b[32mx\x1b[0m"
    )
