"""What a worker was asked to do: one value, handed from the command line to supervisor, spawner and children."""

from __future__ import annotations

import os
import re
import secrets
import socket

import msgspec

POOLS = ("prefork", "threads", "asyncio", "fork")


class WorkerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """A worker's settings.

    Attributes:
        app_path: "module:attribute", "module" or "path/app.py", as `loading.load_app` takes it.
        children: processes. `slots`: jobs side by side in each (1 for prefork and fork).
        queues: in strict order; [] for the app's own.
        weights: queue -> share, instead of strict order.
        url, prefix: instead of the app's.
        start: "fork" from a spawner that has imported the app, or "spawn" a fresh interpreter for each child.
        max_jobs: recycle a child after so many jobs; 0 never. `max_memory_bytes`: likewise when it is larger; 0 never.
        jobs_in_all: when its children have run so many, one that ends is not replaced, and the worker ends with the last; 0: go on.
        max_idle_ms: end when nothing has run for so long; 0 never.
        name: what people call the worker; "": its id.
        health_host, health_port: where to answer probes and scrapers; no port: nowhere; 0: any that is free.
        kill_after_ms: from a job's timeout to SIGKILL.
    """

    app_path: str
    worker_id: str
    pool: str = "prefork"
    children: int = 1
    slots: int = 1
    queues: list[str] = []
    weights: dict[str, int] | None = None
    allow: list[str] = []
    url: str | None = None
    prefix: str | None = None
    lease_ms: int = 10_000
    renew_ms: int = 2_500
    kill_after_ms: int = 10_000
    grace_ms: int = 25_000
    batch_ms: int = 5
    max_jobs: int = 0
    jobs_in_all: int = 0
    max_memory_bytes: int = 0
    max_idle_ms: int = 0
    name: str = ""
    burst: bool = False
    start: str = "fork"
    reload: bool = False
    reload_paths: list[str] = []
    log_level: str = "info"
    log_format: str = "text"
    health_host: str = "127.0.0.1"
    health_port: int | None = None


def new_worker_id(name: str | None) -> str:
    """Unique also where host names and process ids repeat themselves, as in containers: sessions are named after it."""
    host = re.sub(r"[^A-Za-z0-9_-]+", "-", name or socket.gethostname())[:60] or "worker"
    return f"{host}-{os.getpid()}-{secrets.token_hex(3)}"


def worker_name_of(session: str) -> str:
    """The name of the worker whose consumer has this session; its own id is the name, a process id and a random word."""
    worker_id = session.partition(".")[0]
    return worker_id.rsplit("-", 2)[0]


def encode_config(config: WorkerConfig) -> bytes:
    return msgspec.msgpack.encode(config)


def decode_config(data: bytes) -> WorkerConfig:
    return msgspec.msgpack.decode(data, type=WorkerConfig)
