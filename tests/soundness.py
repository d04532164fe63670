"""`headrace check` on whatever a test has left on its server: every queue of every prefix."""

from __future__ import annotations

import re
from contextlib import closing

import redis

from headrace.engine.audit import audit
from headrace.engine.clients import ServerConfig, SyncClient
from headrace.engine.keys import QueueKeys, queue_keys

_OURS = re.compile(r"(.+):\{([A-Za-z0-9][A-Za-z0-9._-]{0,99})\}:\w+")


def queues_on(url: str) -> list[QueueKeys]:
    """The queues that have a key on any node of this URL."""
    found: set[tuple[str, str]] = set()
    for address in url.partition("://")[2].partition("/")[0].split(","):
        host, _, port = address.partition(":")
        with closing(redis.Redis(host=host, port=int(port), protocol=2, decode_responses=True)) as client:
            for key in client.scan_iter("*:{*}:*", count=10_000):
                if match := _OURS.match(key):
                    found.add((match[2], match[1]))
    return [queue_keys(name, prefix) for name, prefix in sorted(found)]


def violations_on(url: str) -> list[str]:
    """What is wrong on a server, as sentences."""
    queues = queues_on(url)
    if not queues:
        return []
    with closing(SyncClient(ServerConfig(url), retry=False)) as client:
        return [
            f"queue {queue.name}: {found.message}" for queue in queues for found in client.run(audit(queue)).violations
        ]
