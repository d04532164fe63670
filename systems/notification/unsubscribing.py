"""Links that unsubscribe without a login: signed, so nobody can unsubscribe somebody else by guessing."""

from __future__ import annotations

import os

import msgspec
from itsdangerous import BadSignature, URLSafeSerializer

SECRET = "NOTIFICATION_SECRET"
PUBLIC_URL = "NOTIFICATION_URL"


class Subscription(msgspec.Struct, frozen=True):
    user: str
    category: str


def make_link(subscription: Subscription) -> str:
    base = os.environ.get(PUBLIC_URL)
    if not base:
        raise RuntimeError(f"set {PUBLIC_URL} to where users reach this system: mail has links to it")
    return f"{base.rstrip('/')}/unsubscribe/{_signer().dumps([subscription.user, subscription.category])}"


def read_token(token: str) -> Subscription | None:
    """None for one that we have not signed."""
    try:
        return Subscription(*_signer().loads(token))
    except BadSignature:
        return None


def _signer() -> URLSafeSerializer:
    secret = os.environ.get(SECRET)
    if not secret:
        raise RuntimeError(f"set {SECRET} to a long random text, the same for the web server and the workers")
    return URLSafeSerializer(secret, salt="unsubscribe")
