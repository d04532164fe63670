"""The same web server without a queue, to compare with: each view is a row that the handler inserts before it answers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from uuid import uuid4

import msgspec
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from sqlalchemy import insert
from sqlalchemy.exc import SQLAlchemyError

from systems.common.database import make_async_engine
from systems.tracking.events import make_view, read_body
from systems.tracking.models import SCHEMA, PageView

CONNECTIONS = 20


@asynccontextmanager
async def lifespan(web: FastAPI) -> AsyncIterator[None]:
    web.state.engine = make_async_engine(SCHEMA, pool_size=CONNECTIONS, max_overflow=0)
    yield
    await web.state.engine.dispose()


web = FastAPI(lifespan=lifespan)


@web.post("/t", status_code=202)
async def take_view(request: Request) -> Response:
    try:
        sent = read_body(await request.body())
    except msgspec.MsgspecError as error:
        return JSONResponse({"error": str(error)}, 422)
    host = request.client.host if request.client else None
    view = make_view(sent, browser=request.headers.get("user-agent", ""), host=host, at=datetime.now(UTC))
    row = {"id": uuid4().hex, **msgspec.structs.asdict(view)}
    try:
        async with request.app.state.engine.begin() as connection:
            await connection.execute(insert(PageView), row)
    except (OSError, SQLAlchemyError) as error:
        return JSONResponse({"error": str(error).partition("\n")[0]}, 503, {"Retry-After": "1"})
    return JSONResponse({"id": row["id"]}, 202)
