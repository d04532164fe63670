"""The demo from start to end: start all, send visitors, watch, check every count, stop all, report."""

from __future__ import annotations

import http.client
import json
import secrets
import select
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from headrace import Headrace
from headrace.core.failures import error_of
from headrace.core.record import State, decode
from headrace.demo.pages import Page, make_pages
from headrace.demo.site import Site, WebApp
from headrace.demo.tasks import PREFIX_VARIABLE, QUEUES, TOKEN_VARIABLE
from headrace.engine import admin
from headrace.engine.clients import ServerConfig, SyncClient, masked_url
from headrace.engine.keys import queue_keys, queues_key, workers_key
from headrace.errors import HeadraceError
from headrace.server import EmbeddedServer
from headrace.worker.background import background_worker, no_interrupts

READ_AT_ONCE = 500
WORKER_STOPS_WITHIN_S = 10.0
LOOK_EVERY_S = 0.1
NO_PROGRESS_FOR_S = 60.0


class DemoBroken(HeadraceError):
    """The demo could not run to its end."""


@dataclass(frozen=True, slots=True)
class Sent:
    """One job as the web app named it to its visitor."""

    id: str
    queue: str
    path: str


@dataclass(slots=True)
class Ended:
    """How one job ended."""

    state: State
    words: int | None
    took_ms: int
    error: str


@dataclass
class Tally:
    """What the demo saw. `ran_again`: jobs that were started more than once."""

    pages: list[Page]
    sent: list[Sent] = field(default_factory=list)
    ended: dict[str, Ended] = field(default_factory=dict)
    requests: int = 0
    requests_s: float = 0.0
    wall_s: float = 0.0
    ran: int = 0
    ran_again: int = 0
    killed: str = ""

    @property
    def lost(self) -> int:
        return len(self.sent) - len(self.ended)

    @property
    def failed(self) -> int:
        return sum(end.state is not State.SUCCEEDED for end in self.ended.values())

    @property
    def right(self) -> int:
        """Jobs that succeeded with the number of words that their page has."""
        words = {page.path: page.words for page in self.pages}
        return sum(self.ended[job.id].words == words[job.path] for job in self.sent if job.id in self.ended)

    @property
    def jobs_s(self) -> float:
        return sum(end.took_ms for end in self.ended.values()) / 1000

    @property
    def is_good(self) -> bool:
        return bool(self.sent) and self.lost == 0 and self.right == len(self.sent)


Watch = Callable[[dict[str, tuple[int, int]]], None]  # queue -> (ended, enqueued), as they change
Say = Callable[[str], None]


