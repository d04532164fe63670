"""What real RQ wrote, kept as a file: `rq_golden.py URL FILE` records, `load` puts it back as if it were written now."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import redis

GOLDEN = Path(__file__).parent / "golden"


def dump(connection: Any) -> dict[str, Any]:
    keys = {}
    for key in sorted(connection.keys("rq:*")):
        kind = connection.type(key).decode()
        keys[key.decode()] = {"type": kind, "pttl": connection.pttl(key), "value": _READ[kind](connection, key)}
    return {"at": time.time(), "keys": keys}


def load(connection: Any, version: str) -> None:
    """The keys that RQ of this version wrote; what is due or ends then, is due and ends as much later."""
    found = json.loads((GOLDEN / f"rq-{version}.json").read_text())
    later = time.time() - found["at"]
    for key, entry in found["keys"].items():
        shift = later if key.startswith(("rq:scheduled:", "rq:failed:")) else 0
        _WRITE[entry["type"]](connection, key, entry["value"], shift)
        if entry["pttl"] > 0:
            connection.pexpire(key, entry["pttl"])


def _text(data: bytes) -> str:
    return data.decode("latin-1")


def _pairs(found: dict[bytes, bytes]) -> dict[str, str]:
    return {_text(name): _text(value) for name, value in sorted(found.items())}


def _bytes(found: dict[str, str]) -> dict[bytes, bytes]:
    return {name.encode("latin-1"): value.encode("latin-1") for name, value in found.items()}


_READ: dict[str, Any] = {
    "hash": lambda r, key: _pairs(r.hgetall(key)),
    "list": lambda r, key: [_text(item) for item in r.lrange(key, 0, -1)],
    "set": lambda r, key: sorted(_text(item) for item in r.smembers(key)),
    "zset": lambda r, key: [[_text(item), score] for item, score in r.zrange(key, 0, -1, withscores=True)],
    "stream": lambda r, key: [[_text(entry), _pairs(fields)] for entry, fields in r.xrange(key)],
    "string": lambda r, key: _text(r.get(key)),
}
_WRITE: dict[str, Any] = {
    "hash": lambda r, key, value, _: r.hset(key, mapping=_bytes(value)),
    "list": lambda r, key, value, _: r.rpush(key, *value),
    "set": lambda r, key, value, _: r.sadd(key, *value),
    "zset": lambda r, key, value, shift: r.zadd(key, {item: score + shift for item, score in value}),
    "stream": lambda r, key, value, _: [r.xadd(key, _bytes(fields), id=entry) for entry, fields in value],
    "string": lambda r, key, value, _: r.set(key, value.encode("latin-1")),
}

if __name__ == "__main__":
    text = json.dumps(dump(redis.from_url(sys.argv[1])), indent=1)
    (GOLDEN / f"rq-{sys.argv[2]}.json").write_text(text + "\n")
