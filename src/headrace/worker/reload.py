"""Take on changed code: a new spawner first, then the children one after another."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from headrace.engine.keys import queue_keys
from headrace.worker.crew import Crew
from headrace.worker.launcher import Launcher, SpawnFailed
from headrace.worker.messages import Hello
from headrace.worker.roster import Roster


class Reloader:
    """Reloads when told to, or when a Python file changes (needs `watchfiles`: the extra `reload`)."""

    def __init__(self, crew: Crew, launcher: Launcher, roster: Roster) -> None:
        self._crew = crew
        self._launcher = launcher
        self._roster = roster
        self._lock = asyncio.Lock()
        self.may_reload = asyncio.Event()

    async def watch(self) -> None:
        """Reload at each change below the working directory, or the configured paths, once `may_reload` is set.

        Watches from its first step on: begun before the app is imported, it misses no change.
        """
        try:
            from watchfiles import PythonFilter, awatch
        except ImportError:
            self._crew.say("no reload: install headrace[reload]")
            return
        paths = self._crew.config.reload_paths or ["."]
        async for changes in awatch(*paths, watch_filter=PythonFilter(), debounce=300):
            await self.may_reload.wait()
            await self.run_once(sorted({Path(path).name for _, path in changes}))

    async def run_once(self, names: list[str]) -> None:
        """Import anew; when that fails, say why and go on with the old code."""
        async with self._lock:
            try:
                hello = await self._launcher.start(self._crew.config)
            except SpawnFailed as error:
                hello = Hello(error=str(error))
            if hello.error:
                self._crew.say(f"not reloaded, the old code goes on: {hello.error}")
                return
            count = len(hello.tasks)
            self._crew.say(f"reloaded {', '.join(names[:3])} ({count} task{'' if count == 1 else 's'})")
            self._serve(hello.queues)
            self._crew.schedules = hello.schedules
            await self._replace_children()

    def _serve(self, queues: list[str]) -> None:
        """The new code may name other queues; the old ones are served until the worker ends."""
        known = {queue.name for queue in self._crew.queues}
        if not self._crew.config.queues:
            prefix = self._crew.client.prefix
            self._crew.queues += [queue_keys(name, prefix) for name in queues if name not in known]

    async def _replace_children(self) -> None:
        for child in self._crew.living():
            if self._roster.is_stopping:
                return
            if child.pid:
                self._crew.ask_to_stop(child)
            ends = time.monotonic() + self._crew.config.grace_ms / 1000
            while child.pid and not self._roster.is_stopping:
                self._roster.changed.clear()
                if time.monotonic() > ends:
                    self._crew.kill(child, "worker reloaded")
                try:
                    await asyncio.wait_for(self._roster.changed.wait(), 0.25)
                except TimeoutError:
                    continue