def run_demo(*, jobs: int, processes: int, url: str | None, say: Say, watch: Callable[[], Any]) -> Tally:
    """Run the whole demo and leave nothing behind, however it ends.

    Args:
        url: a server of your own; None starts an embedded Valkey.
        watch: makes a context manager that gives a `Watch`, which shows progress.

    Raises:
        DemoBroken: the worker ended, or nothing moved for a minute; says what the worker said.
    """
    pages = make_pages()
    token = secrets.token_hex(16)
    prefix = f"hr-demo-{secrets.token_hex(4)}"
    tally = Tally(pages)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="headrace-demo-")))
        if url is None:
            url = stack.enter_context(EmbeddedServer(data_dir=folder / "valkey")).url
            say(f"valkey   {urlsplit(url).netloc or url}   embedded")
        else:
            say(f"server   {masked_url(url)}   your own; keys start with {prefix}")
        environment = {
            TOKEN_VARIABLE: token,
            PREFIX_VARIABLE: prefix,
            "HEADRACE_URL": url,
        }
        client = SyncClient(ServerConfig(url, prefix=prefix))
        stack.callback(client.close)
        client.check_server()
        stack.callback(_remove_keys, client)
        worker = stack.enter_context(_worker(processes, environment, folder / "worker.log"))
        say(f"worker   {processes} processes on {' '.join(QUEUES)}   pid {worker.pid}")
        app = stack.enter_context(Headrace(url, prefix=prefix))
        latency_s = min(0.05, 15 / jobs)
        site = stack.enter_context(Site(pages, latency_s=latency_s, token=token, kill_at=max(1, jobs * 2 // 5)))
        web = stack.enter_context(WebApp(app, pages, site.url))
        say(f"site     {site.url}   {len(pages)} pages, {latency_s * 1000:.0f} ms away")
        say(f"web app  {web.url}   POST /count enqueues and answers at once")
        started = time.monotonic()
        _send_visitors(web.url, jobs, tally)
        with watch() as shown:
            _collect(client, tally, shown, worker, folder / "worker.log")
        tally.wall_s = time.monotonic() - started
        _note_visits(site, tally)
        stack.enter_context(no_interrupts())
    return tally


def _note_visits(site: Site, tally: Tally) -> None:
    """What the site saw: how many jobs ran, how many again, and what became of the one whose process was killed."""
    tally.ran, tally.ran_again = (
        len(site.visits),
        sum(count > 1 for count in site.visits.values()),
    )
    if site.kill is not None:
        again = f"its job ran again {site.kill.again_at - site.kill.at:.2f} s later"
        tally.killed = (
            f"process {site.kill.pid} was killed with SIGKILL while it counted {site.kill.path}; "
            f"{again if site.kill.again_at else 'its job did not come back'}"
        )


def _send_visitors(web_url: str, jobs: int, tally: Tally) -> None:
    """Visitors, one after another: each wants the words of all pages counted, and waits for the answer only."""
    connection = http.client.HTTPConnection(urlsplit(web_url).netloc, timeout=30)
    while len(tally.sent) < jobs:
        wanted = min(len(tally.pages), jobs - len(tally.sent))
        started = time.monotonic()
        connection.request("POST", f"/count?jobs={wanted}")
        answer = connection.getresponse()
        body = answer.read()
        tally.requests_s += time.monotonic() - started
        tally.requests += 1
        if answer.status != 202:
            raise DemoBroken(f"the web app answered {answer.status} to a visitor")
        tally.sent += (Sent(job["job"], job["queue"], urlsplit(job["url"]).path) for job in json.loads(body))
    connection.close()


def _collect(
    client: SyncClient,
    tally: Tally,
    shown: Watch,
    worker: subprocess.Popen[bytes],
    log: Path,
) -> None:
    """Read what has ended, until all has."""
    waiting = {queue: [job.id for job in tally.sent if job.queue == queue] for queue in QUEUES}
    totals = {queue: len(ids) for queue, ids in waiting.items()}
    moved_at = time.monotonic()
    while any(waiting.values()):
        before = len(tally.ended)
        for queue, ids in waiting.items():
            _read_ended(client, queue, ids, tally)
            waiting[queue] = [job_id for job_id in ids if job_id not in tally.ended]
        shown({queue: (totals[queue] - len(ids), totals[queue]) for queue, ids in waiting.items()})
        if len(tally.ended) > before:
            moved_at = time.monotonic()
        elif worker.poll() is not None:
            raise DemoBroken(f"the worker ended with code {worker.returncode}:\n{_tail(log)}")
        elif time.monotonic() - moved_at > NO_PROGRESS_FOR_S:
            return  # what has not ended by now is reported as lost
        else:
            select.select([], [], [], LOOK_EVERY_S)


def _read_ended(client: SyncClient, queue: str, ids: list[str], tally: Tally) -> None:
    keys = queue_keys(queue, client.prefix)
    for first in range(0, len(ids), READ_AT_ONCE):
        some = ids[first : first + READ_AT_ONCE]
        before = len(tally.ended)
        stored = client.run(admin.read_records(keys, some))
        for job_id, data in zip(some, stored, strict=True):
            record = None if data is None else decode(data)
            if record is not None and record.ended_at_ms:
                words = None if record.result is None else msgspec.msgpack.decode(record.result)
                took_ms = record.ended_at_ms - record.started_at_ms
                tally.ended[job_id] = Ended(
                    admin.ended_state(record),
                    words,
                    took_ms,
                    ": ".join(filter(None, error_of(record))),
                )
        if len(tally.ended) == before:
            return  # the rest was enqueued later, and is looked at later


@contextmanager
def _worker(processes: int, environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`headrace worker` as anyone would start it."""
    arguments = [*QUEUES, "-A", "headrace.demo.tasks:app", "--processes", str(processes), "--grace", "2s"]
    with (
        log.open("wb") as output,
        background_worker(
            arguments, environment=environment, output=output, stops_within_s=WORKER_STOPS_WITHIN_S
        ) as process,
    ):
        yield process


def _remove_keys(client: SyncClient) -> None:
    for name in QUEUES:
        client.run(admin.drop_queue(queue_keys(name, client.prefix)))
    for key in (queues_key(client.prefix), workers_key(client.prefix)):
        client.run(admin.drop_key(key))


def _tail(log: Path) -> str:
    return "\n".join(log.read_text("utf8", "replace").splitlines()[-15:]) or "(it said nothing)"
