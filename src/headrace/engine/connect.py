"""How a URL becomes connections, and redis-py's errors become ours. With `clients`, the only code that imports redis."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import ssl
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

import redis
import redis.asyncio as aredis
import redis.connection as redis_connection
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.exceptions import AskError, MovedError
from redis.retry import Retry
from redis.sentinel import MasterNotFoundError

from headrace import errors
from headrace.engine.call import commands_at

Address = tuple[str, int]
_parse_url: Any = redis_connection.parse_url
_UnixConnection: Any = redis.UnixDomainSocketConnection

_FORMS = "use redis://HOST:PORT/DB, rediss:// (TLS), unix:///PATH, redis+cluster://H:P,H:P or redis+sentinel://H:P,H:P/MASTER"
_SCHEMES = ("redis", "rediss", "unix", "redis+cluster", "rediss+cluster", "redis+sentinel", "rediss+sentinel")


@dataclass(frozen=True)
class ServerConfig:
    """Where the server is and how patient to be.

    Attributes:
        url: `redis://`, `rediss://` (TLS), `unix://`, `redis+cluster://h:p,h:p`, `redis+sentinel://h:p,h:p/MASTER/0`
            (the Sentinels' own login: `?sentinel_username=…&sentinel_password=…`).
        retry_budget_s: how long one producer call may take in all, retries included.
        durability_timeout_ms: how long an enqueue waits until its jobs are as durable as asked for.
    """

    url: str
    prefix: str = "hr"
    max_payload_bytes: int = 1 << 20
    connect_timeout_s: float = 2.0
    command_timeout_s: float = 5.0
    retry_budget_s: float = 15.0
    durability_timeout_ms: int = 2_000

    def __repr__(self) -> str:
        return f"ServerConfig(url={masked_url(self.url)!r}, prefix={self.prefix!r})"


@dataclass(frozen=True)
class ServerInfo:
    """What the server says of itself. `kind`: "valkey" or "redis"."""

    kind: str
    version: str
    is_cluster: bool
    policy: str
    has_persistence: bool

    def __str__(self) -> str:
        return f"{self.kind.capitalize()} {self.version}"


def masked_url(url: str) -> str:
    """The URL with its passwords as ***: before the @, with or without a scheme, and in the query."""
    masked = re.sub(r"^((?:[\w+]+://)?[^:@/]*):.*@", r"\1:***@", url)
    return re.sub(r"((?:^|[?&])\w*password=)[^&]*", r"\1***", masked)


@dataclass(frozen=True)
class Target:
    """A parsed URL. `nodes`: servers (or Sentinels) to ask; `kwargs`: for redis-py's connections.

    `asking`: what is different where `nodes` are asked about the others; `reply_timeout_s`: how long to wait for a
    reply, once connected.
    """

    url: str
    mode: str
    nodes: tuple[Address, ...]
    master: str
    kwargs: dict[str, Any]
    asking: dict[str, Any]
    is_tls: bool
    path: str
    reply_timeout_s: float


def parse_target(config: ServerConfig) -> Target:
    """Read a URL.

    Raises:
        UsageError: it cannot be one; the message tells the forms there are.
    """
    url = config.url
    shown = masked_url(url)
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in _SCHEMES:
        raise errors.UsageError(f"{shown!r} is no server URL: {_FORMS}")
    tls = scheme.startswith("rediss")
    mode = scheme.partition("+")[2] or ("unix" if scheme == "unix" else "single")
    try:
        parsed, hosts, master = _split_url(url, mode, tls, rest)
        default_port = 26379 if mode == "sentinel" else 6379
        nodes = tuple(_address(host, default_port) for host in hosts.split(",")) if mode != "unix" else ()
    except ValueError as error:
        raise errors.UsageError(f"{shown!r} is no server URL ({error}): {_FORMS}") from None
    kwargs = {k: v for k, v in parsed.items() if k not in ("connection_class", "host", "port", "path")}
    asking: dict[str, Any] = {}
    if mode == "sentinel":  # Sentinels hold no databases, and have users of their own
        asking = {"db": 0, **{name: kwargs.pop(f"sentinel_{name}", None) for name in ("username", "password")}}
    kwargs.update(
        protocol=2,
        socket_connect_timeout=config.connect_timeout_s,
        socket_timeout=config.connect_timeout_s,  # until it is connected and logged in
        health_check_interval=0,
    )
    if mode != "unix":
        kwargs.update(socket_keepalive=True, socket_keepalive_options=_keepalive())
    target = Target(
        url, mode, nodes, master, kwargs, asking, tls, str(parsed.get("path", "")), config.command_timeout_s
    )
    _check_options(target, shown)
    return target


def _check_options(target: Target, shown: str) -> None:
    """See that redis-py takes what the URL's query says, and that the files it names are there."""
    for name in ("ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile"):
        path = target.kwargs.get(name)
        if path and not os.path.exists(path):
            raise errors.UsageError(f"{shown!r}: {name} names {path}, which is not there")
    try:
        sync_connection(target, target.nodes[0] if target.nodes else None)
    except (TypeError, ValueError, redis.RedisError) as error:
        raise errors.UsageError(f"{shown!r} has an option that cannot be used ({error})") from None


def _split_url(url: str, mode: str, is_tls: bool, rest: str) -> tuple[dict[str, Any], str, str]:
    """redis-py's own reading of a one-host form of the URL (it knows every option), all hosts, the master's name."""
    if mode == "unix":
        return _parse_url(url), "", ""
    split = urlsplit(f"redis://{rest}")
    user, _, hosts = split.netloc.rpartition("@")
    parts = [part for part in split.path.split("/") if part]
    master = ""
    if mode == "sentinel":
        if not parts:
            raise ValueError("the master's name is missing")
        master, parts = parts[0], parts[1:]
    database = parts[0] if parts else ""
    if mode == "cluster" and database not in ("", "0"):
        raise ValueError("a cluster has database 0 only")
    if database and not database.isdigit():
        raise ValueError(f"{database!r} is no database number")
    first = f"{'rediss' if is_tls else 'redis'}://{user + '@' if user else ''}{hosts.split(',')[0] or 'localhost'}"
    suffix = f"/{database}" + (f"?{split.query}" if split.query else "")
    return _parse_url(first + suffix), hosts, master


def _keepalive() -> dict[int, int]:
    """Notice a dead peer after 15 + 3 × 5 s, where the platform can be told."""
    wanted = {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}
    return {getattr(socket, name): value for name, value in wanted.items() if hasattr(socket, name)}


def _address(text: str, default_port: int) -> Address:
    host, _, port = text.rpartition(":") if ":" in text and not text.endswith("]") else (text, "", "")
    if port and not port.isdigit():
        raise ValueError(f"{port!r} is no port")
    return host.strip("[]") or "localhost", int(port or default_port)


def sync_connection(target: Target, address: Address | None, **overrides: Any) -> Any:
    """A redis-py connection, not yet connected; its own retries are off, since it would repeat writes."""
    kwargs = {**target.kwargs, **overrides, "retry": Retry(NoBackoff(), 0)}
    if target.mode == "unix":
        return _UnixConnection(path=target.path, **kwargs)
    assert address is not None
    kind: Any = redis.SSLConnection if target.is_tls else redis.Connection
    return kind(host=address[0], port=address[1], **kwargs)


def async_connection(target: Target, address: Address | None, **overrides: Any) -> Any:
    """The asyncio twin of `sync_connection`, but without timeouts: see `clients._within`."""
    kwargs = {**target.kwargs, **overrides, "retry": AsyncRetry(NoBackoff(), 0), "socket_timeout": None}
    if target.mode == "unix":
        return aredis.UnixDomainSocketConnection(path=target.path, **kwargs)
    assert address is not None
    kind: Any = aredis.SSLConnection if target.is_tls else aredis.Connection
    return kind(host=address[0], port=address[1], **kwargs)


def certificate_problem(target: Target, error: BaseException) -> errors.ServerUntrusted | None:
    """What to say when a connection was refused for a certificate; None when that was not it."""
    refused = _cause(error, ssl.SSLCertVerificationError)
    if refused is None:
        return None
    return errors.ServerUntrusted(
        f"the certificate of {masked_url(target.url)} is not trusted ({refused.verify_message}): name its authority "
        "with ?ssl_ca_certs=FILE, or renew it"
    )


def is_worth_a_probe(target: Target, error: BaseException) -> bool:
    """Whether a connection failed as one does when one side speaks TLS and the other does not, or was turned away."""
    answered = (redis.ResponseError, redis.AuthenticationError, redis.BusyLoadingError)
    if isinstance(error, answered) or _cause(error, ConnectionRefusedError) is not None:
        return False
    return target.is_tls or not isinstance(error, redis.TimeoutError)


def probe_port(target: Target, address: Address) -> errors.HeadraceError | None:
    """Look what listens there; what to say if that is the reason. Blocks for a second or two."""
    where = masked_url(target.url)
    if target.is_tls:
        if _answers_in_plain(address):
            return errors.ServerUntrusted(
                f"{where} speaks no TLS: write redis:// instead of rediss://, or use its TLS port"
            )
        return None
    greeting = _greeting(address)
    if greeting:
        return _translate_reply(greeting, greeting, where)
    if _answers_with_tls(address):
        return errors.ServerUntrusted(f"{where} speaks TLS only: write rediss:// instead of redis://")
    return None


_ErrorT = TypeVar("_ErrorT", bound=BaseException)


def _cause(error: BaseException | None, kind: type[_ErrorT]) -> _ErrorT | None:
    """The first of this kind among an error and what led to it."""
    while error is not None and not isinstance(error, kind):
        error = error.__cause__ or error.__context__
    return error


PROBE_S = 1.0


def _answers_in_plain(address: Address) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(address, PROBE_S) as probe:
        probe.sendall(b"PING\r\n")
        return probe.recv(1) in (b"+", b"-")
    return False


def _greeting(address: Address) -> str:
    """The error that a server sends unasked before it hangs up; "" when there is none."""
    with contextlib.suppress(OSError), socket.create_connection(address, PROBE_S) as probe:
        probe.settimeout(0.2)
        said = probe.recv(200)
        if said.startswith(b"-"):
            return said[1:].partition(b"\r\n")[0].decode("utf8", "replace")
    return ""


def _answers_with_tls(address: Address) -> bool:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        contextlib.suppress(OSError),
        socket.create_connection(address, PROBE_S) as probe,
        context.wrap_socket(probe) as tunnel,
    ):
        return tunnel.version() is not None
    return False


