"""The guide on the dashboard runs as written."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import httpx

PAGE = Path(__file__).parents[2] / "docs/howto/dashboard.md"


def test_the_mounted_dashboard_lets_in_whom_it_says(url: str, monkeypatch: Any) -> None:
    """Ann and Bob, and nobody else."""
    monkeypatch.setenv("HEADRACE_URL", url)
    found: dict[str, Any] = {"__name__": "site"}
    for block in re.findall(r"^```python\n(.*?)^```$", PAGE.read_text("utf8"), re.MULTILINE | re.DOTALL):
        exec(compile(block, str(PAGE), "exec", dont_inherit=True), found)

    async def ask() -> list[int]:
        transport = httpx.ASGITransport(found["site"])
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            told = [
                (await client.get("/ops/jobs/", headers={"x-user": user})).status_code for user in ("ann", "bob", "eve")
            ]
        await found["site"].routes[0].app.state.source.aclose()
        return told

    assert asyncio.run(ask()) == [200, 200, 401]
    found["app"].close()
