"""Note every 10 s by how much each queue's totals have grown; also what no child counts, such as enqueues and lost workers."""

from __future__ import annotations

from headrace.engine import stats
from headrace.errors import ServerError
from headrace.worker.crew import Crew

NOTE_EVERY_S = 10.0


class Historian:
    """Any number of workers may do so: each growth is noted once."""

    def __init__(self, crew: Crew) -> None:
        self._crew = crew

    async def run_once(self) -> float:
        for queue in self._crew.queues:
            try:
                await self._crew.run(stats.tally(queue))
            except ServerError:
                break  # the totals are the server's: the next note has it all
        return NOTE_EVERY_S
