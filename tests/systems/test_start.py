"""`make systems`: everything starts, works, and stops."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import httpx
import psutil
import pytest

from systems.common.catalogue import SYSTEMS, SYSTEMS_FOLDER
from systems.common.programs import running, until

SLOW_S = 90.0


def test_all_systems_start_behind_one_page_and_leave_nothing(tmp_path: Path) -> None:
    """With servers of their own. A view that is sent through the front page is stored; TERM ends every process."""
    own = {"DATABASE_URL": "", "HEADRACE_URL": ""}
    with running(["systems", "--port", "0"], log=tmp_path / "systems.log", environment=own) as program:
        program.wait_until_it_says(r"http://\S+", SLOW_S)
        found = re.search(r"http://\S+", program.said)
        assert found is not None
        with httpx.Client(base_url=found[0], timeout=SLOW_S) as http:
            page = http.get("/").text
            assert [] == [system.name for system in SYSTEMS if f'href="{system.name}/"' not in page]
            assert 202 == http.post("/tracking/t", json={"page": "/a", "visitor": "ann"}).status_code
            until(lambda: http.get("/tracking/figures").json()["total"] == 1, SLOW_S, "the view")
            assert "<td>/a</td>" in http.get("/tracking/").text
            for user in ("ann", "chi"):  # the same report: one run, and both are told
                asked = {"first": "2026-05-01", "last": "2026-05-02", "tell": user}
                report = http.post("/analytics/reports", json=asked).json()["id"]
            until(lambda: http.get("/notification/").text.count("mail: sent") == 2, SLOW_S, "two mails of the report")
            link = f"http://{http.base_url.netloc.decode()}/analytics/reports/{report}"
            notices = re.findall(r'href="(notices/\w+)', http.get("/notification/").text)
            assert all(link in http.get(f"/notification/{notice}").text for notice in notices)
        processes = psutil.Process(program.process.pid).children(recursive=True)
        assert len(processes) > 4
        program.process.terminate()
        assert 0 == program.process.wait(SLOW_S), program.said
    assert [] == psutil.wait_procs(processes, timeout=SLOW_S)[1]


def test_every_folder_of_a_system_is_in_the_catalogue() -> None:
    folders = {path.parent.name for path in SYSTEMS_FOLDER.glob("*/web.py")}
    assert folders == {system.name for system in SYSTEMS}


PAGES = sorted(SYSTEMS_FOLDER.rglob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: "-".join(page.relative_to(SYSTEMS_FOLDER).parts))
def test_a_page_of_a_system_leads_somewhere(page: Path) -> None:
    """Its links, the modules that its commands start, and its twin in the other language."""
    text = page.read_text("utf8")
    targets = re.findall(r"\]\((?!http|#)([^)#]+)", text)
    assert [] == [target for target in targets if not (page.parent / target).exists()]
    modules = re.findall(r"(?:python -m|worker -A|uvicorn) (systems[\w.]*)", text)
    assert [] == [module for module in modules if importlib.util.find_spec(module) is None]
    assert page.parent == SYSTEMS_FOLDER or {"README.md", "README.vi.md"} <= {
        path.name for path in page.parent.iterdir()
    }
