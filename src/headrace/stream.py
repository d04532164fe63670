"""What a job gives before its end, read by others: the items it yields, as they come, and the lines it says."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any, Generic, NamedTuple, TypeVar

from headrace import wire
from headrace.engine.clients import AsyncClient, SyncClient
from headrace.engine.kept import WAIT_S, Ask, Entry, Reading, read_along
from headrace.engine.keys import QueueKeys
from headrace.errors import ItemsNotKept, ServerBusy, ServerUnreachable

T_co = TypeVar("T_co", covariant=True)


class LogLine(NamedTuple):
    """One thing a job said: when, in which attempt, and what."""

    at: datetime
    attempt: int
    text: str


class JobStream(Generic[T_co]):
    """The items that a job yields, once each, in order: those that are kept, then each as it comes, to the job's end.

    For `for` and for `async for`; each use begins anew.

    Raises (while it is read):
        JobFailed, JobCancelled, JobExpired, JobNotFound: as `Job.result`, behind the last item.
        ItemsNotKept: the job has yielded more than it keeps, and was not read as fast.
        ResultTimeout: neither an item nor the end came in the time given.
    """

    def __init__(
        self,
        clients: tuple[Callable[[], SyncClient], Callable[[], AsyncClient]],
        queue: QueueKeys,
        job_id: str,
        item_type: Any,
        start: int,
        timeout_s: float | None,
        judge: Callable[[bytes], None],
    ) -> None:
        self._client, self._aclient = clients
        self._queue = queue
        self._job_id = job_id
        self._type = item_type
        self._start = start
        self._timeout_s = timeout_s
        self._judge = judge

    def __repr__(self) -> str:
        return f"<JobStream of job {self._job_id}>"

    def __iter__(self) -> Iterator[T_co]:
        next_index = self._start
        for entry in entries_through(self._client(), self._reading(), self._judge):
            yield self._item(entry, next_index)
            next_index += 1

    async def __aiter__(self) -> AsyncIterator[T_co]:
        next_index = self._start
        async with aclosing(aentries_through(self._aclient(), self._reading(), self._judge)) as entries:
            async for entry in entries:
                yield self._item(entry, next_index)
                next_index += 1

    def _reading(self) -> Reading:
        # Behind whatever has the number before: an end that was told there is no item.
        after = f"{self._start}-{2**63}" if self._start else "0"
        return read_along(self._queue, self._job_id, self._queue.stream(self._job_id), after, self._timeout_s)

    def _item(self, entry: Entry, next_index: int) -> T_co:
        index = entry.number - 1
        if index != next_index:
            raise ItemsNotKept(
                f"items {next_index} to {index - 1} of job {self._job_id} are no longer kept: read on from {index}, or "
                "raise the task's stream_max",
                index,
            )
        item: T_co = wire.decode_result(entry.fields[b"v"], self._type)
        return item


def line_of(entry: Entry) -> LogLine:
    """A line as `engine.kept` stores it."""
    at = datetime.fromtimestamp(int(entry.fields[b"t"]) / 1000, UTC)
    return LogLine(at, int(entry.fields[b"a"]), entry.fields[b"l"].decode("utf8", "replace"))


def lines_of(entries: list[Entry], attempt: int | None) -> list[LogLine]:
    """Those of one attempt, or all; who reads along may have had an end told among them."""
    lines = [line_of(entry) for entry in entries if b"l" in entry.fields]
    return [line for line in lines if attempt is None or line.attempt == attempt]


def entries_through(client: SyncClient, reading: Reading, judge: Callable[[bytes], None]) -> Iterator[Entry]:
    """Send what `read_along` asks for, and give what comes; `judge` sees the ended record."""
    line = client.line(WAIT_S)
    try:
        told = next(reading)
        while True:
            if isinstance(told, list):
                yield from told
                told = next(reading)
                continue
            try:
                reply = line.run(told.call) if told.block_s else client.run(told.call)
            except (ServerUnreachable, ServerBusy) as error:
                told = reading.throw(error)
            else:
                told = reading.send(reply)
    except StopIteration as stop:
        if stop.value is not None:
            judge(stop.value)
    finally:
        line.close()


async def aentries_through(
    client: AsyncClient, reading: Reading, judge: Callable[[bytes], None]
) -> AsyncGenerator[Entry, None]:
    """As `entries_through`."""
    line = client.line(WAIT_S)
    try:
        told: Ask | list[Entry] = next(reading)
        while True:
            if isinstance(told, list):
                for entry in told:
                    yield entry
                told = next(reading)
                continue
            try:
                reply = await (line.run(told.call) if told.block_s else client.run(told.call))
            except (ServerUnreachable, ServerBusy) as error:
                told = reading.throw(error)
            else:
                told = reading.send(reply)
    except StopIteration as stop:
        if stop.value is not None:
            judge(stop.value)
    finally:
        await line.aclose()
