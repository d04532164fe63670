"""A job's progress while one waits for it, and that of an action on many: a bar on a terminal, on stderr."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TypeVar

from headrace.cli.settings import talk
from headrace.engine import ops
from headrace.engine.clients import SyncClient
from headrace.engine.keys import QueueKeys
from headrace.errors import HeadraceError
from headrace.progress import Progress

T = TypeVar("T")

LOOK_EVERY_S = 0.5
SHOWN_FROM = 50


@contextmanager
def shown_progress(client: SyncClient, keys: QueueKeys, job_id: str) -> Iterator[None]:
    """Show it until the block is left."""
    is_over = threading.Event()

    def look(show: Callable[[Progress], None]) -> None:
        last: Progress | None = None
        while not is_over.wait(LOOK_EVERY_S):
            try:
                found = client.run(ops.look(keys, job_id))
            except HeadraceError:
                continue  # whoever waits for the job's end tells about it
            progress = Progress.decode(found.progress) if found is not None else None
            if progress is not None and progress != last:
                last = progress
                show(progress)

    with _bar() if sys.stderr.isatty() else _lines() as show:
        thread = threading.Thread(target=look, args=(show,), name="progress", daemon=True)
        thread.start()
        try:
            yield
        finally:
            is_over.set()
            thread.join()


def tracked(items: Sequence[T], what: str) -> Iterator[T]:
    """The items; where there are many, a bar on a terminal shows how far one is."""
    is_shown = len(items) >= SHOWN_FROM and sys.stderr.isatty() and not sys.stdout.isatty()
    if not is_shown or find_spec("rich") is None:
        yield from items  # on a terminal the ids that are printed show it
        return
    from rich.console import Console
    from rich.progress import track

    yield from track(items, description=what, console=Console(stderr=True), transient=True)


@contextmanager
def _lines() -> Iterator[Callable[[Progress], None]]:
    yield lambda progress: talk(in_words(progress))


@contextmanager
def _bar() -> Iterator[Callable[[Progress], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (BarColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        row = bar.add_task("waiting", total=None)
        yield lambda progress: bar.update(
            row, description=in_words(progress), completed=progress.fraction, total=1.0 if _is_known(progress) else None
        )


def in_words(progress: Progress) -> str:
    """As `43 %  430 of 1,000  fetching`."""
    words = [f"{progress.fraction:.0%}".replace("%", " %")] if _is_known(progress) else []
    if progress.done is not None:
        words.append(f"{progress.done:,}" + (f" of {progress.total:,}" if progress.total is not None else ""))
    return "  ".join(words + ([progress.text] if progress.text else []))


def _is_known(progress: Progress) -> bool:
    return progress.done is None or progress.total is not None
