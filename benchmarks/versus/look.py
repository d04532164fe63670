"""Where a library has its jobs: prints {name: "waiting" | "held" | "failed"} as JSON, read from the server by its adapter.

    python look.py ADAPTER

A name that is not printed is in no queue, in no list of what is running, and in no list of failures: nothing will ever run it.
"""

from __future__ import annotations

import importlib
import json
import re
import sys

import redis

from effects import URL

NAME = re.compile(rb"(?:job|poison|probe)-\d{6}")
LAST_WORD = ("failed", "held", "waiting")  # a job in two places: what may still run it counts


def main() -> None:
    adapter = importlib.import_module(f"adapters.{sys.argv[1]}")
    found: dict[str, str] = {}
    client = redis.Redis.from_url(URL, protocol=2)
    for place, blob in adapter.places(client):
        for name in NAME.findall(blob):
            known = found.get(name.decode(), "failed")
            found[name.decode()] = max(known, place, key=LAST_WORD.index)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
