"""The pages about flows: the newest ones, and one with its graph and how far it is; and what is done to it."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote, urlencode

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from headrace import flow as flows
from headrace.engine import admin
from headrace.engine.call import Steps
from headrace.engine.flows import Place
from headrace.engine.keys import check_queue_name
from headrace.errors import UsageError
from headrace.flow import FlowState, FlowSummary, StepState
from headrace.web.access import Right
from headrace.web.frame import Frame, Say
from headrace.web.graph import MOST_NODES, Node, draw

FLOWS_A_PAGE = 25
MOST_STEPS = 500
_GOOD = ("succeeded", "gone")
_LIVE = ("running", "retrying", "queued", "scheduled", "waiting")


def newest(prefix: str, queue: str, before: Place | None) -> Steps[tuple[list[FlowSummary], bool]]:
    """A page of the list, of one queue or of all, and whether there are more."""
    names: list[str] = yield admin.queue_names(prefix)
    found = yield from flows.summaries(prefix, [queue] if queue else names, before, FLOWS_A_PAGE + 1)
    return found[:FLOWS_A_PAGE], len(found) > FLOWS_A_PAGE


def kind_of(step: StepState) -> str:
    """The state that a step shows: that of its jobs, the worst of those that have ended, else what goes on."""
    for state in ("failed", "expired", *_LIVE, "cancelled"):
        if step.states.get(state):
            return state
    return "succeeded"


def progress_of(state: FlowState) -> tuple[int, int]:
    """How many jobs have succeeded, of how many."""
    return sum(map(_ended_well, state.steps)), sum(step.size for step in state.steps)


def _ended_well(step: StepState) -> int:
    return sum(step.states.get(good, 0) for good in _GOOD)


def picture_nodes(state: FlowState, say: Say) -> list[Node]:
    return [
        Node(
            step.number,
            step.task if step.size == 1 else f"{step.task} ×{step.size}",
            _note(step, say),
            kind_of(step),
            _ended_well(step) / max(step.size, 1),
            step.after,
            step.before,
        )
        for step in state.steps
    ]


def _note(step: StepState, say: Say) -> str:
    """What has room in a box of the picture."""
    told = say(f"state_{kind_of(step)}")
    return told if step.size == 1 else f"{_ended_well(step)} / {step.size} · {told}"


def counts_in_words(step: StepState, say: Say) -> str:
    """`succeeded`, or `3 succeeded, 1 running`."""
    told = {state: say("not_kept" if state == "gone" else f"state_{state}") for state in step.states}
    if step.size == 1:
        return ", ".join(told.values())
    return ", ".join(f"{count} {told[state]}" for state, count in step.states.items())


def _place(cursor: str) -> Place | None:
    """Where a page of the list begins, as its address says."""
    at_ms, _, flow_id = cursor.partition("-")
    if cursor and not (at_ms.isdecimal() and len(at_ms) < 16):
        raise UsageError("this address is not one of ours: its cursor cannot be read")
    return (int(at_ms), flow_id) if cursor else None


class FlowPages:
    """The list of flows, and one flow."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame
        self._source = frame.source

    def routes(self) -> list[Route]:
        page, act = self._frame.page, self._frame.act
        one = "/flows/{queue}/{flow_id}"
        return [
            page("/flows", self._list),
            page(one, self._one),
            act(one + "/retry", Right.RETRY_JOBS, self._retry),
            act(one + "/cancel", Right.CANCEL_JOBS, self._cancel),
        ]

    async def _list(self, request: Request) -> Response:
        queue, before = request.query_params.get("queue", ""), request.query_params.get("before", "")
        if queue:
            check_queue_name(queue)
        found, is_more = await self._source.shared(
            ("flows", queue, before), newest(self._source.prefix, queue, _place(before))
        )
        older = ""
        if is_more:
            cursor = {"before": "{}-{}".format(*found[-1].place)}
            older = urlencode({**({"queue": queue} if queue else {}), **cursor})
        return await self._frame.render(request, "flows", flows=found, older=older, before=before, queue=queue)

    async def _one(self, request: Request) -> Response:
        queue, flow_id = self._named(request)
        look = flows.look_at(self._source.queue(queue), flow_id)
        state: FlowState = await self._source.shared(("flow", queue, flow_id), look)
        words: Say = request.state.words
        done, jobs = progress_of(state)
        return await self._frame.render(
            request, "flow", flow=state, done=done, jobs=jobs, kind_of=kind_of, counts_in_words=counts_in_words,
            graph=draw(picture_nodes(state, words), words) if len(state.steps) <= MOST_NODES else None,
            steps=state.steps[:MOST_STEPS], has_failed=any(step.states.get("failed") or step.states.get("expired") for step in state.steps),
            is_live=any(step.states.get(live) for step in state.steps for live in _LIVE),
        )  # fmt: skip

    def _named(self, request: Request) -> tuple[str, str]:
        return check_queue_name(request.path_params["queue"]), request.path_params["flow_id"]

    async def _retry(self, request: Request, _: Mapping[str, str]) -> Response:
        queue, flow_id = self._named(request)
        count = await self._source.run(flows.retry(self._source.queue(queue), flow_id))
        return await self._done(request, "flow_retry", count)

    async def _cancel(self, request: Request, _: Mapping[str, str]) -> Response:
        queue, flow_id = self._named(request)
        count = await self._source.run(flows.cancel(self._source.queue(queue), flow_id))
        return await self._done(request, "flow_cancel", count)

    async def _done(self, request: Request, did: str, count: int) -> Response:
        queue, flow_id = self._named(request)
        to = f"/flows/{quote(queue, safe='')}/{quote(flow_id, safe='')}"
        return await self._frame.done(request, did, f"{queue}/{flow_id}", count, to)
