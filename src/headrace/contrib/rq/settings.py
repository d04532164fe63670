"""RQ's settings of a server, from a module or the environment, as a redis-py client."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import redis

_YES, _NO = ("y", "yes", "t", "true"), ("n", "no", "f", "false", "")
_SSL = ("ssl_ca_certs", "ssl_cert_reqs", "ssl_ca_data", "ssl_keyfile", "ssl_certfile")


def connect(settings: Mapping[str, Any], kind: Any = redis.Redis) -> Any:
    """A client of the server that RQ's settings tell of: REDIS_URL, or SENTINEL, or REDIS_HOST and its like.

    Raises:
        ValueError: REDIS_SSL is no boolean, a port no number.
    """
    if settings.get("REDIS_URL") is not None:
        return kind.from_url(settings["REDIS_URL"])
    if settings.get("SENTINEL") is not None:
        return _sentinel(settings["SENTINEL"])
    options = {name: settings.get(f"REDIS_{name.upper()}") for name in _SSL}
    return kind(
        host=settings.get("REDIS_HOST", "localhost"),
        port=int(settings.get("REDIS_PORT", 6379)),
        db=int(settings.get("REDIS_DB", 0)),
        password=settings.get("REDIS_PASSWORD"),
        ssl=_is_yes(settings.get("REDIS_SSL", False)),
        **{name: value for name, value in options.items() if value is not None},
    )


def _is_yes(given: Any) -> bool:
    if isinstance(given, str) and given.lower() not in (*_YES, *_NO):
        raise ValueError(f"REDIS_SSL: expected True or False, got {given!r}")
    return given.lower() in _YES if isinstance(given, str) else bool(given)


def _sentinel(told: Mapping[str, Any]) -> Any:
    options = {name: told.get(name.upper()) for name in ("username", "password", "socket_timeout")}
    options |= {"db": told.get("DB", 0), "ssl": told.get("SSL", False), **told.get("CONNECTION_KWARGS", {})}
    instances = told.get("INSTANCES", [("localhost", 26379)])
    make: Any = redis.Sentinel
    sentinel = make(instances, sentinel_kwargs=told.get("SENTINEL_KWARGS", {}), **options)
    return sentinel.master_for(told.get("MASTER_NAME", "mymaster"))
