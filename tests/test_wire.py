"""Values go through the wire exactly, or are refused with the path to what cannot."""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import functools
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, NamedTuple
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.errors import ArgumentsMismatch, PayloadNotSerializable, PayloadTooLarge
from headrace.wire import Signature, check_size, decode_call, decode_result, encode_call, encode_result


class Carrier:
    """The least that the wire needs of a task."""

    def __init__(self, fn: Callable[..., Any]) -> None:
        self.signature = Signature(fn)


class Color(enum.Enum):
    RED = "red"


class Point(NamedTuple):
    x: int
    y: int


@dataclasses.dataclass
class Order:
    number: int
    due: datetime
    lines: list[Order] = dataclasses.field(default_factory=list)


class Page(msgspec.Struct):
    url: str
    words: set[str]


class Text(str):
    pass


class Count(int):
    pass


class Connection:
    pass


TYPED: list[tuple[Any, Any]] = [
    (Order, Order(1, datetime(2026, 1, 2, 3, 4, 5, 6, UTC), [Order(2, datetime(2026, 1, 1, tzinfo=UTC))])),
    (Page, Page("https://example.com", {"a", "b"})),
    (datetime, datetime(1, 1, 1, tzinfo=UTC)),
    (datetime, datetime(9999, 12, 31, 23, 59, 59, 999_999, UTC)),
    (datetime, datetime(2026, 10, 25, 2, 30, tzinfo=timezone(timedelta(hours=7)))),
    (datetime, datetime(2026, 1, 2, 3, 4, 5, 6)),
    (date, date(2026, 1, 2)),
    (time, time(1, 2, 3)),
    (timedelta, timedelta(days=1, microseconds=5)),
    (UUID, UUID(int=7)),
    (Decimal, Decimal("1.50")),
    (set[int], {1, 2}),
    (frozenset[str], frozenset({"a"})),
    (tuple[int, str], (1, "a")),
    (Color, Color.RED),
    (Point, Point(1, 2)),
    (Path, Path("/srv/a")),
    (bytes, b"\x00\xff"),
    (Decimal | None, None),
    (list[UUID], [UUID(int=1)]),
    (dict[str, datetime], {"a": datetime(2026, 1, 1, tzinfo=UTC)}),
    (Literal["a", "b"], "a"),
]


@pytest.mark.parametrize(("type_", "value"), TYPED, ids=lambda item: f"{item!r:.30}")
def test_an_annotated_value_comes_back_as_what_it_was(type_: Any, value: Any) -> None:
    """As an argument by position and by name, and as a result."""

    def fn(value: Any) -> None: ...

    fn.__annotations__["value"] = type_
    task = Carrier(fn)
    for payload in (encode_call((value,), {}), encode_call((), {"value": value})):
        args, kwargs = decode_call(payload, task)
        found = args[0] if args else kwargs["value"]
        assert found == value and type(found) is type(value)
    raw, why = encode_result(value, 10_000)
    assert raw is not None and why is None
    assert decode_result(raw, type_) == value


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"]))
    | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text("abé", max_size=5) | st.integers(-(2**63), 2**64 - 1), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(st.lists(PLAIN, max_size=4), st.dictionaries(st.text("abc_", min_size=1), PLAIN, max_size=3))
def test_plain_data_round_trips_exactly(args: list[Any], kwargs: dict[str, Any]) -> None:
    """Without a task, and with one whose parameters say nothing."""

    def fn(*args: Any, **kwargs: Any) -> None: ...

    payload = encode_call(tuple(args), kwargs)
    assert decode_call(payload, None) == (args, kwargs)
    assert decode_call(payload, Carrier(fn)) == (args, kwargs)


@given(st.binary(max_size=60))
def test_any_bytes_are_arguments_or_a_clear_refusal(data: bytes) -> None:
    """A worker meets nothing but ArgumentsMismatch."""

    def fn(order: Order, *rest: Decimal) -> None: ...

    for task in (None, Carrier(fn)):
        with contextlib.suppress(ArgumentsMismatch):
            decode_call(data, task)


def test_subclasses_of_plain_types_travel_as_plain() -> None:
    """A str or int of a library's own kind is still text or a number."""
    assert decode_call(encode_call((Text("a"), Count(3), Point(1, 2)), {}), None) == (["a", 3, [1, 2]], {})


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def circle() -> list[Any]:
    value: list[Any] = [1, [2]]
    value[1].append(value)
    return value


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (Connection(), r"argument conn: a \S*Connection, which cannot be stored; pass an id"),
        ([{"owner": [1, Connection()]}], r"argument conn\[0\]\['owner'\]\[1\]: a \S*Connection"),
        (Order(Connection(), datetime.now(UTC)), r"argument conn\.number: a \S*Connection"),  # type: ignore[arg-type]
        (Page("u", {Connection()}), r"argument conn\.words\[0\]: a "),  # type: ignore[arg-type]
        ({Connection(): 1}, r"argument conn\[the key a \S*Connection\]: a "),
        (circle(), r"argument conn\[1\]\[1\]: a circular reference"),
        (nested(20_000), "nested deeper than 64"),
        (2**64, "argument conn: an integer of more than 64 bits"),
        ([10**100_000], r"argument conn\[0\]: an integer of more than 64 bits"),
        (["\ud800"], r"argument conn\[0\]: text that is not valid Unicode"),
        ((n for n in range(0)), "argument conn: a generator; pass what it yields"),
        (lambda: 1, "argument conn: a function"),
        (functools.partial(print), "argument conn: a functools.partial"),
        (1j, "argument conn: a complex"),
        (Connection, "argument conn: a type"),
    ],
    ids=lambda item: f"{type(item).__name__}",
)
def test_a_value_that_cannot_be_stored_is_named_with_its_path(value: Any, message: str) -> None:
    """By the parameter's name when it is known."""
    with pytest.raises(PayloadNotSerializable, match=message):
        encode_call((value,), {}, ["conn"])
    with pytest.raises(PayloadNotSerializable, match=message.replace("conn", "other")):
        encode_call((1,), {"other": value})


