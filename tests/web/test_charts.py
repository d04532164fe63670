"""Charts as SVG: what they show, and that they are well formed whatever is in them."""

from __future__ import annotations

from xml.etree import ElementTree

from headrace.web.chart import ages, bars, spark, waits

MINUTE_MS = 60_000


def test_bars_stand_on_each_other_and_the_last_is_pale() -> None:
    """As high as their share of the highest, with a text each."""
    picture = ElementTree.fromstring(bars([(10, 0), (15, 5), (0, 0)], ["a", "b <&> c", "d"]))
    rects = [one.attrib for one in picture.iter("rect") if one.attrib["class"] != "all"]
    assert [(one["class"], one["height"]) for one in rects] == [("good", "58.0"), ("good", "87.0"), ("bad", "29.0")]
    assert [title.text for title in picture.iter("title")] == ["a", "b <&> c", "d"]
    assert "open" in bars([(1, 1)], ["now"])
    ElementTree.fromstring(bars([], []))


def test_the_age_of_the_oldest_is_drawn_over_the_waits() -> None:
    """It grows while nothing starts, when the waits of those that have started say nothing."""
    picture = ElementTree.fromstring(waits([0.01, 0.02, None], [0.1, None, None], [None, 30.0, 90.0]))
    kinds = [one.attrib["class"] for one in picture if one.attrib.get("class") != "grid" and one.tag != "text"]
    assert kinds == ["slow", "middle", "middle", "oldest", "oldest"]
    heights = [float(one.attrib["y1"]) for one in picture.iter("line") if one.attrib["class"] == "oldest"]
    last = [float(one.attrib["cy"]) for one in picture.iter("circle") if one.attrib["class"] == "oldest"]
    assert last[0] < heights[0]  # older is higher
    for empty in ([], [None], [0.0]):
        ElementTree.fromstring(waits(empty, empty, empty))


def test_the_oldest_job_was_as_old_as_the_time_that_has_gone_by_says() -> None:
    """From its enqueue on; before, nothing is known."""
    starts = [n * MINUTE_MS for n in range(4)]
    assert ages(starts, MINUTE_MS, 210_000, 100.0) == [None, 10.0, 70.0, 100.0]
    assert ages(starts, MINUTE_MS, 210_000, None) == [None] * 4


def test_a_line_of_nothing_is_a_line() -> None:
    """And one value is enough."""
    for values in ([], [0], [1, 5, 2]):
        ElementTree.fromstring(spark(values))
