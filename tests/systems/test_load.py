"""The load: what it sends, and what it makes of answers."""

from __future__ import annotations

import asyncio
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from systems.common.load import Answer, Connection, Load, quantile_ms

SLOW_S = 60.0


class Echo(socketserver.StreamRequestHandler):
    """Answers each request with its body; ONCE: and closes then, without having said so, as idle connections are."""

    once = False

    def handle(self) -> None:
        while self.rfile.readline():
            size = 0
            while line := self.rfile.readline().strip():
                name, _, value = line.partition(b": ")
                size = int(value) if name == b"Content-Length" else size
            body = self.rfile.read(size)
            self.wfile.write(b"HTTP/1.1 202 Accepted\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
            if self.once:
                break


class EchoOnce(Echo):
    once = True


@contextmanager
def answering(handler: type[Echo] = Echo) -> Iterator[str]:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def test_a_connection_that_the_server_closed_while_it_was_idle_is_opened_again() -> None:
    """It is no failed request: nothing was asked on it yet."""

    async def ask_twice(url: str) -> list[tuple[int, bytes]]:
        connection = Connection(url)
        first = await connection.post("/", b"one")
        async with asyncio.timeout(SLOW_S):
            await connection.closed_by_server()
        second = await connection.post("/", b"two")
        await connection.close()
        return [first, second]

    with answering(EchoOnce) as url:
        assert [(202, b"one"), (202, b"two")] == asyncio.run(ask_twice(url))


def test_a_request_that_nobody_answers_has_status_0() -> None:
    with answering() as url:
        pass
    answers = asyncio.run(Load(url, "/", lambda n: b"", connections=1, rate=1000).run(0.01))
    assert {0} == {answer.status for answer in answers}


def test_a_steady_load_counts_from_when_a_request_was_due() -> None:
    """10 requests that are due together on one connection: each waits for those before it."""
    with answering() as url:
        answers = asyncio.run(Load(url, "/", lambda n: b"%d" % n, connections=1, rate=1_000_000).run(10 / 1_000_000))
    assert [(202, b"%d" % n) for n in range(10)] == [(answer.status, answer.body) for answer in answers]
    times = [answer.took_s for answer in answers]
    assert sorted(times) == times


def test_a_quantile_is_the_time_within_which_that_part_had_come() -> None:
    answers = [Answer(0, ms / 1000, 202, b"") for ms in range(1, 101)]
    assert (51, 100, 0) == (round(quantile_ms(answers, 0.5)), round(quantile_ms(answers, 0.99)), quantile_ms([], 0.5))
