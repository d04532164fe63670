"""Which server is meant: RQ 1.x's stack of connections, and the headrace app behind a redis-py client."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote, urlencode

import redis

from headrace.app import Headrace
from headrace.contrib.rq.exceptions import NoRedisConnectionException, not_offered
from headrace.engine.clients import ServerConfig
from headrace.engine.connect import parse_target

MAX_PAYLOAD_BYTES = 64 << 20
_TLS_OPTIONS = ("ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs", "ssl_check_hostname")


class _Stack(threading.local):
    def __init__(self) -> None:
        self.connections: list[Any] = []


_stack = _Stack()
_apps: weakref.WeakKeyDictionary[Any, Headrace] = weakref.WeakKeyDictionary()
_lock = threading.Lock()


@contextmanager
def Connection(connection: Any = None) -> Iterator[None]:  # noqa: N802, RUF100 - RQ's name
    """Inside `with Connection(conn):`, queues, workers and jobs of this thread need no connection of their own."""
    pushed = redis.Redis() if connection is None else connection
    push_connection(pushed)
    try:
        yield
    finally:
        popped = pop_connection()
        assert popped is pushed, "push_connection and pop_connection do not pair inside this Connection"


def push_connection(redis: Any) -> None:
    """What follows in this thread uses this connection, until `pop_connection`."""
    _stack.connections.append(redis)


def pop_connection() -> Any:
    """Take back what was pushed last.

    Raises:
        NoRedisConnectionException: nothing was.
    """
    if not _stack.connections:
        raise NoRedisConnectionException("there is no connection to pop")
    return _stack.connections.pop()


def get_current_connection() -> Any:
    """What was pushed last; None: nothing."""
    return _stack.connections[-1] if _stack.connections else None


def resolve_connection(connection: Any = None) -> Any:
    """The connection given, else the one pushed last.

    Raises:
        NoRedisConnectionException: neither.
    """
    found = get_current_connection() if connection is None else connection
    if found is None:
        raise NoRedisConnectionException(
            "Could not resolve a Redis connection: pass connection=, or use `with Connection(conn):`"
        )
    return found


def connection_to(url: str) -> Any:
    """A redis-py client of that server, or of the one that Sentinels name."""
    if "+sentinel://" not in url:
        return redis.Redis.from_url(url)
    target = parse_target(ServerConfig(url))
    asking = {name: value for name, value in target.asking.items() if name != "db" and value is not None}
    make: Any = redis.Sentinel
    options = {**target.kwargs, "ssl": True} if target.is_tls else target.kwargs
    sentinel = make(list(target.nodes), sentinel_kwargs={**asking, "ssl": target.is_tls}, **options)
    return sentinel.master_for(target.master)


def app_of(connection: Any) -> Headrace:
    """The headrace app that enqueues to, and reads from, the server of a redis-py client."""
    with _lock:
        app = _apps.get(connection)
        if app is None:
            from headrace.contrib.rq.runner import new_app

            app = _apps[connection] = new_app(url_of(connection))
        return app


def forget_app(connection: Any) -> None:
    """The next `app_of` this client is a new one, which knows nothing of what was there before."""
    with _lock:
        _apps.pop(connection, None)


def url_of(connection: Any) -> str:
    """The URL a redis-py client was made with, which headrace's own connections use.

    Raises:
        NotImplementedError: a Cluster, or a credential provider.
        TypeError: no redis-py client.
    """
    pool = getattr(connection, "connection_pool", None)
    if pool is None:
        if isinstance(connection, redis.RedisCluster):
            not_offered("RedisCluster connection", "use headrace itself, with a redis+cluster:// URL")
        raise TypeError(f"connection: expected a redis.Redis, got {connection!r:.60}")
    given: dict[str, Any] = pool.connection_kwargs
    if given.get("credential_provider") is not None:
        not_offered("credential provider", "give the connection a user name and a password")
    user, password = given.get("username"), given.get("password")
    login = f"{quote(user or '', safe='')}:{quote(password or '', safe='')}@" if user or password else ""
    database = given.get("db") or 0
    if "path" in given:
        return f"unix://{login}{given['path']}?db={database}"
    is_tls = issubclass(pool.connection_class, redis.SSLConnection)
    options = {name: given[name] for name in _TLS_OPTIONS if is_tls and given.get(name) is not None}
    place = f"{_place(given, 6379)}/{database}"
    if hasattr(pool, "sentinel_manager"):
        manager = pool.sentinel_manager
        nodes = ",".join(_place(one.connection_pool.connection_kwargs, 26379) for one in manager.sentinels)
        place = f"{nodes}/{quote(str(pool.service_name), safe='')}/{database}"
        asking = {name: manager.sentinel_kwargs.get(name) for name in ("username", "password")}
        options |= {f"sentinel_{name}": value for name, value in asking.items() if value is not None}
    scheme = ("rediss" if is_tls else "redis") + ("+sentinel" if hasattr(pool, "sentinel_manager") else "")
    return f"{scheme}://{login}{place}{f'?{urlencode(options)}' if options else ''}"


def _place(given: Mapping[str, Any], default_port: int) -> str:
    host = given.get("host") or "localhost"
    return f"{f'[{host}]' if ':' in host else host}:{given.get('port') or default_port}"
