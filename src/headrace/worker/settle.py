"""A consumer's session: outcomes reach the server once, whatever is lost on the way, and the next jobs come back.

After a reply that was lost, the session that may have claimed or settled is adopted by a new one: what it still
holds is known then, and nothing is half known. So also when another server may answer than before: one that took over
may hold jobs whose end it never heard of. Outcomes wait here while the server is away.
"""

from __future__ import annotations

import asyncio
import logging
import select
from collections.abc import Callable, Sequence

from headrace.engine import flows, ops
from headrace.engine.call import Steps
from headrace.engine.clients import AsyncClient, SyncClient, backoff_s
from headrace.engine.keys import QueueKeys
from headrace.errors import HeadraceError, ServerError, ServerUnreachable, SessionGone
from headrace.worker.board import SlotRow

logger = logging.getLogger("headrace.worker")
MOST_BACKOFF_S = 3.0
MOST_OUTCOMES_A_CALL = 1_000
"""Two values each go into one `unpack` of Lua, which takes fewer than 8,000."""


class Session:
    """One consumer's identity in Redis.

    Args:
        order: gives the queues of each claim, first the most wanted.
        running: ids that run, or end, while outcomes are settled (asyncio); an adopted session keeps them.
    """

    def __init__(
        self,
        queues: Sequence[QueueKeys],
        name: Callable[[int], str],
        slot: SlotRow,
        lease_ms: int,
        *,
        split: bool,
        side_by_side: bool = False,
        order: Callable[[], Sequence[QueueKeys]] | None = None,
        running: Callable[[], set[str]] = set,
    ) -> None:
        self.queues = queues
        self._name = name
        self._slot = slot
        self._lease_ms = lease_ms
        self._split = split
        self._side_by_side = side_by_side
        self._order = order
        self._running = running
        self._epoch = 0
        self._failures = 0
        self._changes: dict[SyncClient | AsyncClient, int] = {}
        self.must_adopt = False

    @property
    def name(self) -> str:
        return self._name(self._epoch)

    def open(self) -> Steps[None]:
        yield from ops.open_session(self.queues, self._name(1), self._lease_ms, split=self._split)
        self._epoch = self._slot.epoch = 1

    def close(self) -> Steps[None]:
        yield from ops.close_session(self.queues, self.name, split=self._split)
        if self.must_adopt:  # an adoption whose reply was lost has begun the next one
            yield from ops.close_session(self.queues, self._name(self._epoch + 1), split=self._split)
        self._slot.epoch = 0

    def exchange(self, outcomes: list[ops.Settlement], want: int, take_suspects: bool) -> Steps[ops.Settled]:
        """Settle, and claim the next. May be sent again after any error, once `note` has seen it."""
        if self.must_adopt:
            yield from self._adopt(outcomes)
        while len(outcomes) > MOST_OUTCOMES_A_CALL:
            first = outcomes[:MOST_OUTCOMES_A_CALL]
            part = yield from ops.settle(self.queues, self.name, first, split=self._split)
            self._tell_lost(part)
            yield from self._deliver(part.outboxes or ())
            del outcomes[:MOST_OUTCOMES_A_CALL]
        queues = self._order() if self._order is not None else self.queues
        settled = yield from ops.settle(
            queues,
            self.name,
            outcomes,
            want=want,
            take_suspects=take_suspects,
            side_by_side=self._side_by_side,
            split=self._split,
        )
        self._failures = 0
        if settled.lost:
            self._tell_lost(settled)
        if settled.outboxes or settled.claimed.with_inputs or settled.claimed.with_saved:
            yield from self._pass_on(settled)
        return settled

    def _pass_on(self, settled: ops.Settled) -> Steps[None]:
        """Results go from job to job: to those of other queues, and to those just claimed; and checkpoints from run to run."""
        by_name = {queue.name: queue for queue in self.queues}
        with_inputs, with_saved = settled.claimed.with_inputs or set(), settled.claimed.with_saved or set()
        for claim in settled.claimed.claims:
            if claim.id in with_inputs:
                claim.inputs = yield from flows.inputs(by_name[claim.queue], claim.id)
            if claim.id in with_saved:
                claim.saved = yield ops.saved_state(by_name[claim.queue], claim.id)
        yield from self._deliver(settled.outboxes or ())

    def _deliver(self, queues: Sequence[QueueKeys]) -> Steps[None]:
        """Empty these outboxes; what fails is left to those who tend the queue."""
        for queue in queues:
            try:
                yield from flows.deliver(queue)
            except HeadraceError as error:
                logger.warning("the outbox of queue %s is left for later: %s", queue.name, error)

    def _tell_lost(self, settled: ops.Settled) -> None:
        for job_id in settled.lost:
            logger.warning("job %s was taken over meanwhile: what this run of it gave is dropped", job_id)

    def _adopt(self, outcomes: list[ops.Settlement]) -> Steps[None]:
        old, new = self._name(self._epoch), self._name(self._epoch + 1)
        held = yield from ops.adopt(self.queues, old, new, self._lease_ms, split=self._split)
        self._epoch += 1
        self._slot.epoch = self._epoch
        self.must_adopt = False
        ended = {outcome.id for outcome in outcomes}
        kept = {claim.id for claim in held}
        for outcome in outcomes:
            if outcome.id not in kept:
                logger.info("job %s is settled already, or was taken over", outcome.id)
        outcomes[:] = [outcome for outcome in outcomes if outcome.id in kept]
        ended |= self._running()
        rest = [(claim.queue, claim.id) for claim in held if claim.id not in ended]
        if rest:
            yield from ops.give_back(self.queues, new, rest, split=self._split)

    def heed_changes(self, client: SyncClient | AsyncClient) -> None:
        """Before each exchange: adopt first if it may be another server that answers since this client was used last."""
        if self._changes.get(client, 0) != client.changes:
            self._changes[client] = client.changes
            self.must_adopt = True

    def blame(self, job_ids: Sequence[str], reason: str) -> Steps[ops.Released]:
        """These jobs took their own process with them: end this session so, and let the next exchange begin another."""
        released = yield from ops.release(
            self.queues, self.name, blamed=job_ids, alone=len(job_ids) == 1, reason=reason, split=self._split
        )
        self.must_adopt = True
        return released

    def note(self, error: ServerError) -> float:
        """Remember what an error leaves in doubt; how long to wait before the next try."""
        self._slot.server_errors += 1
        if isinstance(error, SessionGone | ServerUnreachable):
            self.must_adopt = True
        if isinstance(error, SessionGone):
            logger.warning("this consumer's lease had ended; going on under a new session")
            return 0.0
        if not self._failures:
            logger.warning("%s; trying again", error)
        self._failures += 1
        return backoff_s(self._failures, MOST_BACKOFF_S)


def exchange(
    client: SyncClient,
    session: Session,
    outcomes: list[ops.Settlement],
    want: int,
    take_suspects: bool,
    wake_fd: int,
    gives_up: Callable[[], bool],
) -> ops.Settled | None:
    """Drive `session.exchange` until it works; None when nothing is owed and `gives_up()` says to stop trying."""  # fmt: skip
    while True:
        session.heed_changes(client)
        try:
            return client.run(session.exchange(outcomes, want, take_suspects))
        except ServerError as error:
            pause_s = session.note(error)
        if not outcomes and gives_up():
            return None
        if pause_s:
            select.select([wake_fd] if wake_fd >= 0 and not gives_up() else [], [], [], pause_s)


async def aexchange(
    client: AsyncClient,
    session: Session,
    outcomes: list[ops.Settlement],
    want: int,
    take_suspects: bool,
    gives_up: Callable[[], bool],
) -> ops.Settled | None:
    """The asyncio twin of `exchange`."""  # fmt: skip
    while True:
        session.heed_changes(client)
        try:
            return await client.run(session.exchange(outcomes, want, take_suspects))
        except ServerError as error:
            pause_s = session.note(error)
        if not outcomes and gives_up():
            return None
        await asyncio.sleep(pause_s)
