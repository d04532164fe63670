"""A request to the server as a value: which script (or command), which keys and arguments, how to read the reply."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Generic, TypeAlias, TypeVar

T = TypeVar("T")
Arg: TypeAlias = "bytes | str | int | float"

_INCLUDE = re.compile(r"^ *-- include: (\w+)$", re.MULTILINE)
_COMMANDS = re.compile(r"redis\.call\('(\w+)'")
_KEYS = re.compile(r"^-- keys: (.+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Script:
    """One Lua file, with its includes put in place. `keys` are the names of one queue's key block."""

    name: str
    source: bytes
    sha: bytes
    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One round trip. `script` None: `args` is a whole plain command and `keys` only says where it goes.

    `wait`: a command sent in the same write, after the first; `decode` then gets a pair, the second of it an integer, a
    list, or the text of an error. `wait_ms`: how long the server may take for it.
    """

    script: Script | None
    keys: Sequence[bytes | str]
    args: Sequence[Arg]
    decode: Callable[[Any], T]
    wait: Sequence[Arg] = ()
    wait_ms: int = 0


@dataclass(frozen=True, slots=True)
class Store:
    """Jobs of one queue (`ops.NewJob`), to be stored between the calls of some steps. The answer is that of `enqueue`."""

    queue: str
    jobs: Sequence[Any]
    durability: str = "memory"


Steps: TypeAlias = "Generator[Call[Any] | Store, Any, T]"
"""What is sent, one after the other, written once for sync and async code: a client drives it to its result."""
Op: TypeAlias = "Call[T] | Steps[T]"


@cache
def script(name: str) -> Script:
    """Load `lua/NAME.lua`: `-- include: X` lines are replaced by `lua/include/X.lua`."""
    folder = resources.files("headrace.engine") / "lua"
    text = (folder / f"{name}.lua").read_text("utf8")
    keys = tuple(match[1].split()) if (match := _KEYS.search(text)) else ()
    text = _KEYS.sub(lambda m: m[0] + "\n" + _queue_at(m[1].split()), text)
    text = _INCLUDE.sub(lambda m: (folder / "include" / f"{m[1]}.lua").read_text("utf8"), text)
    source = text.encode()
    found = Script(name, source, hashlib.sha1(source, usedforsecurity=False).hexdigest().encode(), keys)
    _by_sha[found.sha.decode()] = found
    return found


_by_sha: dict[str, Script] = {}


def commands_at(sha: str, line: int) -> list[str]:
    """The commands that a line of a script calls: some servers tell of an error only where it was."""
    found = _by_sha.get(sha)
    lines = found.source.decode().split("\n") if found else []
    return _COMMANDS.findall(lines[line - 1]) if 0 < line <= len(lines) else []


def _queue_at(names: list[str]) -> str:
    """Lua that gives the n-th queue's keys by name, in the order in which Python passes them."""
    fields = ", ".join(f"{name} = KEYS[at + {i}]" for i, name in enumerate(names, 1))
    return (
        f"local KEYS_PER_QUEUE = {len(names)}\n"
        f"local function queue_at(n) local at = (n - 1) * {len(names)}; return {{{fields}}} end"
    )


def command(*args: Arg, key: bytes | str = "", decode: Callable[[Any], T]) -> Call[T]:
    """A plain command: `key` tells Cluster which node; empty means any."""
    return Call(None, (key,) if key else (), args, decode)
