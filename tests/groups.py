"""Groups of real servers on loopback that can lose a member: with Sentinels, each behind a link; or as a cluster."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import redis
from redis.crc import key_slot
from scenario_lab import until

from headrace.engine.connect import parse_info
from headrace.server import EmbeddedServer, _die_with_parent, embedded_binary, free_port
from servers import SLOTS, cluster_port

NAME = "main"
REPLICA = b"REPLCONF"  # what a replica says when it connects
GREETING_BYTES = 80  # also the name of a node of a cluster, before all it tells of others
# More than a second: so often do Sentinels ping, and so long may a planned failover hold up what they say to the primary.
DOWN_AFTER_MS = 2_000
PERSISTENCE = {
    "appendonly": "yes",
    "appendfsync": "always",
}  # so that durability="fsync" is quick enough to be tried often


class Link:
    """A way to a server that can be cut: then bytes wait, connections stay open, and nobody is told."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._healed = threading.Event()
        self._held: bytes | None = None
        self._sockets: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port: int = self._listener.getsockname()[1]
        self._is_closed = False
        self._start(self._accept)

    def cut(self, who: bytes = b"") -> None:
        """For all, or only for those that said this when they connected."""
        self._healed.clear()
        self._held = who

    def heal(self) -> None:
        self._held = None
        self._healed.set()

    def close(self) -> None:
        self._is_closed = True
        self.heal()
        _hang_up(self._listener)  # wakes the thread that accepts
        self._threads[0].join()
        for one in list(self._sockets):
            _hang_up(one)
        for thread in self._threads:
            thread.join()

    def _start(self, work: Callable[..., None], *args: Any) -> None:
        thread = threading.Thread(target=work, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with self._listener:
            while not self._is_closed:
                try:
                    near, _ = self._listener.accept()
                except OSError:
                    return
                self._start(self._serve, near)

    def _serve(self, near: socket.socket) -> None:
        self._sockets.add(near)
        said = bytearray()
        self._wait_while_cut(said)
        with near, suppress(OSError), socket.create_connection(("127.0.0.1", self._target_port), timeout=5) as far:
            far.settimeout(None)
            self._sockets.add(far)
            for one in (near, far):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            back = threading.Thread(target=self._pump, args=(far, near, said), daemon=True)
            back.start()
            self._pump(near, far, said, is_asking=True)
            back.join()
            self._sockets.discard(far)
        self._sockets.discard(near)

    def _pump(self, source: socket.socket, sink: socket.socket, said: bytearray, *, is_asking: bool = False) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                if is_asking and len(said) < GREETING_BYTES:
                    said += data
                self._wait_while_cut(said)
                sink.sendall(data)
        self._wait_while_cut(said)
        _hang_up(sink)
        _hang_up(source)

    def _wait_while_cut(self, said: bytearray) -> None:
        held = self._held
        if held is not None and held in said[:GREETING_BYTES]:
            self._healed.wait()


def _hang_up(one: socket.socket) -> None:
    with suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)


def start_sentinel(
    folder: Path, primary_port: int, *, quorum: int, lines: Sequence[str] = ()
) -> tuple[int, subprocess.Popen[bytes]]:
    """A Sentinel that watches the primary at this port; its own port, and its process, which the caller ends."""
    port = free_port()
    folder.mkdir()
    conf = folder / "sentinel.conf"
    text = [
        f"port {port}", "bind 127.0.0.1", f"dir {folder}", f"sentinel monitor {NAME} 127.0.0.1 {primary_port} {quorum}",
        f"sentinel down-after-milliseconds {NAME} {DOWN_AFTER_MS}", f"sentinel failover-timeout {NAME} 5000",
        f"sentinel parallel-syncs {NAME} 1", *lines,
    ]  # fmt: skip
    conf.write_text("\n".join(text) + "\n")
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [embedded_binary(), str(conf), "--sentinel"], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            start_new_session=True, preexec_fn=_die_with_parent() if sys.platform == "linux" else None,
        )  # fmt: skip
    return port, process


def ask(port: int, *words: Any) -> Any:
    """A command to a server on loopback; the raw reply."""
    connection: Any = redis.Connection(port=port, protocol=2, socket_timeout=5)
    try:
        connection.send_command(*words)
        return connection.read_response()
    finally:
        connection.disconnect()


