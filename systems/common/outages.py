"""What a web server answers while the queue or the database is away: 503, when to ask again, and which of them it is."""

from __future__ import annotations

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from sqlalchemy.exc import SQLAlchemyError

from headrace import QueueFull, ServerError


def tell_outages(web: FastAPI) -> None:
    """Have it answer so, whatever handler meets the outage."""
    for of_the_queue in (ServerError, QueueFull, TimeoutError):
        web.add_exception_handler(of_the_queue, _tell_of_the_queue)
    for of_the_database in (OSError, SQLAlchemyError):
        web.add_exception_handler(of_the_database, _tell_of_the_database)


async def _tell_of_the_queue(_: Request, error: Exception) -> Response:
    """The queue takes nothing, or does not answer: ask again."""
    return JSONResponse({"error": str(error) or "the queue does not answer"}, 503, {"Retry-After": "1"})


async def _tell_of_the_database(_: Request, error: Exception) -> Response:
    return JSONResponse({"error": "the database is away"}, 503, {"Retry-After": "5"})
