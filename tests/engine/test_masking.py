"""No password is ever shown."""

from __future__ import annotations

import pytest

from headrace.engine.connect import masked_url


@pytest.mark.parametrize(
    "url",
    [
        "redis://user:SECRET@host:6379/0",
        "redis://:SECRET@host",
        "rediss+sentinel://:S@SECRET@a:1,b:2/main",
        "user:SECRET@host:6379",
        "redis://host/0?password=SECRET&db=1",
        "redis+sentinel://a:1/m?sentinel_password=SECRET",
    ],
)
def test_a_shown_url_has_no_password(url: str) -> None:
    """Whatever form it was written in."""
    assert "SECRET" not in masked_url(url)
    assert "***" in masked_url(url)


def test_a_url_without_a_password_is_shown_as_it_is() -> None:
    assert "redis://localhost:6379/0" == masked_url("redis://localhost:6379/0")