class SlotMap:
    """Which node of a cluster serves which slot, from CLUSTER SLOTS; filled by the clients.

    Attributes:
        changes: how often it may have become another server that answers, in a cluster or not. One that took over need not
            have all that the one before has confirmed.
    """

    def __init__(self) -> None:
        self.changes = 0
        self._ranges: list[tuple[int, int, Address]] = []
        self._moved: dict[int, Address] = {}

    @property
    def is_known(self) -> bool:
        return bool(self._ranges)

    @property
    def nodes(self) -> list[Address]:
        return sorted({address for _, _, address in self._ranges})

    def fill(self, reply: list[Any], asked: Address) -> None:
        """Take a CLUSTER SLOTS reply; an empty host means the node that was asked."""
        self._moved.clear()
        self._ranges = [
            (int(first), int(last), (master[0].decode() if master[0] else asked[0], int(master[1])))
            for first, last, master, *_ in reply
        ]

    def moved(self, slot: int, address: Address) -> None:
        self._moved[slot] = address
        self.changes += 1

    def forget(self) -> None:
        self.changes += 1
        self._ranges = []
        self._moved.clear()

    def node_for(self, key: bytes | str) -> Address:
        """Raises ServerBusy when no node serves the slot."""
        if not key:
            return self._ranges[0][2]
        slot = key_slot(key if isinstance(key, bytes) else key.encode())
        if slot in self._moved:
            return self._moved[slot]
        for first, last, address in self._ranges:
            if first <= slot <= last:
                return address
        raise errors.ServerBusy(f"no node of the cluster serves slot {slot} now; it is being set up or failing over")


