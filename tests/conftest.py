"""Servers for all tests. Each test process has its own, emptied before each test, so tests run side by side in any order."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from headrace.context import set_current
from headrace.server import EmbeddedServer
from servers import flush, redis7_binary, three_node_cluster
from soundness import violations_on

os.environ.pop("HEADRACE_URL", None)
os.environ.pop("HEADRACE_APP", None)
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Run in the background, as by `make test &`: the programs under test must hear Ctrl-C all the same.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def no_current_job() -> Iterator[None]:
    """A worker's parts, tried in this thread, leave the last job as the current one."""
    yield
    set_current(None)


@pytest.fixture(scope="session")
def valkey() -> Iterator[EmbeddedServer]:
    with EmbeddedServer(config={"enable-debug-command": "yes"}) as server:
        yield server


@pytest.fixture(scope="session")
def redis7() -> Iterator[EmbeddedServer]:
    binary = redis7_binary()
    if binary is None:
        pytest.skip("no redis-server on PATH: apt-get install redis-server")
    with EmbeddedServer(binary=binary) as server:
        yield server


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with three_node_cluster(tmp_path_factory.mktemp("cluster")) as url:
        yield url


@pytest.fixture
def url(valkey: EmbeddedServer, request: pytest.FixtureRequest) -> Iterator[str]:
    """An empty Valkey."""
    yield from _sound(valkey.url, request)


@pytest.fixture
def redis7_url(redis7: EmbeddedServer, request: pytest.FixtureRequest) -> Iterator[str]:
    """An empty Redis 7.0."""
    yield from _sound(redis7.url, request)


@pytest.fixture
def cluster_url(cluster: str, request: pytest.FixtureRequest) -> Iterator[str]:
    """An empty three-node cluster."""
    yield from _sound(cluster, request)


def _sound(url: str, request: pytest.FixtureRequest) -> Iterator[str]:
    """An empty server for one test; whatever the test did, it leaves every invariant whole, unless it is marked."""
    flush(url)
    yield url
    if request.node.get_closest_marker("damages") is None:
        assert [] == violations_on(url)
