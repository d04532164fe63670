"""A client on each kind of server that headrace supports."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from headrace.engine.clients import ServerConfig, SyncClient


@pytest.fixture(params=["valkey", "redis7", "cluster"])
def client(request: pytest.FixtureRequest) -> Iterator[SyncClient]:
    """Valkey, Redis 7.0 and a three-node cluster, each emptied first."""
    url = request.getfixturevalue("url" if request.param == "valkey" else f"{request.param}_url")
    found = SyncClient(ServerConfig(url), retry=False)
    yield found
    found.close()