@dataclass(frozen=True)
class Redirection:
    """A cluster's word that another node serves a slot: for good, or (`is_ask`) for one call while it moves there."""

    slot: int
    host: str
    port: int
    is_ask: bool


_REDIRECTION = re.compile(r"^(MOVED|ASK) (\d+) (.*):(\d+)$")


def redirection(error: redis.ResponseError) -> Redirection | None:
    """What an error says of where to go. Older redis-py knows it as such in its cluster client only."""
    if isinstance(error, AskError):  # MovedError is one, too
        return Redirection(error.slot_id, error.host or "", error.port, not isinstance(error, MovedError))
    found = _REDIRECTION.match(str(error))
    return Redirection(int(found[2]), found[3], int(found[4]), found[1] == "ASK") if found else None


# -- errors

_BUSY = (
    "READONLY", "MISCONF", "NOREPLICAS", "BUSY", "UNBLOCKED", "TRYAGAIN", "LOADING", "CLUSTERDOWN", "MASTERDOWN",
    "MOVED", "ASK", "max number of clients",
)  # fmt: skip
_BUSY_WORDS = {
    "READONLY": "it is a read-only replica (connect to its primary), or a failover is under way",
    "MISCONF": "it cannot write to its disk",
    "NOREPLICAS": "it has fewer replicas than it was told to need",
    "BUSY": "it runs somebody's long script",
    "LOADING": "it is loading its data",
    "CLUSTERDOWN": "the cluster is down or being set up",
    "MASTERDOWN": "the replica has lost its master",
    "TRYAGAIN": "a slot of the cluster is being moved",
    "max number of clients": "it has its maximum number of clients",
}
_NEEDED = "headrace needs Redis 7.0 or Valkey 7.2, or newer"
_DENIED = ("NOAUTH", "WRONGPASS", "NOPERM", "DENIED", "ERR AUTH", "ERR invalid password", "ERR invalid username")


