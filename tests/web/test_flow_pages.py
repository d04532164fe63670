"""The dashboard's pages about flows: the list, one flow with its graph and progress, and what is done there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from xml.etree import ElementTree

import pytest
from engine_kit import Kit
from visitors import OWN, visiting

from headrace import Headrace, group, previous
from headrace.engine import flows, ops
from headrace.engine.keys import queue_keys
from headrace.flow import FlowRun
from headrace.web import Access
from headrace.web.flows import newest
from headrace.web.graph import GAP_Y, HEIGHT, MOST_NODES, Node, draw, lay_out


@pytest.fixture
def app(url: str) -> Iterator[Headrace]:
    with Headrace(url) as found:
        yield found


@pytest.fixture
def kit(app: Headrace) -> Kit:
    kit = Kit(app.client)
    kit.open("worker")
    return kit


@pytest.fixture
def run(app: Headrace) -> FlowRun[int]:
    """Three pages are fetched, then added up; if that fails, somebody is told."""

    @app.task(name="pages.fetch")
    def fetch(number: int) -> int:
        return number

    @app.task(name="pages.add_up")
    def add_up(counts: list[int]) -> int:
        return sum(counts)

    @app.task(name="pages.tell")
    def tell() -> None: ...

    flow = app.flow("site")
    added = flow.add(group(fetch.call(n) for n in range(3)) >> add_up.call(previous))
    flow.add(tell.call(), after=added, when="failed")
    return flow.enqueue()


def address(run: FlowRun[int]) -> str:
    return f"/flows/{run.home}/{run.id}"


def rows(page: str) -> list[list[str]]:
    """The table of steps, as text."""
    found = re.findall(r'<tr id="step-\d+">(.*?)</tr>', page, re.DOTALL)
    return [[" ".join(re.sub("<[^>]+>", " ", cell).split()) for cell in re.findall(r"<t[hd].*?</t[hd]>", row, re.DOTALL)] for row in found]  # fmt: skip


def test_a_flow_tells_its_steps_its_graph_and_how_far_it_is(app: Headrace, kit: Kit, run: FlowRun[int]) -> None:
    """As a picture, and the same in a table."""
    kit.settle("worker", kit.claim("worker", 1))
    with visiting(app, Access.read()) as client:
        page = client.get(address(run) + "?lang=en").text
        vietnamese = client.get(address(run) + "?lang=vi").text
    assert "1 of 5 jobs succeeded" in page and "1 trên 5 việc đã thành công" in vietnamese
    assert rows(page) == [
        ["0", "pages.fetch default", "3", "2 queued, 1 succeeded", "", ""],
        ["1", "pages.add_up default", "1", "waiting", "0", ""],
        ["2", "pages.tell default", "1", "waiting", "1 (failed)", ""],
    ]
    picture = ElementTree.fromstring(re.findall(r"<svg class=\"graph\".*?</svg>", page)[0])
    assert [box.attrib["class"] for box in picture.iter("g")] == ["step queued", "step waiting", "step waiting"]
    assert "pages.fetch ×3" in page and '<text class="word"' in page


def test_operators_retry_what_failed_and_cancel(app: Headrace, kit: Kit, run: FlowRun[int]) -> None:
    """Retry puts the failed job back, and what waits for it; cancel ends the rest. Both are noted with how many."""
    with visiting(app, Access.all("ann")) as client:
        assert "Retry what failed" not in client.get(address(run)).text
        kit.settle("worker", kit.claim("worker", 3), ops.Kind.FAILED)
        client.source.forget()
        assert '<span class="state failed">3 failed</span>' in client.get(address(run)).text
        done = client.post(address(run) + "/retry", headers=OWN)
        assert done.headers["location"] == f"{address(run)}?did=flow_retry&n=3"
        page = client.get(done.headers["location"]).text
        assert (
            "Failed jobs queued again: 3." in page and rows(page)[0][3] == "3 queued" and rows(page)[1][3] == "waiting"
        )
        done = client.post(address(run) + "/cancel", headers=OWN)
        assert done.headers["location"] == f"{address(run)}?did=flow_cancel&n=5"
        page = client.get(address(run)).text
        assert '<span class="state cancelled">cancelled</span></h1>' in page
        assert "/cancel" not in page
        assert re.findall(r"<td>ann</td><td>(\w+)</td><td><code>([^<]+)", client.get("/audit").text) == [
            ("flow_cancel", f"default/{run.id}"), ("flow_retry", f"default/{run.id}"),
        ]  # fmt: skip


def test_read_only_visitors_change_no_flow(app: Headrace, kit: Kit, run: FlowRun[int]) -> None:
    """No button is shown; what is sent all the same is refused."""
    kit.settle("worker", kit.claim("worker", 1), ops.Kind.FAILED)
    with visiting(app, Access.read("bob")) as client:
        assert 'method="post"' not in client.get(address(run)).text
        for act in ("retry", "cancel"):
            assert client.post(f"{address(run)}/{act}", headers=OWN).status_code == 403
    assert run.look().steps[0].states == {"failed": 1, "queued": 2}


def test_the_newest_flows_come_first_page_by_page(app: Headrace) -> None:
    """Of all queues together, each once; with what became of each."""

    @app.task(name="pages.one")
    def one() -> None: ...

    kit = Kit(app.client, "even", "odd")
    kit.open("worker")
    runs = [
        (one.options(queue=("even", "odd")[n % 2]).call() >> one.options(queue="even").call()).enqueue()
        for n in range(30)
    ]
    kit.settle("worker", kit.claim("worker", 1))
    with visiting(app) as client:
        seen: list[str] = []
        path = "/flows"
        while path:
            page = client.get(path).text
            seen += re.findall(r'<tr id="flow-(\w+)"', page)
            following = re.search(r'rel="next" href="([^"]+)"', page)
            path = "/flows" + following[1].replace("&amp;", "&") if following else ""
        assert sorted(seen) == sorted(run.id for run in runs)
        assert page.count("1 / 2") == 1  # of the oldest, a job has ended
        assert len(re.findall(r'<tr id="flow-', client.get("/flows?queue=odd").text)) == 15
        assert client.get("/flows?before=x").status_code == 404
        assert client.get("/flows/even/none").status_code == 404


def test_flows_of_one_instant_are_told_apart(app: Headrace, url: str) -> None:
    """A page that ends between two of them loses neither."""
    one = app.task(name="pages.one")(lambda: None)
    runs = [(one.call() >> one.call()).enqueue() for _ in range(30)]
    keys = queue_keys("default")
    at_same = [word for run in runs for word in (1_700_000_000_000, run.id)]
    app.client.run(ops.command("ZADD", f"{keys.base}flows", *at_same, key=keys.jobs, decode=int))
    first, is_more = app.client.run(newest(app.prefix, "", None))
    second, _ = app.client.run(newest(app.prefix, "", first[-1].place))
    assert is_more and len(first) == 25
    assert sorted(each.id for each in first + second) == sorted(run.id for run in runs)


def test_jobs_are_counted_by_state_with_a_call_for_each_thousand(app: Headrace) -> None:
    """Running, retrying, scheduled, waiting for a limit, failed, gone: each is told from the others."""
    kit = Kit(app.client)
    kit.open("worker")
    kit.add("s.0", "s.1", "s.2", "s.3")
    failing, retrying, _running = [kit.claim("worker", 1) for _ in range(3)]
    kit.settle("worker", failing, ops.Kind.FAILED)
    kit.settle("worker", retrying, ops.Kind.RETRY)
    spans = [("s.", 0, 5), ("s.2", 0, 0), ("none.", 0, 2_500)]
    steps = flows.count_states(queue_keys("default"), spans)
    calls = 0
    try:
        call = next(steps)
        while True:
            calls += 1
            call = steps.send(app.client.run(call))
    except StopIteration as stop:
        found = stop.value
    assert calls == 3
    assert [counts for counts, _ in found] == [
        {"failed": 1, "scheduled": 1, "running": 1, "queued": 1, "gone": 1}, {"running": 1}, {"gone": 2_500},
    ]  # fmt: skip
    assert found[0][1] is not None and found[1][1] is None


def node(number: int, *after: int) -> Node:
    return Node(number, f"task{number}", "", "queued", 0.0, [(parent, "s") for parent in after])


def test_a_step_stands_behind_all_that_it_comes_after() -> None:
    """Edges do not cross where they need not, and an edge that passes a layer has a place of its own there."""
    nodes = [node(0), node(1), node(2, 1), node(3, 0), node(4, 2, 3), node(5, 0, 4)]
    layout = lay_out(nodes)
    first, second = layout.ways[0, 5]
    assert first < 0 and second < 0 and first != second
    assert layout.rows == [[0, 1], [3, first, 2], [4, second], [5]]
    assert {way for edge, way in ((edge, tuple(way)) for edge, way in layout.ways.items()) if edge != (0, 5)} == {()}
    picture = ElementTree.fromstring(draw(nodes, str))
    assert len(picture.findall("g")) == 6
    assert len(picture.findall("path[@class='edge']")) == 6
    assert float(picture.attrib["height"]) == 8 + 3 * (HEIGHT + GAP_Y) - GAP_Y


def test_a_long_chain_and_a_star_are_drawn() -> None:
    """Whatever the shape: as long, or as broad, as a picture may be."""
    chain = [node(0), *(node(n, n - 1, *([0] if n % 7 == 0 else [])) for n in range(1, MOST_NODES))]
    layout = lay_out(chain)
    passed = [one for way in layout.ways.values() for one in way]
    assert len(passed) == len(set(passed)) == sum(sum(one < 0 for one in row) for row in layout.rows)
    ElementTree.fromstring(draw(chain, str))
    star = [node(0), *(node(n, 0) for n in range(1, MOST_NODES))]
    assert [len(row) for row in lay_out(star).rows] == [1, MOST_NODES - 1]


def test_a_picture_holds_names_as_text() -> None:
    """Whatever a task is called."""
    bad = Node(0, "<script>&\"'", "<b>", "queued", 0.5, [])
    assert "<script>" not in draw([bad], str)
    ElementTree.fromstring(draw([bad], str))
