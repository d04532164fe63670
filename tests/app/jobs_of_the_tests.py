"""Plain functions of a module that the tests' app allows."""

from __future__ import annotations

import os.path
from os import getcwd as borrowed

__all__ = ["borrowed", "double", "os"]


def double(number: int) -> int:
    return 2 * number
