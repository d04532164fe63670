"""A bench for each test: a connection, and workers that end with the test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from rq_bench import Bench


@pytest.fixture
def bench(url: str, tmp_path: Path) -> Iterator[Bench]:
    found = Bench(url, tmp_path)
    yield found
    found.close()
