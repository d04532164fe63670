"""The world outside, to try it with: a mail server (aiosmtpd), and an HTTP service for SMS and push that is slow, sets a limit, fails and goes away.

It keeps a ledger of what it was asked and what it delivered; a key that it has delivered already is answered, not delivered again.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from email import message_from_bytes
from email.policy import default
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
from aiosmtpd.smtp import SMTP, Envelope, Session
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response

from headrace.server import free_port
from systems.common.programs import web_server
from systems.notification.kinds import CHANNELS
from systems.notification.providers import MAIL_SERVER, SERVICES

BODY_BYTES_MAX = 16_384
SHOWN = 20
NOBODY = "nobody"
"""Whose address no provider knows."""


class Behaviour(msgspec.Struct):
    """How one provider is. `rate`: requests it allows in any one second; above it answers 429. `fails`: the part that fails."""

    is_down: bool = False
    rate: int = 50
    slow_s: float = 0.02
    fails: float = 0.02


class Arrived(msgspec.Struct, frozen=True):
    """What it has delivered. `at_s`: a clock that only goes on."""

    key: str
    to: str
    text: str
    at_s: float


class Provider:
    """One of them: how it is, and its ledger."""

    def __init__(self, behaviour: Behaviour) -> None:
        self.behaviour = behaviour
        self.arrived: dict[str, Arrived] = {}
        self.answers: Counter[str] = Counter()
        self.asked_at_s: list[float] = []
        self._last_second: deque[float] = deque()

    async def take(self, key: str, to: str, text: str) -> tuple[int, str]:
        """The status of the answer, as HTTP has it, and what is said; delivered when it is 200."""
        now_s = time.monotonic()
        self.asked_at_s.append(now_s)
        status, said = self._judge(now_s, to)
        await asyncio.sleep(self.behaviour.slow_s * (0.5 + random.random()))
        if status == 200:
            if key in self.arrived:
                self.answers["repeated"] += 1
            else:
                self.arrived[key] = Arrived(key, to, text, now_s)
        self.answers[str(status)] += 1
        return status, said

    def _judge(self, now_s: float, to: str) -> tuple[int, str]:
        if self.behaviour.is_down:
            return 503, "out of service"
        while self._last_second and self._last_second[0] <= now_s - 1:
            self._last_second.popleft()
        if len(self._last_second) >= self.behaviour.rate:
            return 429, f"more than {self.behaviour.rate} in a second"
        self._last_second.append(now_s)
        if to.startswith(NOBODY):
            return 404, "nobody has this address"
        if random.random() < self.behaviour.fails:
            return 500, "an error of ours"
        return 200, "taken"

    def busiest_second(self) -> int:
        """The most requests that came within any one second, refused ones too."""
        most, first = 0, 0
        for last, at_s in enumerate(self.asked_at_s):
            while self.asked_at_s[first] <= at_s - 1:
                first += 1
            most = max(most, last - first + 1)
        return most


PROVIDERS = {channel: Provider(Behaviour(rate=50 if channel == "sms" else 100)) for channel in CHANNELS}


class Mailbox:
    """What the mail server does with a message (the names are aiosmtpd's)."""

    async def handle_RCPT(self, server: SMTP, session: Session, envelope: Envelope, address: str, options: Any) -> str:
        if address.startswith(NOBODY):
            return "550 5.1.1 nobody has this address"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        content = envelope.content
        assert isinstance(content, bytes)
        message = message_from_bytes(content, policy=default)
        key = str(message["Message-ID"])
        status, said = await PROVIDERS["mail"].take(key, envelope.rcpt_tos[0], content.decode("ascii"))
        code = {200: "250 2.0.0", 429: "451 4.7.1", 500: "451 4.3.0", 503: "421 4.3.2"}[status]
        return f"{code} {said} {key}" if status == 200 else f"{code} {said}"


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    parts = urlsplit(os.environ[MAIL_SERVER])
    loop = asyncio.get_running_loop()

    def serve() -> SMTP:
        return SMTP(Mailbox(), hostname="mail.example.com", loop=loop, enable_SMTPUTF8=True)

    async with await loop.create_server(serve, parts.hostname, parts.port or 0):
        yield


web = FastAPI(title="Outside", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)


@web.post("/{service}")
async def take(service: str, request: Request) -> Response:
    if service not in ("sms", "push"):
        return JSONResponse({"error": "there is no such service"}, 404)
    body = await request.body()
    if len(body) > BODY_BYTES_MAX:
        return JSONResponse({"error": f"more than {BODY_BYTES_MAX} bytes"}, 413)
    sent = msgspec.json.decode(body, type=dict[str, str])
    key = request.headers["Idempotency-Key"]
    status, said = await PROVIDERS[service].take(key, sent["to"], sent["text"])
    headers = {"Retry-After": "1"} if status == 429 else {}
    return JSONResponse({"id": f"{service}-{key}"} if status == 200 else {"error": said}, status, headers)


@web.get("/ledger/{channel}")
async def ledger(channel: str, full: bool = False) -> dict[str, Any]:
    """Figures, and the last that arrived; `full`: the keys of all, in the order in which they arrived."""
    provider = PROVIDERS[channel]
    found = {
        "behaviour": msgspec.to_builtins(provider.behaviour),
        "asked": len(provider.asked_at_s),
        "arrived": len(provider.arrived),
        "answers": dict(provider.answers),
        "busiest_second": provider.busiest_second(),
    }
    if full:
        return found | {"all": [msgspec.to_builtins(each) for each in provider.arrived.values()]}
    last = list(provider.arrived.values())[-SHOWN:]
    return found | {"last": [msgspec.to_builtins(each) for each in reversed(last)]}


@web.put("/behaviour/{channel}")
async def behave(channel: str, request: Request) -> dict[str, Any]:
    """Change what is named; the rest stays."""
    now = msgspec.to_builtins(PROVIDERS[channel].behaviour)
    changed = msgspec.convert(now | msgspec.json.decode(await request.body()), Behaviour)
    PROVIDERS[channel].behaviour = changed
    return dict(msgspec.to_builtins(changed))


@web.delete("/ledger/{channel}")
async def forget(channel: str) -> None:
    PROVIDERS[channel] = Provider(PROVIDERS[channel].behaviour)


@contextmanager
def outside(folder: Path) -> Iterator[dict[str, str]]:
    """Start it; what the programs of the system are told."""
    told = {MAIL_SERVER: f"smtp://127.0.0.1:{free_port()}"}
    with web_server(f"{__name__}:web", log=folder / "outside.log", environment=told) as (_, url):
        yield told | {SERVICES: url}
