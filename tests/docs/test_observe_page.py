"""The code of docs/howto/observe.md runs as shown: a producer, and a worker that writes its spans."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs/howto/observe.md"


def test_a_run_is_linked_to_the_request_that_enqueued_it(url: str, tmp_path: Path) -> None:
    """The producer prints its spans and the job's id; the worker prints the run's, with what the job added."""
    (block,) = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text("utf8"), re.MULTILINE | re.DOTALL)
    (tmp_path / "shop.py").write_text(block)

    def run(*words: str) -> str:
        env = {**os.environ, "HEADRACE_URL": url}
        done = subprocess.run(
            [sys.executable, *words], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    sent = run("shop.py")
    ran = run("-m", "headrace", "worker", "-A", "shop.py", "--burst", "--processes", "1")
    (enqueue,) = re.findall(
        r'"name": "enqueue default",\s+"context": \{\s+"trace_id": "\w+",\s+"span_id": "(\w+)"', sent
    )
    assert '"name": "process default"' in ran and '"greeted": "world"' in ran
    assert enqueue in ran
    assert sent.splitlines()[0] in ran