def test_a_database_row_is_told_apart() -> None:
    """Its primary key is what to pass."""
    row = type("Customer", (), {"_meta": None, "pk": 1})()
    with pytest.raises(PayloadNotSerializable, match="pass its primary key"):
        encode_call((row,), {}, ["customer"])


def test_an_argument_of_the_wrong_type_is_named() -> None:
    """Where the annotation is one that converts."""

    def fn(order: Order, *, due: datetime) -> None: ...

    with pytest.raises(ArgumentsMismatch, match=r"fn\(\): argument 'order'"):
        decode_call(encode_call((5,), {"due": datetime.now(UTC)}), Carrier(fn))
    with pytest.raises(ArgumentsMismatch, match=r"fn\(\): argument 'due'"):
        decode_call(encode_call(({"number": 1, "due": datetime.now(UTC)},), {"due": "soon"}), Carrier(fn))


def test_annotations_that_say_nothing_cost_nothing() -> None:
    """Plain ones, unknown names and classes that cannot be read are taken as they come."""

    def fn(a, b: int, c: list[str] | None, d: Missing, e: Connection, f: Any = 1) -> Missing: ...  # type: ignore # noqa: F821

    signature = Signature(fn)
    assert not signature.converts
    assert decode_call(encode_call((1, 2, None, 4, 5), {}), Carrier(fn)) == ([1, 2, None, 4, 5], {})


def test_the_arguments_are_checked_against_the_signature() -> None:
    """Too few, too many, unknown, twice: the parameter is named."""

    def fn(a: int, /, b: int, *, c: int = 0) -> None: ...

    signature = Signature(fn)
    signature.check((1, 2), {})
    signature.check((1,), {"b": 2, "c": 3})
    wrong: list[tuple[tuple[Any, ...], dict[str, Any], str]] = [
        ((1,), {}, "'b'"),
        ((1, 2, 3), {}, "too many"),
        ((1, 2), {"d": 1}, "'d'"),
        ((1, 2), {"b": 1}, "'b'"),
        ((), {"a": 1, "b": 1}, "'a'"),
    ]
    for args, kwargs, named in wrong:
        with pytest.raises(ArgumentsMismatch, match=rf"^fn\(\): .*{named}"):
            signature.check(args, kwargs)


def test_a_payload_over_the_limit_names_its_largest_argument() -> None:
    """With both sizes and the limit."""
    args = ("small", b"x" * 2_000_000)
    payload = encode_call(args, {})
    check_size(payload, 3_000_000, args, {})
    with pytest.raises(
        PayloadTooLarge, match=r"1\.91 MiB, the limit is 1\.00 MiB; the largest is 'image' with 1\.91 MiB"
    ):
        check_size(payload, 1 << 20, args, {}, ["name", "image"])


@pytest.mark.parametrize(
    "value", [lambda: 1, circle(), 2**70, "\ud800", b"x" * 200, (n for n in range(0)), ValueError("x")]
)
def test_a_result_that_cannot_be_stored_says_why(value: Any) -> None:
    """Nothing is raised: the job has succeeded."""
    raw, why = encode_result(value, 100)
    assert raw is None and why is not None and why.startswith("the result ")


def test_a_result_that_belies_its_annotation_comes_as_it_is() -> None:
    """A function may return something else than it says."""
    raw, _ = encode_result("soon", 100)
    assert raw is not None
    assert decode_result(raw, datetime) == "soon"
    assert decode_result(raw, Connection) == "soon"


GOLDEN: list[tuple[bytes, tuple[list[Any], dict[str, Any]]]] = [
    (b"\x91\x90", ([], {})),
    (b"\x91\x92\x01\xa1a", ([1, "a"], {})),
    (b"\x92\x91\x01\x81\xa1b\xc4\x01\xff", ([1], {"b": b"\xff"})),
    (b"\x91\x91\xd6\xff\x5f\x5e\x10\x00", ([datetime(2020, 9, 13, 12, 26, 40, tzinfo=UTC)], {})),
]


@pytest.mark.parametrize(("data", "arguments"), GOLDEN)
def test_stored_payloads_can_be_read_for_ever(data: bytes, arguments: tuple[list[Any], dict[str, Any]]) -> None:
    """The wire format does not change."""
    assert decode_call(data, None) == arguments
    assert encode_call(tuple(arguments[0]), arguments[1]) == data


def test_pydantic_models_go_through() -> None:
    """By their fields' names, whatever their aliases; a value that is none is refused by path."""
    pydantic: Any = pytest.importorskip("pydantic")

    class Line(pydantic.BaseModel):  # type: ignore[misc]
        model_config = pydantic.ConfigDict(strict=True)
        price: Decimal
        key: UUID = pydantic.Field(alias="lineKey")

    class Invoice(pydantic.BaseModel):  # type: ignore[misc]
        due: datetime
        lines: list[Line]

    def fn(invoice: Any, others: Any) -> None: ...

    fn.__annotations__.update(invoice=Invoice, others=list[Invoice])
    task = Carrier(fn)
    invoice = Invoice(due=datetime.now(UTC), lines=[Line(price=Decimal("1.50"), lineKey=UUID(int=1))])
    assert decode_call(encode_call((invoice, [invoice]), {}), task) == ([invoice, [invoice]], {})
    with pytest.raises(ArgumentsMismatch, match=r"argument 'invoice': due: Field required"):
        decode_call(encode_call(({}, []), {}), task)
