"""The supervisor's side of the spawner: start one, learn what the app is, ask it for children, end it.

A spawner is a fresh interpreter that imports the app; or, for a program that has its app already, a fork of this process.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable
from typing import NoReturn

import msgspec

from headrace.worker.board import Board
from headrace.worker.config import WorkerConfig
from headrace.worker.messages import LENGTH, Fork, Forked, Gone, Hello, Order, frame
from headrace.worker.processes import Death, send_signal


class SpawnFailed(Exception):
    """A child, or the spawner itself, could not be started; the message tells why."""


class Launcher:
    """Owns one spawner process at a time, and the pipe whose end tells everyone that the supervisor is gone.

    Args:
        is_adopting: orphans become this process's children (Linux).
        tell_death: called with deaths that only the spawner could see (elsewhere).
        serve: what a fork of this process does as the spawner, given its end of the socket; None: a fresh interpreter.
    """

    def __init__(
        self,
        board: Board,
        *,
        is_adopting: bool,
        tell_death: Callable[[Death], None],
        serve: Callable[[socket.socket], int] | None = None,
    ) -> None:
        self._board = board
        self._is_adopting = is_adopting
        self._tell_death = tell_death
        self._serve = serve
        self._life_fd, self._life_end = os.pipe()
        self._config: WorkerConfig | None = None
        self._pid = 0
        self._writer: asyncio.StreamWriter | None = None
        self._listener: asyncio.Task[None] | None = None
        self._retired: list[tuple[asyncio.StreamWriter | None, asyncio.Task[None] | None]] = []
        self._answers: asyncio.Queue[Forked] = asyncio.Queue()
        self._lock = asyncio.Lock()

    async def start(self, config: WorkerConfig) -> Hello:
        """Start a spawner. When it can import the app it replaces the one there was; else that one stays.

        Raises:
            SpawnFailed: the process ended before it said anything.
        """
        pid, control = self._open([]) if self._serve is None else self._fork(self._serve)
        reader, writer = await asyncio.open_connection(sock=control)
        writer.write(frame(self._order(config)))
        try:
            hello = msgspec.msgpack.decode(await _read(reader), type=Hello)
        except (EOFError, ConnectionError):
            writer.close()
            raise SpawnFailed("the process that imports the app ended before it had imported it") from None
        if hello.error:
            writer.close()
            return hello
        async with self._lock:
            self.close()
            self._pid, self._writer, self._config = pid, writer, config
            self._answers = asyncio.Queue()
            self._listener = asyncio.create_task(self._listen(reader, self._answers))
        return hello

    async def spawn(self, child: int, spawn_id: int) -> int:
        """Start a child and return its pid.

        Raises:
            SpawnFailed: the spawner is gone, or the system has no room for another process.
        """
        config = self._config
        if config is None:
            raise SpawnFailed("there is no spawner")
        if config.start == "spawn":
            return self._spawn_fresh(config, child, spawn_id)
        async with self._lock:
            writer, listener = self._writer, self._listener
            if writer is None or listener is None:
                raise SpawnFailed("there is no spawner")
            writer.write(frame(Fork(child, spawn_id)))
            asking = asyncio.ensure_future(self._answers.get())
            await asyncio.wait({asking, listener}, timeout=30, return_when=asyncio.FIRST_COMPLETED)
            if not asking.done():
                asking.cancel()
                self.close()
                raise SpawnFailed("the spawner has ended, or hangs")
            answer = asking.result()
        if not answer.pid:
            raise SpawnFailed(answer.error)
        return answer.pid

    def has_died(self, pid: int) -> bool:
        """Take note of a death; True if it was the spawner."""
        if not self._pid or self._pid != pid:
            return False
        self._pid = 0
        self.close()
        return True

    def close(self) -> None:
        """End the spawner; children go on. Where it must report their deaths, it lives until this process ends."""
        if not self._is_adopting:
            self._retired.append((self._writer, self._listener))
        else:
            if self._listener is not None:
                self._listener.cancel()
            if self._writer is not None:
                self._writer.close()
            if self._pid:
                send_signal(self._pid, signal.SIGKILL)
        self._pid, self._writer, self._listener = 0, None, None

    def _spawn_fresh(self, config: WorkerConfig, child: int, spawn_id: int) -> int:
        pid, control = self._open(["--child"])
        with control:
            control.setblocking(True)
            control.sendall(frame(self._order(config, child, spawn_id)))
        return pid

    def _open(self, arguments: list[str]) -> tuple[int, socket.socket]:
        ours, theirs = socket.socketpair()
        with theirs:
            fds = (theirs.fileno(), self._board.fd, self._life_fd)
            command = [sys.executable, "-m", "headrace.worker.spawner", str(theirs.fileno()), *arguments]
            try:
                process = subprocess.Popen(command, pass_fds=fds, stdin=subprocess.DEVNULL, process_group=0)
            except OSError as error:
                ours.close()
                raise SpawnFailed(f"cannot start {sys.executable}: {error.strerror}") from error
        process.returncode = 0  # the supervisor reaps every child, this one too
        return process.pid, ours

    def _fork(self, serve: Callable[[socket.socket], int]) -> tuple[int, socket.socket]:
        ours, theirs = socket.socketpair()
        sys.stdout.flush()
        sys.stderr.flush()
        with theirs:
            pid = os.fork()
            if pid == 0:
                ours.close()
                self._be_the_spawner(serve, theirs)
        return pid, ours

    def _be_the_spawner(self, serve: Callable[[socket.socket], int], control: socket.socket) -> NoReturn:
        """Leave the event loop that this process was forked in, and what tells others that the supervisor lives."""
        code = 70
        try:
            signal.set_wakeup_fd(-1)
            asyncio._set_running_loop(None)
            os.close(self._life_end)
            os.setpgid(0, 0)
            code = serve(control)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)

    def _order(self, config: WorkerConfig, child: int = 0, spawn_id: int = 0) -> Order:
        is_adopting = self._is_adopting or config.start == "spawn"
        return Order(
            config=config,
            supervisor_pid=os.getpid(),
            board_fd=self._board.fd,
            life_fd=self._life_fd,
            is_adopting=is_adopting,
            child=child,
            spawn_id=spawn_id,
        )

    async def _listen(self, reader: asyncio.StreamReader, answers: asyncio.Queue[Forked]) -> None:
        try:
            while True:
                message = msgspec.msgpack.decode(await _read(reader), type=Forked | Gone)
                if isinstance(message, Forked):
                    answers.put_nowait(message)
                else:
                    self._tell_death(Death(message.pid, message.status, message.peak_kib))
        except (EOFError, ConnectionError):
            return


async def _read(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readexactly(LENGTH.size)
    return await reader.readexactly(LENGTH.unpack(head)[0])