def translate(error: BaseException, url: str) -> errors.ServerError | errors.HeadraceError:
    """The headrace error for what redis-py (or the socket) raised."""
    where = masked_url(url)
    text = str(error)
    if isinstance(error, errors.HeadraceError):
        return error
    if isinstance(error, MasterNotFoundError):
        return errors.ServerUnreachable(f"no Sentinel at {where} knows the master ({text})")
    if isinstance(error, redis.ResponseError | redis.BusyLoadingError | redis.AuthenticationError):
        return _translate_reply(_prefixed(error), text, where)
    if "max number of clients" in text:
        return errors.ServerBusy(f"{where} cannot work now: {_BUSY_WORDS['max number of clients']}")
    if isinstance(error, redis.TimeoutError | TimeoutError):
        return errors.ServerUnreachable(f"no reply in time from {where}")
    if isinstance(error, redis.ConnectionError | OSError):
        return errors.ServerUnreachable(
            f"no server answers at {where} ({text.rstrip('.')}): start one with `headrace server`, or set HEADRACE_URL"
        )
    if isinstance(error, redis.RedisError):
        return errors.ServerCorrupt(
            f"{where} sent what is no reply to a command of ours ({text}): is it a Redis server?"
        )
    raise error


def _prefixed(error: BaseException) -> str:
    """redis-py takes the prefix off the errors it has classes for: put it back."""
    names = {
        "ReadOnlyError": "READONLY", "BusyLoadingError": "LOADING", "OutOfMemoryError": "OOM", "NoPermissionError": "NOPERM",
        "AuthenticationError": "NOAUTH", "AuthenticationWrongNumberOfArgsError": "NOAUTH", "NoScriptError": "NOSCRIPT",
        "TryAgainError": "TRYAGAIN", "ClusterDownError": "CLUSTERDOWN", "MasterDownError": "MASTERDOWN",
    }  # fmt: skip
    prefix = names.get(type(error).__name__, "")
    text = str(error)
    return text if text.startswith(prefix) else f"{prefix} {text}"


