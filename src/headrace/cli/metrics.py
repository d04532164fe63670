"""`headrace metrics`: queues, workers and schedules as Prometheus text, once or for a scraper."""

from __future__ import annotations

import asyncio
import dataclasses
import time

import click

from headrace.cli.settings import OK, settings, store_settings, talk
from headrace.engine.clients import AsyncClient, ServerConfig
from headrace.errors import ServerError
from headrace.observe import exposition
from headrace.observe.listener import Answer, Listener, Route
from headrace.observe.metrics import Snapshot, read_snapshot, render

KEPT_S = 1.0


@store_settings
@click.command(
    epilog="\b\nExamples:\n  headrace metrics\n  headrace metrics --serve 9464\n  headrace metrics --serve 0.0.0.0:9464"
)
@click.option(
    "--serve", "place", metavar="[HOST:]PORT", envvar="HEADRACE_METRICS_SERVE", show_envvar=True,
    help="Answer /metrics, /livez and /readyz there until Ctrl-C; without a host on this machine only.",
)  # fmt: skip
def command(place: str | None) -> int:
    """Print what all queues, workers and schedules are at as Prometheus text, or serve it to a scraper.

    One such process for all of them is enough; `headrace web` answers the same at /metrics.
    """
    if place is None:
        client = settings().client()
        click.echo(render(client.run(read_snapshot(client.prefix))), nl=False)
        return OK
    host, port = _read_place(place)
    asyncio.run(_Exporter(settings().client().config).live(host, port))
    return OK


def _read_place(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not port.isdecimal() or int(port) > 65535:
        raise click.UsageError(f"--serve {text!r}: expected PORT or HOST:PORT, such as 9464 or 0.0.0.0:9464")
    return host.strip("[]") or "127.0.0.1", int(port)


class _Exporter:
    """Answers scrapers; many who ask within a second cost one read."""

    def __init__(self, config: ServerConfig) -> None:
        self._prefix = config.prefix
        self._client = AsyncClient(config)
        self._errors = 0
        self._reading = asyncio.Lock()
        self._kept: tuple[float, Answer] | None = None

    async def live(self, host: str, port: int) -> None:
        routes: dict[str, Route] = {
            "/metrics": self._metrics,
            "/readyz": self._readyz,
            "/livez": lambda: Answer(200, "ok\n"),
        }
        listener = Listener(routes)
        address = await listener.open(host, port)
        talk(f"metrics on {address}/metrics ; Ctrl-C ends it")
        try:
            await asyncio.Event().wait()
        finally:
            await listener.aclose()
            await self._client.aclose()

    async def _metrics(self) -> Answer:
        async with self._reading:
            if self._kept is None or time.monotonic() >= self._kept[0]:
                self._kept = (time.monotonic() + KEPT_S, await self._read())
            return self._kept[1]

    async def _read(self) -> Answer:
        try:
            seen: Snapshot = await self._client.run(read_snapshot(self._prefix))
        except ServerError as error:
            self._errors += 1
            return Answer(503, f"{error}\n")
        return Answer(200, render(dataclasses.replace(seen, server_errors=self._errors)), exposition.CONTENT_TYPE)

    async def _readyz(self) -> Answer:
        found = await self._metrics()
        return Answer(200, "ok\n") if found.status == 200 else found
