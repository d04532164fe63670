"""What supervisor and spawner say to each other, over a socket pair: msgpack maps, each after its length in 4 bytes."""

from __future__ import annotations

import socket
import struct
from typing import Any

import msgspec

from headrace.engine.schedules import Declared
from headrace.worker.config import WorkerConfig

LENGTH = struct.Struct("!I")


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What the supervisor says first. `is_adopting`: children become its own; `life_fd`: ends when it does."""

    config: WorkerConfig
    supervisor_pid: int
    board_fd: int
    life_fd: int
    is_adopting: bool
    child: int = 0
    spawn_id: int = 0


class Hello(msgspec.Struct, frozen=True, kw_only=True):
    """What the app is. `error`: it could not be imported, and nothing else is told."""

    error: str = ""
    url: str = ""
    prefix: str = ""
    queues: list[str] = []
    tasks: list[str] = []
    async_tasks: list[str] = []
    threads: list[str] = []
    schedules: list[Declared] = []


class Fork(msgspec.Struct, frozen=True):
    """Asks for a child."""

    child: int
    spawn_id: int


class Forked(msgspec.Struct, frozen=True, tag=True):
    """The answer to Fork. `pid` 0: it failed, and `error` tells why."""

    pid: int
    error: str = ""


class Gone(msgspec.Struct, frozen=True, tag=True):
    """A child has ended (only where the supervisor cannot adopt)."""

    pid: int
    status: int
    peak_kib: int


def frame(message: Any) -> bytes:
    data = msgspec.msgpack.encode(message)
    return LENGTH.pack(len(data)) + data


def send(control: socket.socket, message: Any) -> None:
    control.sendall(frame(message))


def receive(control: socket.socket) -> bytes:
    """The next message; b"" when the other side is gone."""
    head = _exactly(control, LENGTH.size)
    return _exactly(control, LENGTH.unpack(head)[0]) if head else b""


def _exactly(control: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = control.recv(size - len(data))
        if not part:
            return b""
        data += part
    return data
