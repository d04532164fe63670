"""The dashboard's page about limits: each key with what it lets through, what is used, who waits and when the next may go."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from engine_kit import Kit
from visitors import OWN, visiting

from headrace import Headrace, Limit
from headrace.core.ties import Ties
from headrace.engine import admin, ops
from headrace.web import Access


@pytest.fixture
def app(url: str) -> Iterator[Headrace]:
    with Headrace(url) as found:
        yield found


@pytest.fixture
def kit(app: Headrace) -> Kit:
    """`bank`: two side by side, both taken, one waits. `sms`: sixty a minute, ten at a time, three used."""
    kit = Kit(app.client)
    app.client.run(ops.announce_queues(app.prefix, [kit.queue.name]))
    jobs = [Limit("bank", concurrency=2)] * 3 + [Limit("sms", rate="60/min", burst=10)] * 3
    for number, limit in enumerate(jobs):
        kit.client.enqueue(
            kit.queue.name,
            [ops.NewJob(f"job{number}", kit.record(), ties=Ties(None, (limit,), None).of("kit.task", {}))],
        )
    for number in range(6):
        kit.open(f"s{number}")
        kit.claim(f"s{number}", 1)
    return kit


def cells(page: str, limit: str) -> list[str]:
    """The row of a limit, as text."""
    row = re.search(rf'<tr id="limit-\w+-{limit}">(.*?)</tr>', page, re.DOTALL)
    assert row is not None, page
    return [
        " ".join(re.sub("<[^>]+>", " ", cell).split()) for cell in re.findall(r"<t[hd].*?</t[hd]>", row[1], re.DOTALL)
    ]


def test_each_limit_tells_its_rule_what_is_used_who_waits_and_the_next_slot(app: Headrace, kit: Kit) -> None:
    """As jobs declare it, though nothing was set at run time; in both languages."""
    with visiting(app, Access.read()) as client:
        page = client.get("/limits?lang=en").text
        assert cells(page, "bank") == [f"bank {kit.queue.name}", "2 side by side", "2 / 2", "1", "when one ends"]
        assert cells(page, "sms") == [f"sms {kit.queue.name}", "60 in 1 min, 10 at a time", "3 / 10", "0", "now"]
        assert page.index('id="limit-' + kit.queue.name + '-bank"') < page.index(
            "-sms"
        )  # who keeps jobs waiting is first
        assert "2 chạy song song" in client.get("/limits?lang=vi").text


def test_a_limit_that_is_held_or_used_up_says_until_when(app: Headrace, kit: Kit) -> None:
    """The instant of the next slot."""
    app.limits.hold("bank", 600, queue=kit.queue.name)
    app.limits.set("sms", rate="3/min", burst=1, queue=kit.queue.name)
    with visiting(app) as client:
        page = client.get("/limits?lang=en").text
    assert cells(page, "bank")[4].startswith("shut until 20")
    assert "overridden" in cells(page, "sms")[1]
    assert re.fullmatch(r"20\d\d-.* UTC", cells(page, "sms")[4])


def test_operators_set_a_limit_and_take_that_back(app: Headrace, kit: Kit) -> None:
    """At once, with a note of who did; what cannot be is refused in words."""
    name = kit.queue.name
    with visiting(app, Access.all("ann")) as client:
        done = client.post(f"/limits/{name}/set", headers=OWN, data={"name": "bank", "concurrency": "5"})
        assert done.headers["location"] == "/limits?did=limit_set&n=1"
        assert app.limits.get("bank", queue=name).rule == {"c": 5}
        for wrong in ({"concurrency": "many"}, {}, {"rate": "fast"}, {"rate": "5/min", "burst": "-1"}):
            answer = client.post(f"/limits/{name}/set", headers=OWN, data={"name": "bank", **wrong})
            assert answer.status_code == 400, wrong
        assert app.limits.get("bank", queue=name).rule == {"c": 5}
        for changed in (1, 0):
            done = client.post(f"/limits/{name}/reset", headers=OWN, data={"name": "bank"})
            assert done.headers["location"] == f"/limits?did=limit_reset&n={changed}"
        assert re.findall(r"<td>ann</td><td>(\w+)</td>", client.get("/audit").text) == [
            "limit_reset",
            "limit_reset",
            "limit_set",
        ]
        assert (
            client.post("/limits/none/set", headers=OWN, data={"name": "bank", "concurrency": "5"}).status_code == 404
        )


def test_read_only_visitors_change_no_limit(app: Headrace, kit: Kit) -> None:
    """No form is shown; what is sent all the same is refused."""
    with visiting(app, Access.read("bob")) as client:
        assert 'method="post"' not in client.get("/limits").text
        for act in ("set", "reset"):
            answer = client.post(
                f"/limits/{kit.queue.name}/{act}", headers=OWN, data={"name": "bank", "concurrency": "9"}
            )
            assert answer.status_code == 403
    assert app.client.run(admin.look_at_limits(kit.queue, ["bank"]))[0].rule is None
