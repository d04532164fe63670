"""How arguments and results become bytes: pickle as in RQ, or JSON; signed when $HEADRACE_SECRET_KEY is set.

Whoever can write to the server can make a worker that unpickles run anything, unless the bytes are signed.
"""

from __future__ import annotations

import hashlib
import hmac
import importlib
import json
import os
import pickle
from typing import Any, Protocol, cast

from headrace.contrib.rq.exceptions import DeserializationError

MAC_BYTES = hashlib.sha256().digest_size


class Serializer(Protocol):
    @staticmethod
    def dumps(value: Any, /) -> bytes: ...

    @staticmethod
    def loads(data: bytes, /) -> Any: ...


class PickleSerializer:
    """Any object that pickle takes."""

    @staticmethod
    def dumps(value: Any, /) -> bytes:
        return pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)

    @staticmethod
    def loads(data: bytes, /) -> Any:
        return pickle.loads(data)


class JSONSerializer:
    """Plain data only, which is safe to read; tuples come back as lists."""

    @staticmethod
    def dumps(value: Any, /) -> bytes:
        return json.dumps(value).encode()

    @staticmethod
    def loads(data: bytes, /) -> Any:
        return json.loads(data)


DefaultSerializer = PickleSerializer
SERIALIZER_ALIASES: dict[str, Serializer] = {
    "json": JSONSerializer,
    "pickle": PickleSerializer,
    "default": DefaultSerializer,
}


def resolve_serializer(serializer: Any = None) -> Serializer:
    """A serializer from itself, from 'json' or 'pickle', or from a dotted path; None: the default.

    Raises:
        NotImplementedError: it has no `dumps` and `loads`.
    """
    if not serializer:
        return DefaultSerializer
    if isinstance(serializer, str):
        if serializer in SERIALIZER_ALIASES:
            return SERIALIZER_ALIASES[serializer]
        module, _, name = serializer.rpartition(".")
        serializer = getattr(importlib.import_module(module), name)
    for method in ("dumps", "loads"):
        if not callable(getattr(serializer, method, None)):
            raise NotImplementedError(f"a serializer has the methods dumps and loads; {serializer!r} has no {method}")
    return cast("Serializer", serializer)


def path_of(serializer: Serializer) -> str:
    """Its dotted path, which a worker's processes import it by."""
    return f"{getattr(serializer, '__module__', '')}.{getattr(serializer, '__qualname__', '')}"


def pack(serializer: Serializer, value: Any) -> bytes:
    return seal(serializer.dumps(value))


def seal(data: bytes) -> bytes:
    """Bytes of a serializer as they are stored: signed, where there is a key."""
    key = _secret()
    return hmac.digest(key, data, "sha256") + data if key else data


def unpack(serializer: Serializer, data: bytes) -> Any:
    """What `pack` was given.

    Raises:
        DeserializationError: it cannot be read, or it is not signed with this program's key. Nothing is unpickled then.
    """
    key = _secret()
    if key:
        mac, data = data[:MAC_BYTES], data[MAC_BYTES:]
        if not hmac.compare_digest(mac, hmac.digest(key, data, "sha256")):
            raise DeserializationError("the stored bytes are not signed with this program's HEADRACE_SECRET_KEY")
    try:
        return serializer.loads(data)
    except Exception as error:  # unpickling runs code of the user's own classes
        raise DeserializationError(f"the stored bytes cannot be read: {type(error).__name__}: {error}") from error


def _secret() -> bytes:
    return os.environ.get("HEADRACE_SECRET_KEY", "").encode()
