"""A producer, run as `python -m headrace.torture.producer URL FILE NAME SEED`: enqueues until SIGTERM, whatever happens.

Each job has an id of its own choice; a call that failed is sent again with the same ids until the server has it. Only then
is it noted in FILE: what stands there was acknowledged.
"""

from __future__ import annotations

import asyncio
import os
import random
import select
import signal
import sys
from collections.abc import Iterator

from headrace.app import Headrace
from headrace.engine.admin import count_jobs
from headrace.engine.keys import queue_keys
from headrace.errors import JobExists, ServerError, ServerFull
from headrace.torture.names import QUEUES
from headrace.torture.tasks import app, awork, dies, fails, hangs, swells, work

STOPS_WITHIN = 200  # tries of the last call
MOST_WAITING = 1_000  # jobs; a busy machine's workers must be able to keep up, or the run ends with a backlog
LOOK_EVERY = 50


class Producer:
    """Makes calls at random; the same ones for the same seed."""

    def __init__(self, name: str, seed: int) -> None:
        self._name = name
        self._random = random.Random(seed)
        self._count = 0

    def calls(self) -> Iterator[list[tuple[object, tuple[float, ...], dict[str, object]]]]:
        """Endless: one call, or now and then a burst of up to 50 of one queue, which is stored whole or not at all."""
        while True:
            count = self._random.randint(2, 50) if self._random.random() < 0.05 else 1
            queue = self._random.choice(QUEUES)
            yield [self._call(queue) for _ in range(count)]

    def _call(self, queue: str) -> tuple[object, tuple[float, ...], dict[str, object]]:
        chance = self._random.random()
        self._count += 1
        options: dict[str, object] = {"job_id": f"{self._name}-{self._count}", "queue": queue}
        if self._random.random() < 0.1:
            options["delay"] = self._random.uniform(0.0, 2.0)
        elif self._random.random() < 0.1:
            options["priority"] = self._random.randint(-100, 100)
        if chance < 0.75:
            return work, (self._random.uniform(0.0, 0.02),), options
        if chance < 0.92:
            return awork, (self._random.uniform(0.0, 0.1),), options
        if chance < 0.95:
            return fails, (0.3,), options
        if chance < 0.96:
            return swells, (0.3,), options
        if chance < 0.98:
            return work, (self._random.uniform(0.5, 2.0),), options
        return (hangs, (0.05,), options) if chance < 0.995 else (dies, (0.3,), options)


def _note(file: int, calls: list[tuple[object, tuple[float, ...], dict[str, object]]]) -> None:
    os.write(file, "".join(f"{options['job_id']}\n" for _, _, options in calls).encode())


def _waiting(client: Headrace) -> int:
    """How many jobs have not ended; 0 while the server does not answer."""
    try:
        return sum(client.client.run(count_jobs(queue_keys(name))).live for name in QUEUES)
    except ServerError:
        return 0


async def produce(producer: Producer, client: Headrace, file: int, told: list[int]) -> tuple[int, int]:
    """Enqueue each call until it is stored, by turns sync and async.

    Returns:
        How often one had to be sent again, and how often one was refused by a full server.
    """
    again = full = 0
    for number, calls in enumerate(producer.calls()):
        if told:
            return again, full
        if number % LOOK_EVERY == 0:
            while not told and _waiting(client) > MOST_WAITING:
                await asyncio.sleep(0.2)
        made = [task.options(**options).call(*args) for task, args, options in calls]  # type: ignore[attr-defined]
        left = STOPS_WITHIN
        while left:
            left -= bool(told)
            try:
                if number % 2:
                    client.enqueue_many(made)
                else:
                    await client.aenqueue_many(made)
            except JobExists:
                pass  # an earlier try came through: ids are ours alone
            except ServerError as error:
                again += not isinstance(error, ServerFull)
                full += isinstance(error, ServerFull)
                select.select([], [], [], 0.05)
                continue
            _note(file, calls)
            break
        await asyncio.sleep(0.004)
    return again, full


def main(arguments: list[str]) -> int:
    url, path, name, seed = arguments
    told: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: told.append(number))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    client = Headrace(url)
    client.tasks.update(app.tasks)

    async def run() -> tuple[int, int]:
        try:
            return await produce(Producer(name, int(seed)), client, file, told)
        finally:
            await client.aclose()

    print(*asyncio.run(run()))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
