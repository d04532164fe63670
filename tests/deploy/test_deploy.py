"""What `deploy/` asks for is what headrace tells: metrics, labels, options, addresses."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from headrace import Headrace
from headrace.cli.main import command
from headrace.engine import stats
from headrace.engine.keys import queue_keys
from headrace.engine.stats import Added
from headrace.observe.metrics import read_snapshot, render
from headrace.web import api
from headrace.worker.board import Board
from headrace.worker.config import WorkerConfig
from headrace.worker.crew import Crew
from headrace.worker.errands import Errands
from headrace.worker.launcher import Launcher
from headrace.worker.roster import Roster
from headrace.worker.schedules import Lateness, Schedules
from headrace.worker.vitals import Vitals

DEPLOY = Path(__file__).parents[2] / "deploy"
ALERTS = yaml.safe_load((DEPLOY / "prometheus/alerts.yml").read_text())["groups"][0]["rules"]
MANIFESTS = {path.name: list(yaml.safe_load_all(path.read_text())) for path in (DEPLOY / "kubernetes").iterdir()}
NAME = re.compile(r"\bheadrace_\w+")
OF_SCRAPES = {"instance", "job"}


def expressions() -> list[str]:
    board = json.loads((DEPLOY / "grafana/headrace.json").read_text())
    targets = [target["expr"] for panel in board["panels"] for target in panel.get("targets", ())]
    return [rule["expr"] for rule in ALERTS] + targets + [board["templating"]["list"][1]["definition"]]


def send(to: int) -> None: ...


@pytest.fixture
def told(url: str) -> str:
    """Both kinds of /metrics, with a queue, a run, a worker and a schedule in them."""
    with Headrace(url) as app:
        app.queue("mail").enqueue("mail.send", 1)
        app.client.run(stats.tally(queue_keys("mail"), [Added(0, "mail.send", {"succeeded": 1, "r60": 1, "w8": 1})]))
        app.schedules.add("nightly", app.task(queue="mail")(send).call(1), cron="0 2 * * *")
        of_all = render(app.client.run(read_snapshot(app.prefix)))
    crew = Crew(WorkerConfig(app_path="a", worker_id="w"), Board.create(1, 1))
    launcher = Launcher(crew.board, is_adopting=True, tell_death=lambda _: None)
    schedules = Schedules(crew)
    schedules.lateness["nightly"] = Lateness()
    of_worker = Vitals(crew, Roster(crew, launcher, Errands(crew)), schedules, lambda: "running").metrics()
    launcher.close()
    return of_all + of_worker


def test_every_metric_that_is_asked_for_is_told(told: str) -> None:
    """By the dashboard, or by a worker: an alert on a name that nobody tells never fires."""
    names = {name for text in expressions() for name in NAME.findall(text)}
    lines = set(re.findall(r"^# TYPE (\S+)", told, re.MULTILINE)) | set(re.findall(r"^(\w+)[{ ]", told, re.MULTILINE))
    assert len(names) > 15
    assert set() == {name for name in names if name not in lines}


def test_every_label_that_is_asked_for_is_told(told: str) -> None:
    """With the values that are named, where they are."""
    for text in expressions():
        for name, matchers in re.findall(r"(headrace_\w+)\{([^}]*)\}", text):
            rows = re.findall(rf"^{name}\{{(.*)\}} ", told, re.MULTILINE)
            for label, how, value in re.findall(r'(\w+)(=~|!~|=|!=)"([^"]*)"', matchers):
                assert all(f'{label}="' in row for row in rows), (text, label)
                if "$" not in value:
                    known = {found for row in rows for found in re.findall(rf'\b{label}="([^"]*)"', row)}
                    assert {each for each in value.split("|")} <= known, (text, how)
        for labels in re.findall(r"(?:by|on) \(([^)]*)\)", text):
            for label in set(labels.replace(" ", "").split(",")) - OF_SCRAPES:
                assert f'{label}="' in told, (text, label)


def test_every_metric_is_in_the_documentation(told: str) -> None:
    """Names are part of the interface."""
    page = (DEPLOY.parent / "docs/howto/observe.md").read_text("utf8")
    assert set() == {name for name in re.findall(r"^# TYPE (\S+)", told, re.MULTILINE) if name not in page}


def test_every_alert_says_what_to_do() -> None:
    """In words, with how bad it is; commands that it names are there."""
    for rule in ALERTS:
        assert rule["labels"]["severity"] in ("warning", "critical")
        words = rule["annotations"]["summary"] + rule["annotations"]["description"]
        for name in re.findall(r"`headrace (\w+)", words):
            assert CliRunner().invoke(command, [name, "--help"]).exit_code == 0


def containers() -> list[dict[str, Any]]:
    pods = [
        each["spec"]["template"]["spec"]
        for parts in MANIFESTS.values()
        for each in parts
        if each["kind"] == "Deployment"
    ]
    return [container for pod in pods for container in pod["containers"]]


def test_the_units_start_what_there_is() -> None:
    """Each option of a command line in the manifests and the unit, and each environment variable, is one that headrace reads."""
    unit = (DEPLOY / "systemd/headrace-worker@.service").read_text()
    lines = [re.findall(r"ExecStart=\S+/headrace (.*)", unit)[0].split()]
    lines += [container["args"][1:] for container in containers()]
    for name, *words in lines:
        told = CliRunner().invoke(command, [name, "--help"]).output
        assert [] == [word for word in words if word.startswith("--") and word not in told]
    for container in containers():
        told = CliRunner().invoke(command, [container["args"][1], "--help"]).output
        assert [] == [each["name"] for each in container["env"] if each["name"] not in told]


def test_a_worker_has_longer_to_end_than_its_jobs() -> None:
    """What has not ended within the grace is handed back before the machine kills the worker."""
    (worker,) = MANIFESTS["worker.yaml"]
    pod = worker["spec"]["template"]["spec"]
    args = pod["containers"][0]["args"]
    assert int(args[args.index("--grace") + 1].rstrip("s")) + 10 <= pod["terminationGracePeriodSeconds"]


def test_the_autoscaler_asks_for_what_is_answered() -> None:
    """The address, and the name of the value."""
    scaled = MANIFESTS["keda.yaml"][0]["spec"]["triggers"][0]["metadata"]
    paths = json.loads(api.document())["paths"]
    assert f"{api.PREFIX}/scale/{{queue}}" in paths and f"{api.PREFIX}/scale/default?target_s=" in scaled["url"]
    assert scaled["valueLocation"] in api.Scale.__struct_fields__
