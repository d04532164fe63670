"""TLS with a server whose certificates were made here: what works, and one clear sentence for each thing that does not."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from certificates import Authority, Pair
from headrace import Headrace, ServerUntrusted, UsageError
from headrace.engine.call import command
from headrace.engine.clients import AsyncClient, ServerConfig, SyncClient
from headrace.server import EmbeddedServer, free_port
from servers import redis7_binary

PING = command("PING", decode=bool)


@dataclass(frozen=True)
class Ports:
    plain: int
    tls: int
    expired_tls: int
    authority: Path
    other_authority: Path


@pytest.fixture(scope="module")
def ports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ports]:
    """Two servers: one with a good certificate, one whose certificate ended yesterday."""
    binary = redis7_binary()
    if binary is None:
        pytest.skip("no redis-server on PATH (the embedded Valkey has no TLS): apt-get install redis-server")
    folder = tmp_path_factory.mktemp("tls")
    authority, other = Authority(folder, "authority"), Authority(folder, "other")

    def server(pair: Pair, tls_port: int) -> EmbeddedServer:
        config = {
            "tls-port": str(tls_port), "tls-cert-file": str(pair.certificate), "tls-key-file": str(pair.key),
            "tls-ca-cert-file": str(authority.pair.certificate), "tls-auth-clients": "no",
        }  # fmt: skip
        return EmbeddedServer(binary=binary, config=config)

    good, expired = free_port(), free_port()
    with (
        server(authority.sign("server"), good) as one,
        server(authority.sign("expired", is_expired=True), expired),
    ):
        yield Ports(one.port, good, expired, authority.pair.certificate, other.pair.certificate)


def wrong_urls(ports: Ports) -> dict[str, tuple[str, str]]:
    """What is wrong: the URL, and what must be said."""
    trusted = f"?ssl_ca_certs={ports.authority}"
    return {
        "another authority": (f"rediss://:sesame@127.0.0.1:{ports.tls}/0?ssl_ca_certs={ports.other_authority}", "is not trusted"),
        "no authority": (f"rediss://:sesame@127.0.0.1:{ports.tls}/0", "?ssl_ca_certs=FILE"),
        "expired": (f"rediss://:sesame@127.0.0.1:{ports.expired_tls}/0{trusted}", "certificate has expired"),
        "TLS to a plain port": (f"rediss://:sesame@127.0.0.1:{ports.plain}/0{trusted}", "speaks no TLS: write redis://"),
        "plain to a TLS port": (f"redis://:sesame@127.0.0.1:{ports.tls}/0", "speaks TLS only: write rediss://"),
    }  # fmt: skip


WRONG = ["another authority", "no authority", "expired", "TLS to a plain port", "plain to a TLS port"]


def test_tls_works_with_the_right_authority(ports: Ports) -> None:
    """In both clients, and for a job from its enqueueing to its look-up."""
    url = f"rediss://127.0.0.1:{ports.tls}/0?ssl_ca_certs={ports.authority}"

    async def ping() -> bool:
        client = AsyncClient(ServerConfig(url))
        try:
            return await client.run(PING)
        finally:
            await client.aclose()

    with Headrace(url) as app:
        job = app.enqueue("some.task", 1)
        assert "queued" == app.job(job.id).state
    assert asyncio.run(ping())


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_certificate_or_port_is_told_at_once(ports: Ports, wrong: str) -> None:
    """Not repeated for the whole budget, since waiting does not help; and the password is not shown."""
    url, told = wrong_urls(ports)[wrong]
    began = time.monotonic()
    client = SyncClient(ServerConfig(url, retry_budget_s=60))
    with pytest.raises(ServerUntrusted) as caught:
        client.run(PING)
    assert told in str(caught.value)
    assert "sesame" not in str(caught.value)
    assert time.monotonic() - began < 30

    async def ping() -> None:
        client = AsyncClient(ServerConfig(url, retry_budget_s=60))
        try:
            await client.run(PING)
        finally:
            await client.aclose()

    with pytest.raises(ServerUntrusted, match=told.replace("?", r"\?")):
        asyncio.run(ping())


@pytest.mark.parametrize("wrong", WRONG)
def test_a_command_ends_with_69_and_one_line(ports: Ports, wrong: str) -> None:
    """`headrace queue ls`: nothing on stdout, no traceback, no password."""
    url, told = wrong_urls(ports)[wrong]
    done = subprocess.run(
        [sys.executable, "-m", "headrace", "queue", "ls"],
        env={**os.environ, "HEADRACE_URL": url}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (69, "") == (done.returncode, done.stdout)
    assert told in done.stderr
    assert 1 == len(done.stderr.splitlines())
    assert "sesame" not in done.stderr


def test_a_worker_with_a_wrong_certificate_ends_with_69(ports: Ports, tmp_path: Path) -> None:
    """At its start, in one sentence."""
    (tmp_path / "jobs_here.py").write_text("from headrace import Headrace\napp = Headrace()\n")
    url, told = wrong_urls(ports)["expired"]
    done = subprocess.run(
        [sys.executable, "-m", "headrace", "worker", "-A", "jobs_here:app"], cwd=tmp_path,
        env={**os.environ, "HEADRACE_URL": url}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert 69 == done.returncode
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    assert "sesame" not in done.stderr


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("ssl_ca_certs=/nowhere/ca.pem", "/nowhere/ca.pem, which is not there"),
        ("ssl_cert_reqs=maybe", "option that cannot be used"),
        ("ssl_bogus=1", "ssl_bogus"),
        ("socket_timeout=soon", "no server URL"),
    ],
)
def test_a_wrong_option_in_a_url_fails_where_the_url_is_given(query: str, told: str) -> None:
    """Not at the first job."""
    with pytest.raises(UsageError, match=told):
        Headrace(f"rediss://:sesame@127.0.0.1:6380/0?{query}")
