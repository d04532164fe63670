"""A page view: what a browser sends, how it is checked, and what is stored of it."""

from __future__ import annotations

import ipaddress
import re
from datetime import datetime
from typing import Annotated
from uuid import UUID

import msgspec
from msgspec import Meta

BODY_BYTES_MAX = 8_192
REFERRER_CHARS_MAX = 2_000
BROWSER_CHARS_MAX = 500
_NO_CONTROLS = r"^[^\x00-\x1f\x7f]*\Z"
_CONTROLS = re.compile(r"[\x00-\x1f\x7f]")

Page = Annotated[str, Meta(min_length=1, max_length=2_000, pattern=_NO_CONTROLS)]
Visitor = Annotated[str, Meta(min_length=1, max_length=64, pattern=_NO_CONTROLS)]


class Sent(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of `POST /t`. `event`: who sends again after a lost answer sends the same one, and is counted once."""

    page: Page
    visitor: Visitor
    referrer: str = ""
    event: UUID | None = None


class View(msgspec.Struct, frozen=True):
    """What is enqueued and stored."""

    page: str
    visitor: str
    referrer: str
    browser: str
    ip: str | None
    at: datetime


def read_body(body: bytes) -> Sent:
    """The checked body; raises msgspec.ValidationError or DecodeError (both MsgspecError), which say what is wrong."""
    return msgspec.json.decode(body, type=Sent)


def read_query(page: str, visitor: str, referrer: str) -> Sent:
    """The same from an image's query; raises as `read_body`."""
    return msgspec.convert({"page": page, "visitor": visitor, "referrer": referrer}, Sent)


def make_view(sent: Sent, *, browser: str, host: str | None, at: datetime) -> View:
    """What is stored: what is only of interest (the referrer, the browser's name) is cut rather than refused."""
    return View(
        page=sent.page,
        visitor=sent.visitor,
        referrer=_cleaned(sent.referrer, REFERRER_CHARS_MAX),
        browser=_cleaned(browser, BROWSER_CHARS_MAX),
        ip=_address(host),
        at=at,
    )


def _cleaned(text: str, most: int) -> str:
    return _CONTROLS.sub("", text[:most])


def _address(host: str | None) -> str | None:
    try:
        return str(ipaddress.ip_address(host)).partition("%")[0] if host else None
    except ValueError:
        return None
