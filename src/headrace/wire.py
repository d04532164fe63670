"""Arguments and results as msgpack, and back: no pickle, nothing imported, errors that name the path.

A payload is `[args]` or `[args, kwargs]`. Values travel as msgpack has them; a parameter (or a result) annotated with a
richer type is read back as that type: dataclass, Struct, datetime, UUID, Decimal, set, tuple, Enum, Path, pydantic
model. Parameters without an annotation, or with a plain one, are taken as they come: a tuple arrives as a list, a UUID
as text, an aware datetime in UTC.
"""

from __future__ import annotations

import collections.abc
import functools
import inspect
import sys
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any, Protocol

import msgspec

from headrace.core.names import type_name
from headrace.errors import ArgumentsMismatch, PayloadNotSerializable, PayloadTooLarge

DEPTH_MAX = 64
PACK_ERRORS = (TypeError, ValueError, OverflowError, RecursionError)
_PLAIN_TYPES = frozenset(
    {Any, object, int, str, float, bool, bytes, None, type(None), list, dict, inspect.Parameter.empty}
)
_PLAIN_ORIGINS = frozenset(
    {
        list,
        dict,
        typing.Union,
        types.UnionType,
        collections.abc.Sequence,
        collections.abc.Collection,
        collections.abc.Iterable,
        collections.abc.Mapping,
        collections.abc.MutableSequence,
        collections.abc.MutableMapping,
    }
)


_LIST_ORIGINS = frozenset(
    {
        list,
        collections.abc.Sequence,
        collections.abc.Collection,
        collections.abc.Iterable,
        collections.abc.MutableSequence,
    }
)


class Input:
    """Stands in a call's arguments for the result of another job, or of `count` jobs (a list then); see `headrace.flow`.

    `first`: its number among the inputs of the job; None until the flow is put together.
    """

    __slots__ = ("count", "first", "source")

    def __init__(self, source: Any = None, first: int | None = None, count: int = 0) -> None:
        self.source = source
        self.first = first
        self.count = count

    def __repr__(self) -> str:
        return "<the result of another job>"


INPUT_CODE = 1


def _encode_hook(value: Any) -> Any:
    """What msgspec leaves to us: subclasses of plain types, paths, pydantic models."""
    if isinstance(value, Input):
        if value.first is None:
            raise TypeError("the result of another job is known only inside a chain or a flow")
        return msgspec.msgpack.Ext(INPUT_CODE, msgspec.msgpack.encode((value.first, value.count)))
    kinds: tuple[Any, ...] = (str, int, float, bytes)
    for plain in kinds:
        if isinstance(value, plain):
            return plain(value)
    if isinstance(value, PurePath):
        return str(value)
    if _is_model(type(value)):
        return value.model_dump(round_trip=True)
    raise TypeError(f"a {type_name(type(value))} cannot be stored")


def _decode_hook(type_: type, value: Any) -> Any:
    if issubclass(type_, PurePath):
        return type_(value)
    if _is_model(type_):
        return _validate_model(type_, value)
    raise TypeError(f"cannot read a {type_name(type_)}")


def _is_model(type_: type) -> bool:
    pydantic = sys.modules.get("pydantic")  # who has a model has imported it
    return pydantic is not None and issubclass(type_, pydantic.BaseModel)


def _validate_model(type_: Any, value: Any) -> Any:
    try:
        # Stored under the fields' own names; UUIDs and the like come back as text, so not strictly.
        return type_.model_validate(value, strict=False, by_name=True)
    except sys.modules["pydantic"].ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ValueError(f"{where}: {first['msg']}") from None


_encoder = msgspec.msgpack.Encoder(enc_hook=_encode_hook)
_decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder()
pack = _encoder.encode


class _Body(msgspec.Struct, array_like=True):
    args: list[msgspec.Raw]
    kwargs: dict[str, msgspec.Raw] = {}


_body_decoder = msgspec.msgpack.Decoder(_Body)


