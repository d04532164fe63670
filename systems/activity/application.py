"""The application whose activity is logged: log in and out, a profile, posts. It logs by `logging`, and knows no queue."""

from __future__ import annotations

import logging
from typing import Any
from urllib.parse import parse_qs

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncEngine

from systems.activity.capture import current
from systems.activity.models import Person, Post
from systems.activity.pages import page

COOKIE = "activity_user"
NAME_CHARS_MAX = 40
TEXT_CHARS_MAX = 2_000

logger = logging.getLogger("systems.activity.application")
router = APIRouter()


def _engine(request: Request) -> AsyncEngine:
    engine: AsyncEngine = request.app.state.engine
    return engine


def _user(request: Request) -> str:
    """Who asks. There is no password: this is an application to look at, not to trust."""
    current().user = user = request.cookies.get(COOKIE, "").encode("latin-1").decode("utf8", "replace")[:NAME_CHARS_MAX]
    return user


async def _form(request: Request) -> dict[str, str]:
    given = parse_qs((await request.body()).decode("utf8", "replace"), keep_blank_values=True)
    return {name: values[-1].replace("\0", "")[:TEXT_CHARS_MAX].strip() for name, values in given.items()}


def _back(request: Request, path: str = "") -> Response:
    return RedirectResponse(f"{request.scope.get('root_path', '')}/{path}", 303)


@router.get("/", response_class=HTMLResponse)
async def show(request: Request) -> Response:
    """Who you are, and the posts."""
    user = _user(request)
    async with _engine(request).connect() as connection:
        posts = list(await connection.execute(select(Post.__table__).order_by(Post.id)))
        about = await connection.scalar(select(Person.about).where(Person.name == user))
    return page(request, "application.html", user=user, about=about or "", posts=posts)


@router.post("/login")
async def log_in(request: Request) -> Response:
    name = (await _form(request)).get("name", "")[:NAME_CHARS_MAX]
    if not name:
        logger.warning("a login without a name", extra={"kind": "login.refused"})
        return _back(request)
    current().user = name
    async with _engine(request).begin() as connection:
        await connection.execute(insert(Person).values(name=name, about="").on_conflict_do_nothing())
    logger.info("logged in", extra={"kind": "login"})
    answer = _back(request)
    answer.set_cookie(COOKIE, name.encode().decode("latin-1"), httponly=True, samesite="lax")
    return answer


@router.post("/logout")
async def log_out(request: Request) -> Response:
    if _user(request):
        logger.info("logged out", extra={"kind": "logout"})
    answer = _back(request)
    answer.delete_cookie(COOKIE)
    return answer


@router.post("/profile")
async def change_profile(request: Request) -> Response:
    user, about = _user(request), (await _form(request)).get("about", "")
    if user:
        async with _engine(request).begin() as connection:
            await connection.execute(update(Person).where(Person.name == user).values(about=about))
        logger.info("changed the profile", extra={"kind": "profile.changed", "chars": len(about)})
    return _back(request)


@router.get("/posts/{number}", response_class=HTMLResponse)
async def view_post(request: Request, number: int) -> Response:
    """One post, to read and to change."""
    user = _user(request)
    async with _engine(request).connect() as connection:
        post: Any = (await connection.execute(select(Post.__table__).where(Post.id == number))).first()
    if post is None:
        logger.warning("no such post", extra={"kind": "post.missing", "post": number})
        return page(request, "application.html", status=404, user=user, about="", posts=[])
    logger.info("viewed “%s”", post.title, extra={"kind": "post.viewed", "post": number})
    return page(request, "post.html", user=user, post=post)


@router.post("/posts/{number}")
async def update_post(request: Request, number: int) -> Response:
    _user(request)
    form = await _form(request)
    title, text = form.get("title", ""), form.get("text", "")
    changed = update(Post).where(Post.id == number).values(title=title, text=text, changed_at=func.now())
    async with _engine(request).begin() as connection:
        is_there = (await connection.execute(changed)).rowcount == 1
    kind = "post.updated" if is_there else "post.missing"
    logger.info("updated “%s”", title, extra={"kind": kind, "post": number, "title": title, "chars": len(text)})
    return _back(request, f"posts/{number}")
