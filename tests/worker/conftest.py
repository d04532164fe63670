"""An app on an empty server, for tests that run its jobs themselves."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from headrace import Headrace


@pytest.fixture
def app(url: str) -> Iterator[Headrace]:
    with Headrace(url) as found:
        yield found