class Signature:
    """A function's parameters, worked out once: whether arguments fit, and which of them are converted when read."""

    __slots__ = (
        "_by_name",
        "_by_position",
        "_full",
        "_name",
        "_rest",
        "_rest_by_name",
        "converts",
        "max_args",
        "min_args",
        "names",
        "result_type",
    )

    def __init__(self, fn: Callable[..., Any], *, is_batch: bool = False) -> None:
        """`is_batch`: the function takes a list, and arguments are those of one call: one item, by position."""
        self._name = getattr(fn, "__name__", "task")
        hints = _hints(fn)
        self._full = inspect.signature(fn)
        if is_batch:
            self._full, hints = _of_one_item(self._full, hints)
        self._by_position: list[msgspec.msgpack.Decoder[Any] | None] = []
        self._by_name: dict[str, msgspec.msgpack.Decoder[Any]] = {}
        self._rest: msgspec.msgpack.Decoder[Any] | None = None
        self._rest_by_name: msgspec.msgpack.Decoder[Any] | None = None
        self.names: list[str] = []
        self.min_args = 0
        self.max_args = 0
        for name, parameter in self._full.parameters.items():
            self._add(parameter, decoder_for(hints.get(name, parameter.empty)))
        self.converts = bool(self._by_name or self._rest or self._rest_by_name or any(self._by_position))
        self.result_type: Any = hints.get("return", Any)

    def _add(self, parameter: inspect.Parameter, decoder: msgspec.msgpack.Decoder[Any] | None) -> None:
        is_required = parameter.default is parameter.empty
        if parameter.kind is parameter.VAR_POSITIONAL:
            self.max_args = sys.maxsize
            self._rest = decoder
        elif parameter.kind is parameter.VAR_KEYWORD:
            self._rest_by_name = decoder
        elif parameter.kind is parameter.KEYWORD_ONLY:
            if decoder is not None:
                self._by_name[parameter.name] = decoder
            if is_required:
                self.min_args = sys.maxsize  # no call by position alone can fit
        else:
            self.names.append(parameter.name)
            self._by_position.append(decoder)
            if decoder is not None and parameter.kind is not parameter.POSITIONAL_ONLY:
                self._by_name[parameter.name] = decoder
            self.max_args += 1
            self.min_args += is_required

    def check(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """See that the arguments fit.

        Raises:
            ArgumentsMismatch: naming the parameter.
        """
        if kwargs or not self.min_args <= len(args) <= self.max_args:
            try:
                self._full.bind(*args, **kwargs)
            except TypeError as error:
                raise ArgumentsMismatch(f"{self._name}(): {error}") from None

    def takes_one_more(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
        """Whether the arguments would fit with one more in front."""
        try:
            self._full.bind(None, *args, **kwargs)
        except TypeError:
            return False
        return True

    def check_types(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """See that each argument that is known can be stored and read as its parameter's type; `Input`s are passed over.

        Raises:
            ArgumentsMismatch, PayloadNotSerializable
        """
        known = {name: value for name, value in kwargs.items() if not isinstance(value, Input)}
        plain = [None if isinstance(value, Input) else value for value in args]
        encode_call(tuple(plain), known, self.names)
        for i, value in enumerate(args):
            if not isinstance(value, Input):
                decoder = self._by_position[i] if i < len(self._by_position) else self._rest
                self._read(decoder, msgspec.Raw(pack(value)), i)
        for name, value in known.items():
            self._read(self._by_name.get(name) or self._rest_for(name), msgspec.Raw(pack(value)), name)

    def named(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments that fit, by name, defaults included; those of `**kwargs` beside the others."""
        bound = self._full.bind(*args, **kwargs)
        bound.apply_defaults()
        found = dict(bound.arguments)
        for parameter in self._full.parameters.values():
            if parameter.kind is parameter.VAR_KEYWORD:
                found |= found.pop(parameter.name)
        return found

    def path_of(self, position: int) -> str:
        """What the argument at this position is called in messages."""
        return self.names[position] if position < len(self.names) else f"args[{position}]"

    def convert(self, body: _Body) -> tuple[list[Any], dict[str, Any]]:
        """Read each argument as its parameter's type.

        Raises:
            ArgumentsMismatch: one does not fit its type.
        """
        by_position, count = self._by_position, len(self._by_position)
        args = [self._read(by_position[i] if i < count else self._rest, raw, i) for i, raw in enumerate(body.args)]
        kwargs = {
            name: self._read(self._by_name.get(name) or self._rest_for(name), raw, name)
            for name, raw in body.kwargs.items()
        }
        return args, kwargs

    def _rest_for(self, name: str) -> msgspec.msgpack.Decoder[Any] | None:
        return None if name in self._full.parameters else self._rest_by_name

    def _read(self, decoder: msgspec.msgpack.Decoder[Any] | None, raw: msgspec.Raw, where: int | str) -> Any:
        try:
            return (decoder or _decoder).decode(raw)
        except (msgspec.MsgspecError, ValueError, TypeError, RecursionError) as error:
            path = self.path_of(where) if isinstance(where, int) else where
            raise ArgumentsMismatch(f"{self._name}(): argument {path!r}: {error}") from None


class HasSignature(Protocol):
    """What the wire needs of a task."""

    @property
    def signature(self) -> Signature: ...


def encode_call(args: tuple[Any, ...], kwargs: dict[str, Any], names: Sequence[str] = ()) -> bytes:
    """Arguments as a payload.

    Args:
        names: of the positional parameters, for the error's words.

    Raises:
        PayloadNotSerializable: a value cannot be stored; names its path.
    """
    try:
        return pack((args, kwargs) if kwargs else (args,))
    except PACK_ERRORS as error:
        raise not_serializable(args, kwargs, names, error) from None


def not_serializable(
    args: tuple[Any, ...], kwargs: dict[str, Any], names: Sequence[str], error: Exception
) -> PayloadNotSerializable:
    """The error for arguments that `pack` refused with one of PACK_ERRORS."""
    return PayloadNotSerializable(_explain_arguments(args, kwargs, names, error))


def check_size(
    payload: bytes, max_bytes: int, args: tuple[Any, ...], kwargs: dict[str, Any], names: Sequence[str] = ()
) -> None:
    """See that a payload is within the limit.

    Raises:
        PayloadTooLarge: naming the largest argument.
    """
    if len(payload) <= max_bytes:
        return
    sizes = {path: len(pack(value)) for path, value in _named(args, kwargs, names)}
    largest = max(sizes, key=lambda path: sizes[path])
    raise PayloadTooLarge(
        f"the arguments take {_size(len(payload))}, the limit is {_size(max_bytes)}; the largest is {largest!r} with "
        f"{_size(sizes[largest])}: store the data elsewhere and pass a reference, or raise max_payload_bytes"
    )


def decode_call(payload: bytes | msgspec.Raw, task: HasSignature | None) -> tuple[list[Any], dict[str, Any]]:
    """A payload as arguments for the task's function (`task` None: as plain data).

    Raises:
        ArgumentsMismatch: the payload cannot be read, or the arguments do not fit the task's signature.
    """
    try:
        if task is None or not task.signature.converts:
            body = _decoder.decode(payload)
            args, kwargs = body[0], body[1] if len(body) > 1 else {}
            if type(args) is not list or type(kwargs) is not dict:
                raise ArgumentsMismatch("the stored arguments cannot be read: not a list and a map")
        else:
            args, kwargs = task.signature.convert(_body_decoder.decode(payload))
    except (msgspec.MsgspecError, ValueError, IndexError, KeyError, TypeError, RecursionError) as error:
        if isinstance(error, ArgumentsMismatch):
            raise
        raise ArgumentsMismatch(f"the stored arguments cannot be read: {error}") from error
    if task is not None:
        task.signature.check(args, kwargs)
    return args, kwargs


def put_inputs(payload: bytes | msgspec.Raw, results: Callable[[int], bytes]) -> bytes:
    """A payload with results in the place of its `Input`s.

    Args:
        results: input number -> a result, as msgpack.

    Raises:
        ArgumentsMismatch: the payload cannot be read.
    """

    def put(raw: msgspec.Raw) -> Any:
        data = bytes(raw)
        if not 0xC7 <= data[0] <= 0xC9 and not 0xD4 <= data[0] <= 0xD8:
            return raw
        found = msgspec.msgpack.decode(data)
        if not isinstance(found, msgspec.msgpack.Ext) or found.code != INPUT_CODE:
            return raw
        first, count = msgspec.msgpack.decode(found.data)
        if not count:
            return msgspec.Raw(results(first))
        return [msgspec.Raw(results(number)) for number in range(first, first + count)]

    try:
        body = _body_decoder.decode(payload)
    except msgspec.MsgspecError as error:
        raise ArgumentsMismatch(f"the stored arguments cannot be read: {error}") from error
    args, kwargs = [put(raw) for raw in body.args], {name: put(raw) for name, raw in body.kwargs.items()}
    return pack((args, kwargs) if kwargs else (args,))


def encode_result(value: Any, max_bytes: int) -> tuple[bytes | None, str | None]:
    """A result as `(msgpack, None)`, or `(None, why it is not kept)`. Never raises."""
    try:
        data = pack(value)
    except Exception as error:  # a model's own serializer is user code
        return None, f"the result cannot be stored: {_explain('result', value, error)}"
    if len(data) > max_bytes:
        return None, f"the result takes {_size(len(data))}, the limit is {_size(max_bytes)}"
    return data, None


def encode_part(what: str, value: Any, max_bytes: int) -> bytes:
    """What a running job gives out, as msgpack. `what` is its name in errors: "item 3", "the state".

    Raises:
        PayloadNotSerializable, PayloadTooLarge
    """
    try:
        data = pack(value)
    except Exception as error:  # a model's own serializer is user code
        raise PayloadNotSerializable(f"{what} cannot be stored: {_explain('value', value, error)}") from None
    if len(data) > max_bytes:
        raise PayloadTooLarge(f"{what} takes {_size(len(data))}, the limit is {_size(max_bytes)}")
    return data


def item_type(hint: Any) -> Any:
    """T of `Iterator[T]`, `Generator[T, …]` and their async twins; Any of another."""
    args = typing.get_args(hint)
    return args[0] if args and typing.get_origin(hint) in _YIELDING else Any


def decode_plain(data: bytes) -> Any:
    """Plain data, as they were stored."""
    return _decoder.decode(data)


_YIELDING = (
    collections.abc.Iterator, collections.abc.Iterable, collections.abc.Generator,
    collections.abc.AsyncIterator, collections.abc.AsyncIterable, collections.abc.AsyncGenerator,
)  # fmt: skip


def decode_result(raw: bytes | msgspec.Raw, type_: Any = Any) -> Any:
    """A result, as the task's return annotation where it fits that, else as plain data."""
    decoder = decoder_for(type_)
    if decoder is not None:
        try:
            return decoder.decode(raw)
        except (msgspec.MsgspecError, ValueError, TypeError, RecursionError):
            # The function returned something else than it says: better what it did return than an error.
            return _decoder.decode(raw)
    return _decoder.decode(raw)


def decoder_for(hint: Any) -> msgspec.msgpack.Decoder[Any] | None:
    """The decoder for an annotation; None when plain data need no conversion, or the type is not one we can read."""
    try:
        return _cached_decoder_for(hint)
    except TypeError:  # not hashable
        return _decoder_for(hint)


def _decoder_for(hint: Any) -> msgspec.msgpack.Decoder[Any] | None:
    if _is_plain(hint):
        return None
    try:
        if _has_foreign_class(msgspec.inspect.type_info(hint), set()):
            return None
        return msgspec.msgpack.Decoder(hint, dec_hook=_decode_hook)
    except (TypeError, NameError, RecursionError, AttributeError):
        return None  # such annotations say nothing that the wire could use


_cached_decoder_for = functools.lru_cache(maxsize=1024)(_decoder_for)


def _hints(fn: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(fn)
    except Exception:  # an annotation is any expression; one that cannot be worked out is none
        return {}


def _of_one_item(full: inspect.Signature, hints: dict[str, Any]) -> tuple[inspect.Signature, dict[str, Any]]:
    """What a function from a list of items to a list of answers says of one item and its answer."""
    name = next(iter(full.parameters))
    answer = _item_of(hints.get("return", Any))
    if isinstance(answer, types.UnionType) or typing.get_origin(answer) is typing.Union:
        values = [kind for kind in typing.get_args(answer) if not _is_exception(kind)]
        answer = typing.Union[tuple(values)] if values else None  # noqa: UP007
    elif _is_exception(answer):
        answer = None
    item = inspect.Parameter("item", inspect.Parameter.POSITIONAL_ONLY)
    return inspect.Signature([item]), {"item": _item_of(hints.get(name, Any)), "return": answer}


def _item_of(hint: Any) -> Any:
    """T of `list[T]` and of `list[T] | None`; None of None."""
    if hint is None or hint is type(None):
        return None
    for one in (hint, *typing.get_args(hint)):
        origin, args = typing.get_origin(one), typing.get_args(one)
        if origin in _LIST_ORIGINS and args:
            return args[0]
    return Any


def _is_exception(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseException)


def _is_plain(hint: Any) -> bool:
    origin = typing.get_origin(hint)
    if origin is None:
        return isinstance(hint, (typing.TypeVar, str)) or hint in _PLAIN_TYPES or hint in _PLAIN_ORIGINS
    if origin is typing.Literal:
        return all(isinstance(value, (str, int, type(None))) for value in typing.get_args(hint))
    return origin in _PLAIN_ORIGINS and all(_is_plain(arg) for arg in typing.get_args(hint))


def _has_foreign_class(info: Any, seen: set[int]) -> bool:
    """Whether a type holds a class that neither msgspec nor the hooks above can read."""
    if isinstance(info, (tuple, list)):
        return any(_has_foreign_class(item, seen) for item in info)
    if isinstance(info, msgspec.inspect.CustomType):
        return not (issubclass(info.cls, PurePath) or _is_model(info.cls))
    if not isinstance(info, (msgspec.inspect.Type, msgspec.inspect.Field)) or id(info) in seen:
        return False
    seen.add(id(info))
    return any(_has_foreign_class(getattr(info, name), seen) for name in info.__struct_fields__)


def _named(args: tuple[Any, ...], kwargs: dict[str, Any], names: Sequence[str]) -> Iterator[tuple[str, Any]]:
    for i, value in enumerate(args):
        yield (names[i] if i < len(names) else f"args[{i}]"), value
    yield from kwargs.items()


def _explain_arguments(args: tuple[Any, ...], kwargs: dict[str, Any], names: Sequence[str], error: Exception) -> str:
    for path, value in _named(args, kwargs, names):
        try:
            pack(value)
        except PACK_ERRORS as fault:
            return f"argument {_explain(path, value, fault)}"
    return f"the arguments cannot be stored: {error}"


def _explain(path: str, value: Any, error: Exception) -> str:
    """Walk down to the value that failed, and say where it is and what is wrong with it."""
    above: list[int] = []
    while len(above) < DEPTH_MAX:
        above.append(id(value))
        for step, child in _children(value):
            if id(child) in above:
                return f"{path + step}: a circular reference"
            try:
                pack(child)
            except Exception as fault:
                path, value, error = path + step, child, fault
                break
        else:
            return f"{path}: {_what(value, error)}"
    return f"{path[:200]}…: nested deeper than {DEPTH_MAX}"


def _children(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, item in value.items():
            shown = f"{key!r:.40}" if isinstance(key, (str, int)) else f"a {type_name(type(key))}"
            yield f"[the key {shown}]", key
            yield f"[{shown}]", item
    elif isinstance(value, (list, tuple, set, frozenset)):
        for i, item in enumerate(value):
            yield f"[{i}]", item
    elif hasattr(value, "__dataclass_fields__") and not isinstance(value, type):
        for name in value.__dataclass_fields__:
            if hasattr(value, name):
                yield f".{name}", getattr(value, name)
    elif isinstance(value, msgspec.Struct):
        for name in value.__struct_fields__:
            yield f".{name}", getattr(value, name)


def _what(value: Any, error: Exception) -> str:
    if isinstance(error, OverflowError):
        return "an integer of more than 64 bits; pass it as text"
    if isinstance(error, UnicodeEncodeError):
        return "text that is not valid Unicode (a lone surrogate)"
    if isinstance(error, RecursionError):
        return f"nested deeper than {DEPTH_MAX}"
    kind = type_name(type(value))
    if hasattr(value, "_sa_instance_state") or (hasattr(value, "_meta") and hasattr(value, "pk")):
        return f"a {kind} (a database row); pass its primary key"
    if inspect.iscoroutine(value) or inspect.isgenerator(value):
        return f"a {kind}; pass what it yields, as a list or a value"
    if _is_model(type(value)) or isinstance(error, ValueError):
        return f"a {kind}, which cannot be stored: {error}"
    return f"a {kind}, which cannot be stored; pass an id or plain data"


def _size(count: int) -> str:
    if count < 10_000:
        return f"{count} bytes"
    return f"{count / 1024:.1f} KiB" if count < 1 << 20 else f"{count / (1 << 20):.2f} MiB"
