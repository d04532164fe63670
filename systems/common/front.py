"""The front page of all systems: each is mounted under its name, and runs as it would alone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, Response
from fastapi.templating import Jinja2Templates

from systems.common.catalogue import SYSTEMS, load_web

templates = Jinja2Templates(Path(__file__).parent / "templates")


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    async with AsyncExitStack() as stack:
        for mounted in MOUNTED.values():  # a mounted application's own lifespan is not run for it
            await stack.enter_async_context(mounted.router.lifespan_context(mounted))
        yield


MOUNTED = {system.name: load_web(system) for system in SYSTEMS}
web = FastAPI(title="Systems", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
for name, mounted in MOUNTED.items():
    web.mount(f"/{name}", mounted)


@web.get("/", response_class=HTMLResponse)
async def show(request: Request) -> Response:
    return templates.TemplateResponse(request, "front.html", {"systems": SYSTEMS})
