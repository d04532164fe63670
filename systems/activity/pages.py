"""Pages in the language of who asks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import Request
from fastapi.responses import Response
from fastapi.templating import Jinja2Templates

from systems.activity.search import ZONE
from systems.activity.words import LANGUAGES, WORDS, choose

COOKIE = "activity_lang"
templates = Jinja2Templates(Path(__file__).parent / "templates")
templates.env.filters["local"] = lambda at: at.astimezone(ZONE).strftime("%d/%m/%Y %H:%M:%S")


def page(request: Request, name: str, *, status: int = 200, **values: Any) -> Response:
    asked = request.query_params.get("lang")
    language = choose(asked, request.cookies.get(COOKIE), request.headers.get("accept-language", ""))
    given = {
        "t": WORDS[language],
        "lang": language,
        "other": next(each for each in LANGUAGES if each != language),
        "root": request.scope.get("root_path", ""),
        **values,
    }
    answer = templates.TemplateResponse(request, name, given, status_code=status)
    if asked in WORDS:
        answer.set_cookie(COOKIE, language, max_age=365 * 86_400, samesite="lax")
    return answer
