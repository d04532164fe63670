"""Who may claim in a process with several consumers: a job that may have killed a process is run there alone."""

from __future__ import annotations

import threading
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Permit:
    """Leave to claim. `is_solo`: nobody else of this process holds a job, or will until this one is done."""

    may_take_suspects: bool
    is_solo: bool


ALONE = Permit(may_take_suspects=True, is_solo=False)
_USUAL = Permit(may_take_suspects=False, is_solo=False)
_SOLO = Permit(may_take_suspects=True, is_solo=True)


class Gate:
    """Lets all consumers claim, until a suspect waits; then drains, lets one claim alone, and opens again."""

    def __init__(self, consumers: int) -> None:
        self._is_single = consumers == 1
        self._lock = threading.Lock()
        self._inside: set[int] = set()
        self._wants_solo = False
        self._solo: int | None = None

    def enter(self, number: int) -> Permit | None:
        """Leave to claim for consumer `number`; None: not now."""
        if self._is_single:
            return ALONE
        with self._lock:
            if self._solo is not None:
                return _SOLO if self._solo == number else None
            if self._wants_solo:
                self._inside.discard(number)
                if self._inside:
                    return None
                self._solo, self._wants_solo = number, False
                return _SOLO
            self._inside.add(number)
            return _USUAL

    @property
    def is_solo_wanted(self) -> bool:
        """A suspect waits until everybody has left."""
        return self._wants_solo

    def leave(self, number: int) -> None:
        """Consumer `number` holds nothing any more (its outcomes may still be on their way)."""
        if self._is_single:
            return
        with self._lock:
            self._inside.discard(number)
            if self._solo == number:
                self._solo = None

    def reopen(self, number: int) -> None:
        """Consumer `number`, alone, found no suspect, since another process was faster: its job may have company."""
        with self._lock:
            if self._solo == number:
                self._solo = None
                self._inside.add(number)

    def ask_for_solo(self) -> None:
        """A suspect waits."""
        with self._lock:
            self._wants_solo = self._wants_solo or self._solo is None