def _translate_reply(text: str, shown: str, where: str) -> errors.HeadraceError:
    if text.startswith("GONE"):
        return errors.SessionGone(f"session {text[5:]} has ended")
    if text.startswith("NOJOB"):
        return errors.JobNotFound(f"no job {text[6:]}: it never was, was deleted, or is no longer kept")
    if text.startswith("QUEUEFULL"):
        live, most = text.split()[1:3]
        return errors.QueueFull(
            f"the queue has {live} jobs that have not ended, and may have {most}: nothing was enqueued; let workers drain "
            "it, or raise its max_length"
        )
    if text.startswith("LAYOUT"):
        return errors.LayoutTooNew(
            f"the queue at {where} was written by a newer headrace (layout {text[7:]}): upgrade this program"
        )
    if "Error compiling script" in text:
        # Redis before 7.0 does not know the first line of our scripts.
        return errors.ServerUnsupported(f"{where} is too old: {_NEEDED}")
    if "unknown command" in text:
        return errors.ServerUnsupported(
            f"{where} is no Redis or Valkey as we need it ({shown}): {_NEEDED}, no Sentinel"
        )
    if text.startswith("OOM"):
        return errors.ServerFull(
            f"{where} has reached its maxmemory: nothing was enqueued; let workers drain it, or raise maxmemory"
        )
    if text.startswith(_DENIED) or "unauthenticated" in text or "ACL failure" in text:
        return errors.ServerDenied(f"{where} refuses this user: {shown}")
    if "The user executing the script can't" in text:
        return errors.ServerDenied(f"{where} refuses this user: {_denied_in_script(shown)}")
    if "WRONGTYPE" in text:
        return errors.ServerCorrupt(
            f"a key under our prefix at {where} holds something else ({shown}): use another prefix, or remove that key"
        )
    for prefix in _BUSY:
        if text.startswith(prefix) or (prefix == "max number of clients" and prefix in text):
            why = _BUSY_WORDS.get(prefix, shown)
            return errors.ServerBusy(f"{where} cannot work now: {why}")
    return errors.ServerCorrupt(f"{where} answered with an error: {shown}")


_IN_SCRIPT = re.compile(r"script: (\w{40}), on @user_script:(\d+)")


def _denied_in_script(shown: str) -> str:
    """Redis 7.0 tells the script and the line, not the command."""
    place = _IN_SCRIPT.search(shown)
    commands = commands_at(place[1], int(place[2])) if place else []
    if not commands:
        return shown
    return f"no permissions to run {' or '.join(repr(name.lower()) for name in commands)}, or for one of its keys"


def read_info(fields: dict[str, str], url: str) -> ServerInfo:
    """Judge INFO.

    Raises:
        ServerUnsupported: too old, a Sentinel, or a policy that deletes queues.
        ServerBusy: a replica now, which may be promoted.
    """
    where = masked_url(url)
    kind = fields.get("server_name", "redis")
    version = fields.get("valkey_version") or fields.get("redis_version", "0")
    least = (7, 2) if kind == "valkey" else (7, 0)
    numbers = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
    if numbers < least:
        raise errors.ServerUnsupported(f"{where} is {kind.capitalize()} {version}; {_NEEDED}")
    mode = fields.get("redis_mode") or fields.get("server_mode", "standalone")
    if mode == "sentinel":
        raise errors.ServerUnsupported(f"{where} is a Sentinel: use redis+sentinel://HOST:PORT/MASTER")
    if fields.get("role") == "slave":
        raise errors.ServerBusy(f"{where} is a read-only replica: connect to its primary, or promote it")
    policy = fields.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        raise errors.ServerUnsupported(
            f"{where} has maxmemory-policy {policy}, which deletes queues when memory is short: "
            "run CONFIG SET maxmemory-policy noeviction, and set it in the server's configuration"
        )
    persistent = fields.get("aof_enabled") == "1"
    return ServerInfo(kind, version, mode == "cluster", policy, persistent)


def parse_info(reply: bytes | dict[str, Any]) -> dict[str, str]:
    text = reply.decode("utf8", "replace") if isinstance(reply, bytes) else ""
    return dict(line.split(":", 1) for line in text.splitlines() if ":" in line and not line.startswith("#"))
