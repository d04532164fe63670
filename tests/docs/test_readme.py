"""What the README shows runs as pasted, in both languages."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from scenario_lab import until

from headrace import Headrace, State
from headrace.server import free_port

ROOT = Path(__file__).parents[2]
READMES = ["README.md", "README.vi.md"]


def blocks(name: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", (ROOT / name).read_text("utf8"), re.MULTILINE | re.DOTALL)


def test_both_languages_show_the_same_code() -> None:
    """Comments of the console blocks aside, which are talk."""
    english, vietnamese = (
        [re.sub(r"\s*#.*", "", block) for kind in ("python", "console") for block in blocks(name, kind)]
        for name in READMES
    )
    assert english == vietnamese
    headings = [re.findall(r"^#+ ", (ROOT / name).read_text("utf8"), re.MULTILINE) for name in READMES]
    assert headings[0] == headings[1]


@pytest.mark.parametrize("name", READMES)
def test_links_lead_somewhere(name: str) -> None:
    targets = re.findall(r"\]\((?!http)([^)#]+)\)", (ROOT / name).read_text("utf8"))
    assert [] == [target for target in targets if not (ROOT / target).exists()]


@pytest.mark.parametrize("name", READMES)
def test_the_first_program_runs_as_pasted(name: str, tmp_path: Path) -> None:
    """`headrace dev app.py` in one terminal, `python app.py` in another: the second finds the first's server."""
    (tmp_path / "app.py").write_text(blocks(name, "python")[0])
    environment = {key: value for key, value in os.environ.items() if not key.startswith("HEADRACE_")}
    log = tmp_path / "dev.log"
    with log.open("wb") as out:
        command = [sys.executable, "-m", "headrace", "dev", "app.py"]
        dev = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=out, stderr=out)
    try:
        until(lambda: (tmp_path / ".headrace" / "dev.json").exists() or dev.poll() is not None, what=log.read_text())
        done = subprocess.run(
            [sys.executable, "app.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=30
        )
        assert ("cat.png@400\n", "") == (done.stdout, done.stderr), log.read_text()
    finally:
        dev.terminate()
        dev.wait(30)


def test_the_second_program_imports_and_enqueues(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its tasks have the options it shows, and its request handler stores the jobs."""
    monkeypatch.setenv("HEADRACE_URL", url)
    source = blocks("README.md", "python")[1]
    module: dict[str, object] = {"__name__": "readme_app"}
    exec(compile(source, "README.md", "exec"), module)
    ids = module["a_web_request"](["http://127.0.0.1/a", "http://127.0.0.1/b"])  # type: ignore[operator]
    app = module["app"]
    assert ["queued", "queued"] == [app.job(job_id).state for job_id in ids]  # type: ignore[attr-defined]
    app.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", READMES)
def test_the_second_program_retries_a_page_that_cannot_be_reached(name: str, url: str, tmp_path: Path) -> None:
    """Its `on=` covers what urlopen raises then, which is a URLError, not a ConnectionError."""
    (tmp_path / "app.py").write_text(blocks(name, "python")[1])
    command = [
        sys.executable,
        "-m",
        "headrace",
        "worker",
        "high",
        "default",
        "low",
        "-A",
        "app:app",
        "--processes",
        "1",
    ]
    worker = subprocess.Popen(command, cwd=tmp_path, env={**os.environ, "HEADRACE_URL": url}, stderr=subprocess.DEVNULL)
    try:
        with Headrace(url) as app:
            job = app.queue("high").enqueue("app.count_words_at_url", f"http://127.0.0.1:{free_port()}/")
            until(lambda: bool(job.refresh().errors), what="the first attempt's end")
            assert (State.RETRYING, "urllib.error.URLError") == (job.state, job.errors[0].type)
    finally:
        worker.terminate()
        worker.wait(30)
