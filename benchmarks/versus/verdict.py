"""What became of the jobs, from three witnesses: the log of effects, the producer's log, and where the library has what did not run.

Pure: text and values in, figures out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

SECOND_NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Effect:
    word: str
    name: str
    pid: int
    at_ns: int


@dataclass(frozen=True, slots=True)
class Answer:
    """What the producer was told of one enqueue."""

    name: str
    is_ok: bool
    began_ns: int
    ended_ns: int
    error: str


@dataclass(frozen=True, slots=True)
class Figures:
    """What became of the jobs whose enqueue was acknowledged.

    Attributes:
        lost: never ended, and in no queue: nothing will run them.
        unrun: never ended, but waiting or held: not run in the time that was given.
        failed: never ended, and given up by the library, which says so.
        doubled: ended more than once.
        again: starts beyond the first of each job.
        unasked: ended though their enqueue was refused (the producer could not know).
        recovered_s: from the end of the chaos to the last first end of the jobs that were acknowledged before it; 0 when all were done by then;
            None when some of all the jobs were never done.
    """

    acknowledged: int
    refused: int
    done: int
    lost: int
    unrun: int
    failed: int
    doubled: int
    again: int
    unasked: int
    recovered_s: float | None


def read_effects(text: str) -> list[Effect]:
    """The lines of the log of effects; one that is not whole is left out."""
    rows = [line.split() for line in text.split("\n")[:-1]]
    return [Effect(word, name, int(pid), int(at)) for word, name, pid, at in rows]


def read_answers(text: str) -> list[Answer]:
    rows = [line.split(" ", 4) for line in text.split("\n")[:-1]]
    return [Answer(row[1], row[0] == "ok", int(row[2]), int(row[3]), row[4] if len(row) > 4 else "") for row in rows]


def first_ends(effects: list[Effect]) -> dict[str, int]:
    """When each job ended for the first time."""
    ends: dict[str, int] = {}
    for effect in effects:
        if effect.word == "end":
            ends[effect.name] = min(effect.at_ns, ends.get(effect.name, effect.at_ns))
    return ends


def judge(
    effects: list[Effect], answers: list[Answer], places: Mapping[str, str], chaos_ended_ns: int, kind: str = "job"
) -> Figures:
    """Hold the witnesses against each other.

    Args:
        places: where the library has a job: "waiting", "held" or "failed"; a name that is missing is nowhere.
        chaos_ended_ns: on the clock of the logs.
        kind: of which jobs: the first word of their names.
    """
    effects = [effect for effect in effects if effect.name.startswith(kind + "-")]
    answers = [answer for answer in answers if answer.name.startswith(kind + "-")]
    known = {answer.name for answer in answers if answer.is_ok}
    ends = first_ends(effects)
    missing = known - ends.keys()
    places_of_missing = Counter(places.get(name, "nowhere") for name in missing)
    times_ended = Counter(effect.name for effect in effects if effect.word == "end")
    times_started = Counter(effect.name for effect in effects if effect.word == "start")
    owed = {answer.name for answer in answers if answer.is_ok and answer.ended_ns <= chaos_ended_ns}
    last_ns = max((ends[name] for name in owed - missing), default=0)
    return Figures(
        acknowledged=len(known),
        refused=len({answer.name for answer in answers}) - len(known),
        done=len(known) - len(missing),
        lost=places_of_missing["nowhere"],
        unrun=places_of_missing["waiting"] + places_of_missing["held"],
        failed=places_of_missing["failed"],
        doubled=sum(count > 1 for count in times_ended.values()),
        again=sum(count - 1 for count in times_started.values()),
        unasked=len(ends.keys() - known),
        recovered_s=None if missing else max(last_ns - chaos_ended_ns, 0) / SECOND_NS,
    )
