"""The listener for probes: what it answers, and that no stranger can stop it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import pytest

from headrace.errors import UsageError
from headrace.observe.listener import HEAD_BYTES_MAX, MOST_AT_ONCE, Answer, Listener


async def later() -> Answer:
    await asyncio.sleep(0)
    return Answer(503, "not yet: tiếng Việt\n")


@asynccontextmanager
async def listening() -> AsyncIterator[tuple[str, int]]:
    listener = Listener({"/livez": lambda: Answer(200, "ok\n"), "/readyz": later})
    found = urlsplit(await listener.open("127.0.0.1", 0))
    yield str(found.hostname), found.port or 0
    await listener.aclose()


async def say(place: tuple[str, int], data: bytes) -> bytes:
    """Send that, and read what comes until the other side ends."""
    reader, writer = await asyncio.open_connection(*place)
    writer.write(data)
    try:
        return await reader.read()
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


@pytest.mark.parametrize(
    ("request_line", "first", "body"),
    [
        (b"GET /livez HTTP/1.1", b"HTTP/1.1 200 OK", b"ok\n"),
        (b"GET /livez?verbose=1 HTTP/1.0", b"HTTP/1.1 200 OK", b"ok\n"),
        (b"HEAD /livez HTTP/1.1", b"HTTP/1.1 200 OK", b""),
        (b"GET /readyz HTTP/1.1", b"HTTP/1.1 503 Service Unavailable", "not yet: tiếng Việt\n".encode()),
        (b"GET /nothing HTTP/1.1", b"HTTP/1.1 404 Not Found", b"there are: /livez, /readyz\n"),
        (b"POST /livez HTTP/1.1", b"HTTP/1.1 405 Method Not Allowed", b"GET or HEAD\n"),
        (b"\x16\x03\x01\x02", b"HTTP/1.1 400 Bad Request", b"this is no HTTP request\n"),
    ],
)
def test_each_request_has_one_answer(request_line: bytes, first: bytes, body: bytes) -> None:
    """Also one that is wrong; the connection is closed after it."""

    async def ask() -> bytes:
        async with listening() as place:
            return await say(place, request_line + b"\r\nHost: x\r\n\r\n")

    head, _, told = asyncio.run(ask()).partition(b"\r\n\r\n")
    assert (first, body) == (head.split(b"\r\n")[0], told)


def test_who_says_nothing_or_too_much_does_not_keep_others_waiting() -> None:
    """A connection that stands still costs the others nothing; a head without an end is cut off; too many are turned away."""

    async def ask() -> None:
        async with listening() as place:
            silent = [await asyncio.open_connection(*place) for _ in range(MOST_AT_ONCE - 1)]
            assert (await say(place, b"GET /livez HTTP/1.1\r\n\r\n")).endswith(b"ok\n")
            assert await say(place, b"GET /livez HTTP/1.1\r\nX: " + b"a" * 2 * HEAD_BYTES_MAX) == b""
            silent.append(await asyncio.open_connection(*place))
            assert await say(place, b"GET /livez HTTP/1.1\r\n\r\n") == b""
            for _, writer in silent:
                writer.close()
            while not (await say(place, b"GET /livez HTTP/1.1\r\n\r\n")).endswith(b"ok\n"):
                await asyncio.sleep(0)

    asyncio.run(ask())


def test_a_place_that_is_taken_is_told_in_one_sentence() -> None:
    """With the address."""

    async def ask() -> None:
        async with listening() as (host, port):
            with pytest.raises(UsageError, match=f"cannot listen on 127.0.0.1:{port}: .*in use"):
                await Listener({}).open(host, port)

    asyncio.run(ask())