class Sentinels:
    """A primary, a replica, and three Sentinels that watch them. Everybody meets the servers through their links.

    Attributes:
        nodes: the two servers; `links`: the way to each, whose port is the one that is announced.
        url: for headrace.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.nodes: list[EmbeddedServer] = []
        self.links: list[Link] = []
        self._ports: list[int] = []
        self._processes: list[subprocess.Popen[bytes]] = []

    @property
    def url(self) -> str:
        return f"redis+sentinel://{','.join(f'127.0.0.1:{port}' for port in self._ports)}/{NAME}/0"

    def start(self) -> None:
        for number in range(2):
            port = free_port()
            self.links.append(Link(port))
            config = {
                "replica-announce-port": str(self.links[number].port), "replica-announce-ip": "127.0.0.1",
                "repl-diskless-sync-delay": "0", "repl-timeout": "10", "repl-ping-replica-period": "1",
                "maxclients": "2000", "enable-debug-command": "yes", **PERSISTENCE,
            }  # fmt: skip
            if number:
                config["replicaof"] = f"127.0.0.1 {self.links[0].port}"
            self.nodes.append(EmbeddedServer(port, data_dir=self._folder / f"node{number}", config=config).start())
        self.wait_for_replica()
        for number in range(3):
            port, process = start_sentinel(self._folder / f"sentinel{number}", self.links[0].port, quorum=2)
            self._ports.append(port)
            self._processes.append(process)
        until(lambda: all(self._sees_all(port) for port in self._ports), what="the Sentinels to see each other")

    def _sees_all(self, port: int) -> bool:
        fields = self._ask(port, "SENTINEL", "MASTER", NAME)
        if not fields:
            return False
        told = dict(zip(fields[::2], fields[1::2], strict=True))
        return told[b"num-other-sentinels"] == b"2" and told[b"num-slaves"] == b"1" and told[b"flags"] == b"master"

    def _ask(self, port: int, *words: str) -> Any:
        """The raw reply of a Sentinel; None when it does not answer, or with an error."""
        try:
            return ask(port, *words)
        except redis.RedisError:
            return None

    def primary(self) -> int:
        """The number of the node that the Sentinels call primary, as soon as they all do."""

        def agreed() -> list[int]:
            told = {tuple(self._ask(port, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME) or ()) for port in self._ports}
            ports = [int(one[1]) for one in told if one]
            return [number for number, link in enumerate(self.links) if [link.port] == ports]

        return int(until(agreed, timeout_s=60, what="the Sentinels to agree")[0])

    def wait_for_failover(self, old: int) -> int:
        """Until the other node is primary, for the Sentinels and for itself."""
        new = 1 - old
        until(lambda: self.primary() == new, timeout_s=60, what="a failover")
        until(lambda: self._role(new) == "master", timeout_s=60, what="the promotion")
        return new

    def wait_for_replica(self) -> None:
        """Until one node is a replica of the other."""
        until(self.follows, timeout_s=60, what="a replica that follows")

    def follows(self) -> bool:
        """Whether one node is a replica of the other, and connected."""
        infos = {info.get("role"): info for info in (self._info(0), self._info(1))}
        return set(infos) == {"master", "slave"} and infos["slave"]["master_link_status"] == "up"

    def is_replicated_now(self) -> bool:
        """Whether one node follows the other and has all it has."""
        infos = [self._info(number) for number in range(2)]
        roles = {info.get("role"): info for info in infos}
        if set(roles) != {"master", "slave"}:
            return False
        return bool(
            roles["slave"]["master_link_status"] == "up"
            and roles["master"]["connected_slaves"] == 1
            and roles["slave"]["slave_repl_offset"] == roles["master"]["master_repl_offset"]
        )

    def _role(self, number: int) -> str:
        return str(self._info(number).get("role"))

    def _info(self, number: int) -> dict[str, Any]:
        if not self.nodes[number].is_running:
            return {}
        client: Any = redis.Redis(port=self.nodes[number].port, protocol=2, decode_responses=True, socket_timeout=1)
        try:
            found: dict[str, Any] = client.info("replication")
            return found
        except redis.RedisError:
            return {}
        finally:
            client.close()

    def planned(self) -> None:
        """Ask the Sentinels for a failover in which the primary takes part: it first lets the replica catch up."""
        until(
            lambda: self._ask(self._ports[0], "SENTINEL", "FAILOVER", NAME, "COORDINATED") == b"OK",
            timeout_s=60,
            what="a planned failover to be accepted",
        )

    def pause(self, number: int) -> None:
        os.kill(self.nodes[number].pid, signal.SIGSTOP)

    def resume(self, number: int) -> None:
        os.kill(self.nodes[number].pid, signal.SIGCONT)

    def stop(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()
        for number, node in enumerate(self.nodes):
            if node.is_running:
                self.resume(number)
            node.kill()
        for link in self.links:
            link.close()


@contextmanager
def sentinels(folder: Path) -> Iterator[Sentinels]:
    found = Sentinels(folder)
    try:
        found.start()
        yield found
    finally:
        found.stop()


class Cluster:
    """Three primaries, each with a replica: `nodes[n + 3]` follows `nodes[n]` at first.

    Attributes:
        nodes: the six servers; `links`: the way to each, whose port is the one that is announced; `buses`: the way by which the
            other nodes reach it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.nodes: list[EmbeddedServer] = []
        self.links: list[Link] = []
        self.buses: list[Link] = []
        self._away: set[int] = set()

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"127.0.0.1:{link.port}" for link in self.links)

    def start(self) -> None:
        for number in range(6):
            port = cluster_port()
            self.links.append(Link(port))
            self.buses.append(Link(port + 10_000))
            config = {
                "cluster-enabled": "yes", "cluster-node-timeout": "1500", "repl-diskless-sync-delay": "0",
                "repl-ping-replica-period": "1", "cluster-allow-replica-migration": "no", **PERSISTENCE,
                "cluster-announce-ip": "127.0.0.1", "cluster-announce-port": str(self.links[number].port),
                "cluster-announce-bus-port": str(self.buses[number].port),
            }  # fmt: skip
            self.nodes.append(EmbeddedServer(port, data_dir=self._folder / str(number), config=config).start())
        for number in range(6):
            if number < 3:
                first, last = SLOTS * number // 3, SLOTS * (number + 1) // 3 - 1
                self.ask(number, "CLUSTER", "ADDSLOTSRANGE", first, last)
            self.ask(number, "CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            if number:
                self.ask(number, "CLUSTER", "MEET", "127.0.0.1", self.links[0].port, self.buses[0].port)
        self._wait_until_whole()
        for number in range(3, 6):
            self.ask(number, "CLUSTER", "REPLICATE", self.id_of(number - 3))
        self.wait_for_replicas()

    def ask(self, number: int, *words: Any) -> Any:
        """A command to one node; the raw reply."""
        return ask(self.nodes[number].port, *words)

    def id_of(self, number: int) -> str:
        return str(self.ask(number, "CLUSTER", "MYID").decode())

    def info(self, number: int, section: str) -> dict[str, str]:
        words = ("CLUSTER", "INFO") if section == "cluster" else ("INFO", section)
        return parse_info(self.ask(number, *words))

    def _wait_until_whole(self) -> None:
        def is_whole() -> bool:
            infos = [self.info(number, "cluster") for number in range(6)]
            return all(info["cluster_state"] == "ok" and info["cluster_known_nodes"] == "6" for info in infos)

        until(is_whole, timeout_s=60, what="the cluster to form")

    def wait_for_replicas(self) -> None:
        """Until three nodes follow one each."""

        def is_whole() -> bool:
            infos = [self.info(number, "replication") for number in range(6)]
            followers = [info for info in infos if info["role"] == "slave"]
            return len(followers) == 3 and all(info["master_link_status"] == "up" for info in followers)

        until(is_whole, timeout_s=60, what="three replicas")

    def primary_of(self, slot: int) -> int:
        """The number of the running node that says it serves a slot."""

        def found() -> list[int]:
            return [
                number
                for number in self._running()
                if self._serves(number, slot) and self.info(number, "replication")["role"] == "master"
            ]

        return int(until(found, timeout_s=60, what=f"a primary of slot {slot}")[0])

    def _running(self) -> list[int]:
        return [number for number, node in enumerate(self.nodes) if node.is_running and number not in self._away]

    def _serves(self, number: int, slot: int) -> bool:
        port = self.links[number].port
        return any(
            first <= slot <= last and int(main[1]) == port
            for first, last, main, *_ in self.ask(number, "CLUSTER", "SLOTS")
        )

    def wait_for_failover(self, slot: int, old: int) -> None:
        """Until another node than the old one serves the slot, and the nodes that run say so."""

        def is_done() -> bool:
            if any(self.info(number, "cluster")["cluster_state"] != "ok" for number in self._running()):
                return False
            return self.primary_of(slot) != old

        until(is_done, timeout_s=60, what="a failover")

    def planned(self, old: int) -> None:
        """Ask the replica of a primary to take its place in order: the primary first lets it catch up."""
        port = str(self.links[old].port)
        replica = next(n for n in self._running() if self.info(n, "replication").get("master_port") == port)
        self.ask(replica, "CLUSTER", "FAILOVER")

    def pause(self, number: int) -> None:
        self._away.add(number)
        os.kill(self.nodes[number].pid, signal.SIGSTOP)

    def resume(self, number: int) -> None:
        os.kill(self.nodes[number].pid, signal.SIGCONT)
        self._away.discard(number)

    def cut(self, number: int) -> None:
        """Nobody reaches this node any more, and it reaches none of its fellows."""
        self._away.add(number)
        name = self.id_of(number).encode()
        self.links[number].cut()
        for other, bus in enumerate(self.buses):
            bus.cut(b"" if other == number else name)

    def heal(self) -> None:
        for link in self.links + self.buses:
            link.heal()
        self._away.clear()

    def migrate(self, slot: int, source: int, sink: int, *, pause: Callable[[], None]) -> None:
        """Move a slot as an operator's tool does: key by key, and only then the slot; `pause` is called in between."""
        source_id, sink_id = self.id_of(source), self.id_of(sink)
        self.ask(sink, "CLUSTER", "SETSLOT", slot, "IMPORTING", source_id)
        self.ask(source, "CLUSTER", "SETSLOT", slot, "MIGRATING", sink_id)
        pause()
        while keys := self.ask(source, "CLUSTER", "GETKEYSINSLOT", slot, 3):
            self.ask(source, "MIGRATE", "127.0.0.1", self.nodes[sink].port, "", 0, 5000, "KEYS", *keys)
            pause()
        for number in (sink, source, *(n for n in range(6) if n not in (sink, source))):
            with suppress(redis.ResponseError):  # a replica need not be told
                self.ask(number, "CLUSTER", "SETSLOT", slot, "NODE", sink_id)

    def stop(self) -> None:
        for node in self.nodes:
            node.kill()
        for link in self.links + self.buses:
            link.close()


@contextmanager
def six_node_cluster(folder: Path) -> Iterator[Cluster]:
    found = Cluster(folder)
    try:
        found.start()
        yield found
    finally:
        found.stop()


def remember_slot(url: str, key: bytes) -> Callable[[], None]:
    """Copy what a cluster has in a key's slot; called, another primary takes the slot over as it was, like a replica that lagged."""
    ports = [int(address.rpartition(":")[2]) for address in url.partition("://")[2].split(",")]
    slot = key_slot(key)
    source = next(port for port in ports if ask(port, "CLUSTER", "GETKEYSINSLOT", slot, 1))
    sink = next(port for port in ports if port != source)
    copy = {name: ask(source, "DUMP", name) for name in ask(source, "CLUSTER", "GETKEYSINSLOT", slot, 1_000)}

    def take_over() -> None:
        source_id, sink_id = (ask(port, "CLUSTER", "MYID").decode() for port in (source, sink))
        ask(sink, "CLUSTER", "SETSLOT", slot, "IMPORTING", source_id)
        for name, value in copy.items():
            ask(sink, "RESTORE-ASKING", name, 0, value)
        ask(source, "DEL", *ask(source, "CLUSTER", "GETKEYSINSLOT", slot, 1_000))
        for port in (sink, source, *ports):
            ask(port, "CLUSTER", "SETSLOT", slot, "NODE", sink_id)

    return take_over
