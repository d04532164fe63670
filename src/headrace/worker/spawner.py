"""The spawner: a process that imports the app once, single-threaded, and forks children of the supervisor.

Run as `python -m headrace.worker.spawner FD [--child]` with one end of a socket pair; everything else, URLs above all,
comes through the socket, so that no secret stands in a command line. `serve` is the same for a fork of a process that has
its app already: `headrace.contrib.rq` starts workers so.

Duties: 1. import the app and say what it is, or why it failed; 2. fork a child when asked, twice, so that its parent
is the supervisor; 3. where the supervisor cannot adopt, fork once, and tell of the deaths. With `--child` it is a
child itself (`--start spawn`): it imports the app and runs.
"""

from __future__ import annotations

import os
import random
import select
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable
from typing import NoReturn

import msgspec

from headrace.app import Headrace
from headrace.errors import AppNotFound, HeadraceError
from headrace.worker.board import Board
from headrace.worker.child import main as child_main
from headrace.worker.config import WorkerConfig
from headrace.worker.loading import load_app, use_server
from headrace.worker.messages import Fork, Forked, Gone, Hello, Order, receive, send
from headrace.worker.processes import die_with_parent


def load(config: WorkerConfig) -> Headrace:
    """The app, pointed at the server the worker was told to use."""
    app = load_app(config.app_path)
    use_server(app, config.url, config.prefix, config.allow)
    return app


def describe(app: Headrace) -> Hello:
    config = app.server_config
    return Hello(
        url=config.url,
        prefix=config.prefix,
        queues=list(app.queues),
        tasks=sorted(app.tasks),
        async_tasks=sorted(name for name, task in app.tasks.items() if task.is_async),
        threads=[
            thread.name
            for thread in threading.enumerate()
            # OpenTelemetry's own start themselves anew in each process that is forked.
            if thread is not threading.main_thread() and not thread.name.startswith("Otel")
        ],
        schedules=app.declared_schedules(),
    )


def resolved(config: WorkerConfig, hello: Hello) -> WorkerConfig:
    """The config with what only the app knows."""
    return msgspec.structs.replace(config, queues=config.queues or hello.queues, url=hello.url, prefix=hello.prefix)


def be_a_child(app: Headrace, order: Order, child: int, spawn_id: int) -> NoReturn:
    """Become child `child`: bound to the supervisor's life, in a group of its own, with signals as Python sets them."""
    code = 70
    try:
        _bind_to_supervisor(order)
        if os.getpgid(0) != os.getpid():
            os.setpgid(0, 0)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGTSTP):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        random.seed()
        config = order.config
        board = Board.attach(order.board_fd, config.children, config.slots)
        child_main(app, config, board, child, spawn_id)
        code = 0
    except SystemExit as exit_:
        code = exit_.code if isinstance(exit_.code, int) else 70
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def _bind_to_supervisor(order: Order) -> None:
    """Return only as a process that ends when the supervisor does."""
    while order.is_adopting and os.getppid() != order.supervisor_pid:
        # The process between has yet to exit; the life pipe ends when the supervisor does.
        if select.select([order.life_fd], [], [], 0.001)[0]:
            os._exit(0)
    if not (order.is_adopting and die_with_parent()):
        threading.Thread(target=_watch_life, args=(order.life_fd,), name="headrace-life", daemon=True).start()
    elif os.getppid() != order.supervisor_pid:
        os._exit(0)


def _watch_life(life_fd: int) -> None:
    """Weaker than PDEATHSIG: a job that holds the GIL delays it."""
    os.read(life_fd, 1)
    os.kill(os.getpid(), signal.SIGKILL)


class Spawner:
    """Forks on request until the supervisor closes the socket."""

    def __init__(self, control: socket.socket, order: Order, app: Headrace) -> None:
        self._control = control
        self._order = order
        self._app = app

    def serve(self) -> None:
        while True:
            if not self._order.is_adopting:
                self._tell_deaths()
            data = receive(self._control)
            if not data:
                return
            request = msgspec.msgpack.decode(data, type=Fork)
            try:
                pid = self._fork_twice(request) if self._order.is_adopting else self._fork_once(request)
            except OSError as error:
                send(self._control, Forked(0, f"cannot fork: {error.strerror}"))
            else:
                send(self._control, Forked(pid))

    def _fork_once(self, request: Fork) -> int:
        pid = os.fork()
        if pid == 0:
            self._control.close()
            be_a_child(self._app, self._order, request.child, request.spawn_id)
        return pid

    def _fork_twice(self, request: Fork) -> int:
        reading, writing = os.pipe()
        middle = os.fork()
        if middle == 0:
            os.close(reading)
            self._be_the_middle(request, writing)
        os.close(writing)
        with open(reading, "rb") as pipe:
            text = pipe.read()
        os.waitpid(middle, 0)
        if not text:
            raise OSError(0, "the process between ended before it forked")
        return int(text)

    def _be_the_middle(self, request: Fork, writing: int) -> NoReturn:
        try:
            pid = os.fork()
            if pid == 0:
                os.close(writing)
                self._control.close()
                be_a_child(self._app, self._order, request.child, request.spawn_id)
            os.write(writing, str(pid).encode())
        finally:
            os._exit(0)

    def _tell_deaths(self) -> None:
        """Wait for a request, and tell of children that end meanwhile."""
        while not select.select([self._control], [], [], 0.05)[0]:
            while True:
                try:
                    pid, status, usage = os.wait4(-1, os.WNOHANG)
                except ChildProcessError:
                    break
                if pid == 0:
                    break
                send(self._control, Gone(pid, status, usage.ru_maxrss))


def main(arguments: list[str]) -> int:
    control = socket.socket(fileno=int(arguments[0]))
    order = msgspec.msgpack.decode(receive(control), type=Order)
    for fd in (control.fileno(), order.board_fd, order.life_fd):
        os.set_inheritable(fd, False)
    return _live(control, order, lambda: load(order.config), is_child="--child" in arguments)


def serve(app: Headrace, control: socket.socket) -> int:
    """Be the spawner of an app that this process has; the supervisor forked it. Returns the exit code."""
    order = msgspec.msgpack.decode(receive(control), type=Order)
    use_server(app, order.config.url, order.config.prefix, order.config.allow)
    return _live(control, order, lambda: app, is_child=False)


def _live(control: socket.socket, order: Order, find_app: Callable[[], Headrace], *, is_child: bool) -> int:
    if not is_child:
        # Stopped by the end of the socket only: a terminal or a service manager signals all processes at once.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGTSTP, signal.SIGUSR1):
            signal.signal(number, signal.SIG_IGN)
    die_with_parent()
    if os.getppid() != order.supervisor_pid:
        return 0
    try:
        app = find_app()
        hello = describe(app)
        order = msgspec.structs.replace(order, config=resolved(order.config, hello))
    except HeadraceError as error:
        _refuse(control, str(error), is_child)
        return 2 if isinstance(error, AppNotFound) else 70
    if is_child:
        control.close()
        be_a_child(app, order, order.child, order.spawn_id)
    send(control, hello)
    if order.config.start == "spawn" or hello.threads:
        receive(control)  # nothing to fork here: wait for the end
        return 0
    Spawner(control, order, app).serve()
    return 0


def _refuse(control: socket.socket, text: str, is_child: bool) -> None:
    if is_child:
        print(text, file=sys.stderr)
    else:
        send(control, Hello(error=text))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
