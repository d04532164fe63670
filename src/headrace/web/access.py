"""Who may do what on the dashboard, and from where: decided here, on the server, for each request. Closed unless told otherwise."""

from __future__ import annotations

import base64
import enum
import hashlib
import hmac
import secrets
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import TypeAlias
from urllib.parse import urlsplit

from starlette.requests import Request

from headrace.errors import UsageError

SCRYPT = {"n": 2**14, "r": 8, "p": 1}


class Right(enum.StrEnum):
    """What a page lets somebody do. READ: see counts and jobs; SEE_ARGS: arguments, results, logs and tracebacks, too."""

    READ = "read"
    SEE_ARGS = "see_args"
    RETRY_JOBS = "retry_jobs"
    CANCEL_JOBS = "cancel_jobs"
    DELETE_JOBS = "delete_jobs"
    INSERT_JOBS = "insert_jobs"
    PAUSE_QUEUES = "pause_queues"
    PURGE_QUEUES = "purge_queues"
    STOP_WORKERS = "stop_workers"
    EDIT_SCHEDULES = "edit_schedules"
    RUN_SCHEDULES = "run_schedules"
    EDIT_LIMITS = "edit_limits"


@dataclass(frozen=True, slots=True)
class Access:
    """What one person may do. `user` is the name that the audit log tells."""

    user: str = "anonymous"
    rights: frozenset[Right] = frozenset()

    @classmethod
    def all(cls, user: str = "anonymous") -> Access:
        return cls(user, frozenset(Right))

    @classmethod
    def read(cls, user: str = "anonymous") -> Access:
        """See everything, change nothing."""
        return cls(user, frozenset({Right.READ, Right.SEE_ARGS}))

    @classmethod
    def none(cls) -> Access:
        return cls()

    def without_writes(self) -> Access:
        return Access(self.user, self.rights & {Right.READ, Right.SEE_ARGS})

    def may(self, right: Right) -> bool:
        return right in self.rights


Decide: TypeAlias = "Callable[[Request], Access | Awaitable[Access]]"


def is_own_request(request: Request) -> bool:
    """Whether a write comes from a page of ours: browsers say so in a header that no page can forge.

    https://developer.mozilla.org/docs/Web/HTTP/Reference/Headers/Sec-Fetch-Site; browsers that lack it send `Origin`.
    """
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site == "same-origin"
    origin = request.headers.get("origin")
    return origin is not None and urlsplit(origin).netloc == request.headers.get("host", "")


def hash_password(password: str) -> str:
    salt = secrets.token_bytes(16)
    return f"{salt.hex()}${_scrypt(password, salt).hex()}"


def _scrypt(password: str, salt: bytes) -> bytes:
    return hashlib.scrypt(password.encode(), salt=salt, dklen=32, **SCRYPT)


class Passwords:
    """Basic authentication by `user:hash` pairs, as `hash_password` makes them; everyone known has all rights."""

    def __init__(self, pairs: Iterable[str]) -> None:
        self._hashes: dict[str, tuple[bytes, bytes]] = {}
        self._known: dict[bytes, str] = {}
        self._pepper = secrets.token_bytes(16)
        for pair in pairs:
            user, _, hashed = pair.partition(":")
            salt, dollar, digest = hashed.partition("$")
            try:
                self._hashes[user] = (bytes.fromhex(salt), bytes.fromhex(digest))
            except ValueError:
                dollar = ""
            if not user or not dollar:
                raise UsageError("a user is given as NAME:HASH; `headrace web --hash-password` makes the hash")

    def __call__(self, request: Request) -> Access:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "basic":
            return Access.none()
        # scrypt is slow by intent: a header that was right once is known by a hash of our own.
        key = hashlib.blake2b(token.encode(), key=self._pepper, digest_size=16).digest()
        user = self._known.get(key)
        if user is None:
            try:
                user, _, password = base64.b64decode(token, validate=True).decode().partition(":")
            except ValueError:  # no base64, or no UTF-8 within
                return Access.none()
            salt, digest = self._hashes.get(user, (b"nobody", b""))
            if not hmac.compare_digest(_scrypt(password, salt), digest):
                return Access.none()
            self._known[key] = user
        return Access.all(user)
