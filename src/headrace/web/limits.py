"""The page about limits: what each lets through, how much of it is used, who waits; and what is set for it at run time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from headrace.core.ties import Limit, check_name, rule
from headrace.engine import admin, ops
from headrace.engine.admin import LimitState
from headrace.engine.call import Steps
from headrace.engine.keys import queue_keys
from headrace.errors import UsageError
from headrace.web.access import Right
from headrace.web.frame import Frame, Say, shown_span


def all_limits(prefix: str) -> Steps[list[LimitState]]:
    """The limits of all queues that are in use, in force or changed; those that jobs wait for first."""
    found: list[LimitState] = []
    for name in (yield admin.queue_names(prefix)):
        found += yield from admin.list_limits(queue_keys(name, prefix))
    return sorted(found, key=lambda state: (-state.parked, state.queue, state.name))


def rule_in_words(rule: Mapping[str, Any], say: Say) -> str:
    """`100 in 1 min, 5 at a time; 4 side by side`."""
    parts = []
    if "r" in rule:
        parts.append(say("limit_rate", n=f"{rule['r']:g}", span=shown_span(rule["p"] / 1000)))
        if rule.get("b", 1) > 1:
            parts.append(say("limit_burst", n=rule["b"]))
    if "c" in rule:
        parts.append(say("limit_concurrency", n=rule["c"]))
    return ", ".join(parts)


def use_of(state: LimitState) -> tuple[int, int] | None:
    """How many of how many are used: slots, or else of what may come at once of a rate; None where no rule is known."""
    rule = state.holds or {}
    if "c" in rule:
        return state.running, rule["c"]
    return None if state.used is None else (state.used, max(rule.get("b", 1), 1))


class LimitPages:
    """All limits, and their change."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame
        self._source = frame.source

    def routes(self) -> list[Route]:
        page, act = self._frame.page, self._frame.act
        return [
            page("/limits", self._list),
            act("/limits/{queue}/set", Right.EDIT_LIMITS, self._set),
            act("/limits/{queue}/reset", Right.EDIT_LIMITS, self._reset),
        ]

    async def _list(self, request: Request) -> Response:
        states: list[LimitState] = await self._source.shared(("limits",), all_limits(self._source.prefix))
        return await self._frame.render(request, "limits", limits=states, rule_in_words=rule_in_words, use_of=use_of)

    async def _set(self, request: Request, form: Mapping[str, str]) -> Response:
        """What is asked for holds over what jobs say, at once."""
        queue = await self._frame.known_queue(request)
        try:
            name = check_name("limit", form.get("name", ""))
            new = _asked_rule(name, form)
        except UsageError as error:
            return await self._frame.render(request, "error", 400, title="refused", message=str(error))
        await self._source.run(ops.set_limit(self._source.queue(queue), name, new))
        return await self._frame.done(request, "limit_set", f"{queue}/{name}", 1, "/limits")

    async def _reset(self, request: Request, form: Mapping[str, str]) -> Response:
        queue = await self._frame.known_queue(request)
        try:
            name = check_name("limit", form.get("name", ""))
        except UsageError as error:
            return await self._frame.render(request, "error", 400, title="refused", message=str(error))
        before = await self._source.run(admin.look_at_limits(self._source.queue(queue), (name,)))
        await self._source.run(ops.set_limit(self._source.queue(queue), name, None))
        return await self._frame.done(
            request, "limit_reset", f"{queue}/{name}", int(before[0].rule is not None), "/limits"
        )


def _asked_rule(name: str, form: Mapping[str, str]) -> dict[str, Any]:
    """Raises UsageError: it says nothing, or what cannot be."""
    rate = form.get("rate", "").strip() or None
    counts = {field: form.get(field, "").strip() for field in ("concurrency", "burst")}
    for field, text in counts.items():
        if text and not (text.isdecimal() and len(text) < 10):
            raise UsageError(f"{field}: expected a whole number, got {text!r:.40}")
    concurrency = int(counts["concurrency"]) if counts["concurrency"] else None
    burst = int(counts["burst"]) if counts["burst"] else 1
    Limit(name, rate=rate, concurrency=concurrency, burst=burst)
    return rule(rate, concurrency, burst)
