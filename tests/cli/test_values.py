"""What people type as values is read as they mean it, or refused with what to write."""

import click
import pytest

from headrace.cli.values import duration_s, instant, parse_arguments, size_bytes


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("10", 10), ("1.5s", 1.5), ("200ms", 0.2), ("10m", 600), ("2h", 7200), ("1d", 86400), ("1h30m", 5400)],
)
def test_a_duration_is_read_in_its_unit(text, seconds):
    """Seconds without a unit; units add up."""
    assert duration_s(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "x", "10x", "-5", "5 m", "h"])
def test_what_is_no_duration_is_refused(text):
    """The message says what to write."""
    with pytest.raises(click.BadParameter, match=r"write 10, 1\.5s"):
        duration_s(text)


@pytest.mark.parametrize(("text", "count"), [("1024", 1024), ("500M", 500 << 20), ("2G", 2 << 30), ("1.5k", 1536)])
def test_a_size_is_read_in_bytes(text, count):
    """Powers of 1024."""
    assert size_bytes(text) == count


def test_an_instant_keeps_its_zone():
    """The zone of the text counts, not this machine's."""
    assert instant("2026-01-31T08:00+07:00").timestamp() == instant("2026-01-31T01:00:00Z").timestamp()
    with pytest.raises(click.BadParameter, match="no instant"):
        instant("tomorrow")


def test_arguments_are_text_unless_they_say_json():
    """`k=v` is text, `k:=v` and `:=v` are JSON, and what holds = but no name is positional."""
    args, kwargs = parse_arguments(("cat.png", ":=[1, 2]", "a/b=c", "width:=400", "name=Hà Nội", "note=x=y"))
    assert args == ["cat.png", [1, 2], "a/b=c"]
    assert kwargs == {"width": 400, "name": "Hà Nội", "note": "x=y"}


@pytest.mark.parametrize(
    ("words", "message"),
    [(("k:=nope",), "no JSON"), (("a=1", "b"), "after named"), (("a=1", "a=2"), "given twice")],
)
def test_arguments_that_cannot_be_meant_are_refused(words, message):
    """Bad JSON, a positional one after named ones, a name given twice."""
    with pytest.raises(click.UsageError, match=message):
        parse_arguments(words)
