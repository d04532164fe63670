"""A lab for each scenario: an empty server, a ledger, and workers that end with the test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from scenario_lab import Lab


@pytest.fixture
def lab(url: str, tmp_path: Path) -> Iterator[Lab]:
    found = Lab(url, tmp_path)
    yield found
    found.close()
