"""What can be a task, and under which name."""

from __future__ import annotations

import functools
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from headrace import Batch, Headrace, Retry, TaskNotRegistered, UsageError
from headrace.core.retry import NO_RETRY

app = Headrace("redis://127.0.0.1:1/0", allow=["jobs_of_the_tests"])


@app.task
def plain(a: int, b: int = 2) -> int:
    """Adds."""
    return a + b


@app.task(queue="high", retry=5, timeout=30, result_ttl=60, priority=7, expires=90, description="d", tags=["t"])
async def with_options(a: int) -> int:
    return a


def unregistered() -> None: ...


class Holder:
    def method(self) -> None: ...

    def __call__(self) -> None: ...


def test_a_task_is_named_after_its_module_and_stays_a_function() -> None:
    """Called plainly, it runs here."""
    assert plain.name == f"{__name__}.plain"
    assert (plain(1), plain.__doc__, plain.is_async) == (3, "Adds.", False)
    assert app.tasks[plain.name] is plain and app.find_task(plain.name) is plain


def test_a_task_keeps_what_it_declares() -> None:
    """For its jobs, or for the workers."""
    assert (with_options.queue, with_options.priority, with_options.is_async) == ("high", 7, True)
    assert (with_options.retry, with_options.timeout_ms) == (Retry(5).spec, 30_000)
    assert (with_options.result_ttl_ms, with_options.plan.expires_in_ms) == (60_000, 90_000)
    assert with_options.plan.job is not None and with_options.plan.job.tags == ["t"]
    assert (plain.retry, plain.timeout_ms, plain.result_ttl_ms) == (None, 3_600_000, 3_600_000)
    assert app.task(name="none", retry=0, timeout=None)(unregistered).retry == NO_RETRY
    assert app.tasks["none"].timeout_ms == 0
    assert app.queues == ["default", "high"]


def nested_function() -> Callable[[], None]:
    def inner() -> None: ...

    return inner


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (lambda: 1, "lambda.*@app.task"),
        (nested_function(), "nested in a function.*top level"),
        (Holder().method, "method bound to an object"),
        (Holder.method, "belongs to a class"),
        (Holder(), "Holder cannot be a task"),
        (Holder, "type cannot be a task"),
        (functools.partial(unregistered), "functools.partial"),
        (print, "built-in function"),
        (5, "int cannot be a task"),
    ],
    ids=["lambda", "nested", "bound method", "method", "object", "class", "partial", "builtin", "number"],
)
def test_what_no_worker_can_find_is_refused(target: Any, message: str) -> None:
    """At registration and at enqueue, saying what to do."""
    with pytest.raises(UsageError, match=message):
        app.task(target)
    with pytest.raises(TaskNotRegistered, match=message):
        app.enqueue(target)


def test_a_generator_function_cannot_be_a_batch_task() -> None:
    """A batch answers for each of its items; what a generator yields is the stream of one job."""

    def counts(items):  # type: ignore[no-untyped-def]
        yield items

    assert app.task(name="counts")(counts).is_generator
    with pytest.raises(UsageError, match="generator, and a batch task"):
        app.task(name="batch_counts", batch=Batch())(counts)


def test_a_name_lets_a_nested_function_be_a_task() -> None:
    """It says what a worker is to look for."""
    assert app.task(name="inner")(nested_function()).name == "inner"


def test_two_functions_cannot_share_a_name() -> None:
    """The same lines loaded again may."""
    app.task(name="twice")(nested_function())
    app.task(name="twice")(nested_function())
    with pytest.raises(UsageError, match="two functions have the task name 'twice'"):
        app.task(name="twice")(unregistered)
    with pytest.raises(UsageError, match="is a task already"):
        app.task(plain)


def test_a_wrong_declaration_is_refused_where_it_is_written() -> None:
    """Each with the option's name."""
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"queu": "x"}, "did you mean 'queue'"),
        ({"queue": "a b"}, "queue name"),
        ({"name": ""}, "name: "),
        ({"timeout": 0}, "timeout: "),
        ({"priority": 1_000}, "priority: "),
    ]
    for options, message in wrong:
        with pytest.raises(UsageError, match=message):
            app.task(**options)


def test_a_plain_function_needs_its_module_allowed() -> None:
    """Both remedies are told."""
    with pytest.raises(TaskNotRegistered, match=r"decorate it with @app.task, or .*Headrace\(allow=\["):
        app.enqueue(unregistered_elsewhere)


def unregistered_elsewhere() -> None: ...


def test_a_worker_finds_only_what_is_registered_or_allowed() -> None:
    """An allowed module gives its own functions, not what it imported; nothing else is imported."""
    found = app.find_task("jobs_of_the_tests.double")
    assert found is not None and found(4) == 8
    for name in ("jobs_of_the_tests.borrowed", "jobs_of_the_tests.os", "jobs_of_the_tests.gone", "jobs_of_the_tests"):
        assert app.find_task(name) is None
    for name in ("os.system", "antigravity.geohash", "jobs_of_the_tests_2.x", "..", "", "jobs_of_the_tests.sub.x"):
        assert app.find_task(name) is None
    assert "antigravity" not in sys.modules


SCRIPT = """
from headrace import Headrace
app = Headrace("redis://127.0.0.1:1/0", allow=["{name}"])
@app.task
def resize(): ...
def plain(): ...
print(resize.name, app.prepare(plain, {{}}, (), {{}}).task, app.find_task("{name}.plain").fn is plain)
"""


@pytest.mark.parametrize(
    ("arguments", "name"),
    [(["app.py"], "app"), (["-m", "pkg.mod"], "pkg.mod"), (["-m", "pkg"], "pkg.__main__"), (["pkg/mod.py"], "mod")],
    ids=" ".join,
)
def test_functions_of_main_get_the_name_a_worker_sees(tmp_path: Path, arguments: list[str], name: str) -> None:
    """`python app.py` gives app.resize, `python -m pkg.mod` gives pkg.mod.resize."""
    (tmp_path / "pkg").mkdir()
    for file in ("app.py", "pkg/mod.py", "pkg/__main__.py", "pkg/__init__.py"):
        (tmp_path / file).write_text("" if file.endswith("init__.py") else SCRIPT.format(name=name))
    done = subprocess.run([sys.executable, *arguments], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [f"{name}.resize", f"{name}.plain", "True"]


def test_functions_of_an_interactive_session_are_refused() -> None:
    """No worker can import them; a name is the way out."""
    code = "from headrace import Headrace\napp = Headrace('redis://h')\ndef f(): ...\n"
    refused = subprocess.run([sys.executable, "-c", code + "app.task(f)"], capture_output=True, text=True, check=False)
    assert "interactive session" in refused.stderr and "name=" in refused.stderr
    subprocess.run([sys.executable, "-c", code + "app.task(name='f')(f)"], check=True)
