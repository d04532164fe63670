"""The systems there are: the one list that the front page, the launcher and the tests read."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from fastapi import FastAPI

SYSTEMS_FOLDER = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True)
class System:
    """One folder of `systems`, with `web.py` (`web`), `tasks.py` (`app`), `models.py` (`SCHEMA`) and `migrations`.

    Attributes:
        says: what it does, in a sentence.
        worker: arguments of its worker.
    """

    name: str
    says: str
    worker: tuple[str, ...] = ()

    @property
    def tasks(self) -> str:
        """Its app, as `headrace worker -A` takes it."""
        return f"systems.{self.name}.tasks:app"

    @property
    def migrations(self) -> Path:
        return SYSTEMS_FOLDER / self.name / "migrations"


SYSTEMS = (
    System(
        "tracking",
        "Takes page views and writes them in bulk; the database may be away.",
        ("--processes", "1", "--log-level", "warning"),
    ),
    System(
        "analytics",
        "Builds reports on millions of page views: progress to watch, cancel, files to download.",
        ("--processes", "2", "--log-level", "warning"),
    ),
    System(
        "activity",
        "Logs what people do in an application, which never waits for the log; the queue may be away.",
        ("--processes", "1", "--log-level", "warning"),
    ),
    System(
        "notification",
        "Sends notices by mail, SMS and push, at the pace of each provider: in order, once, and not at night.",
        (
            "--weighted",
            "notices=1",
            "deliveries=2",
            "--pool",
            "asyncio",
            "--processes",
            "1",
            "--slots",
            "64",
            "--log-level",
            "warning",
        ),
    ),
)


def load_web(system: System) -> FastAPI:
    """Its web application."""
    found = import_module(f"systems.{system.name}.web").web
    assert isinstance(found, FastAPI)
    return found


def schema_of(system: System) -> str:
    return str(import_module(f"systems.{system.name}.models").SCHEMA)
