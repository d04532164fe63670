"""A job like another one, with edits: the form that shows what may be changed, and the job that is made of it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from headrace import wire
from headrace.core.durations import seconds_in
from headrace.core.record import PRIORITY_MAX, PRIORITY_MIN
from headrace.engine.clone import clone
from headrace.engine.keys import check_queue_name
from headrace.errors import HeadraceError, QueueFull, UsageError
from headrace.web.access import Access, Right
from headrace.web.data import in_words
from headrace.web.details import Details
from headrace.web.frame import Frame, Refused
from headrace.web.tree import as_json

FORM_BYTES_MAX = 4_000_000


class ClonePages:
    """One form, and what it does."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame
        self._source = frame.source

    def routes(self) -> list[Route]:
        at = "/jobs/{queue}/{job_id}/clone"
        return [
            self._frame.page(at, self._form),
            self._frame.act(at, Right.INSERT_JOBS, self._clone, FORM_BYTES_MAX),
        ]

    async def _details(self, request: Request) -> Details:
        return await self._source.job(request.path_params["queue"], request.path_params["job_id"])

    async def _form(self, request: Request) -> Response:
        access: Access = request.state.access
        if not access.may(Right.INSERT_JOBS):
            raise Refused(request.state.words("no_right"))
        details = await self._details(request)
        return await self._show(
            request, details, {"queue": details.queue, "priority": str(details.record.priority)}, ""
        )

    async def _show(self, request: Request, details: Details, form: Mapping[str, str], problem: str) -> Response:
        access: Access = request.state.access
        text = form.get("arguments") or self._editable(details, access)
        return await self._frame.render(
            request, "clone", 400 if problem else 200, job=details, form=form, text=text, problem=problem
        )

    def _editable(self, details: Details, access: Access) -> str:
        """The arguments as JSON to be edited; "" where they cannot be: not seen, or not said in JSON."""
        if not access.may(Right.SEE_ARGS) or not is_json(details.record.payload):
            return ""
        return as_json(details.shown_call(self._frame.redact))

    async def _clone(self, request: Request, form: Mapping[str, str]) -> Response:
        details = await self._details(request)
        access: Access = request.state.access
        try:
            queue = check_queue_name(form.get("queue", details.queue).strip())
            new = clone(
                details.record, now_ms=time.time_ns() // 1_000_000, payload=self._payload(details, access, form.get("arguments", "")),
                priority=_priority(form.get("priority", "0")), delay_ms=_delay_ms(form.get("delay", "")),
            )  # fmt: skip
            await self._source.enqueue(queue, new)
        except (UsageError, QueueFull) as error:
            return await self._show(request, details, form, in_words(error))
        return await self._frame.done(
            request, "clone", f"{details.queue}/{details.id} as {queue}/{new.id}", 1, f"/jobs/{queue}/{new.id}"
        )

    def _payload(self, details: Details, access: Access, text: str) -> bytes | None:
        """None: as they were.

        Raises:
            UsageError: what was typed is no call, or does not fit the task where that is known.
        """
        before = self._editable(details, access)
        if not text.strip() or not before or _same(text, before):
            return None
        args, kwargs = details.call()
        edited = self._frame.redact.restored(_read(text), {"args": args, "kwargs": kwargs})
        task = self._source.app.tasks.get(details.record.task)
        try:
            if task is not None:
                task.signature.check(edited["args"], edited["kwargs"])
                task.signature.check_types(edited["args"], edited["kwargs"])
            payload = wire.encode_call(tuple(edited["args"]), edited["kwargs"])
            wire.check_size(payload, self._source.app.max_payload_bytes, tuple(edited["args"]), edited["kwargs"])
        except HeadraceError as error:
            raise UsageError(in_words(error)) from None
        return payload


def is_json(payload: bytes | msgspec.Raw) -> bool:
    """Whether a call says in JSON just what it says as it is stored."""
    try:
        args, kwargs = wire.decode_call(payload, None)
        again = msgspec.json.decode(msgspec.json.encode([args, kwargs]))
        return bool(wire.encode_call(tuple(again[0]), again[1]) == bytes(payload))
    except (HeadraceError, msgspec.MsgspecError, TypeError, ValueError, RecursionError):
        return False


def _same(text: str, before: str) -> bool:
    try:
        return bool(msgspec.json.decode(text) == msgspec.json.decode(before))
    except (msgspec.MsgspecError, RecursionError):
        return False


def _read(text: str) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(text)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise UsageError(f"the arguments are no JSON: {error}") from None
    if (
        not isinstance(found, dict) or found.keys() - {"args", "kwargs"}
        or not isinstance(found.setdefault("args", []), list) or not isinstance(found.setdefault("kwargs", {}), dict)
    ):  # fmt: skip
        raise UsageError('the arguments are written {"args": [...], "kwargs": {...}}')
    return found


def _priority(text: str) -> int:
    try:
        found = int(text)
    except ValueError:
        found = PRIORITY_MAX + 1
    if not PRIORITY_MIN <= found <= PRIORITY_MAX:
        raise UsageError(f"the priority is a whole number from {PRIORITY_MIN} to {PRIORITY_MAX}, not {text!r:.20}")
    return found


def _delay_ms(text: str) -> int:
    return round(seconds_in(text.strip()) * 1000) if text.strip() else 0
