"""The notices there are: what each needs to be told, by which ways it goes, and whether a user can have no more of its category."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

CHANNELS = ("mail", "sms", "push")
VALUE_CHARS_MAX = 300
USER_CHARS_MAX = 60


class Kind(msgspec.Struct, frozen=True):
    """`fields`: the values its words need. Urgent ones overtake, also at night. `category`: what a user unsubscribes from."""

    fields: tuple[str, ...]
    channels: tuple[str, ...]
    category: str
    is_urgent: bool = False
    can_unsubscribe: bool = True


KINDS = {
    "login_code": Kind(("code",), ("sms", "push"), "security", is_urgent=True, can_unsubscribe=False),
    "order_shipped": Kind(("order", "carrier"), CHANNELS, "orders"),
    "weekly_offer": Kind(("product", "percent"), ("mail", "push"), "offers"),
    "report_ready": Kind(("report", "url"), ("mail", "push"), "reports"),
}


class Asked(msgspec.Struct, frozen=True):
    """A notice as somebody asks for it."""

    user: str
    kind: str
    values: dict[str, str]


def read_asked(user: str, kind: str, values: Mapping[str, str]) -> Asked:
    """Raises ValueError, which says what is wrong. Words that cannot be printed are refused: they end up in headers."""
    if not 0 < len(user) <= USER_CHARS_MAX or not user.isprintable():
        raise ValueError(f"user: expected 1 to {USER_CHARS_MAX} printable characters")
    if kind not in KINDS:
        raise ValueError(f"kind: expected one of {', '.join(KINDS)}")
    wanted = KINDS[kind].fields
    if set(values) != set(wanted):
        raise ValueError(f"values: {kind} needs {', '.join(wanted)}; got {', '.join(sorted(values)) or 'none'}")
    for name, value in values.items():
        if not 0 < len(value) <= VALUE_CHARS_MAX or not value.isprintable():
            raise ValueError(f"{name}: expected 1 to {VALUE_CHARS_MAX} printable characters")
    if "url" in values and not values["url"].startswith(("http://", "https://")):
        raise ValueError("url: expected http:// or https://")
    return Asked(user, kind, dict(sorted(values.items())))
