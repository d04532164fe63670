"""A notice as a mail: text and HTML, and the two headers of one-click unsubscribing (RFC 2369, RFC 8058)."""

from __future__ import annotations

import hashlib
import re
from datetime import datetime
from email.message import EmailMessage
from email.policy import EmailPolicy
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from systems.notification.wording import Wording
from systems.notification.words import words

SENDER = "notices@example.com"
_pages = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"), undefined=StrictUndefined, autoescape=True
)


class LinkOnOneLine(EmailPolicy):
    """The usual rules would fold a long link, or write it as an encoded word, which not every mailbox puts together again."""

    def fold_binary(self, name: str, value: Any) -> bytes:
        if name == "List-Unsubscribe":
            return f"{name}: {value}{self.linesep}".encode("ascii")
        return super().fold_binary(name, value)


def make_mail(
    wording: Wording, *, to: str, name: str, language: str, key: str, at: datetime, unsubscribe: str | None
) -> EmailMessage:
    """`unsubscribe`: the link; None for what nobody can unsubscribe from."""
    t = words(language)
    message = EmailMessage(policy=LinkOnOneLine(linesep="\r\n"))
    message["From"] = SENDER
    message["To"] = to
    message["Subject"] = wording.subject
    message["Date"] = at
    message["Message-ID"] = f"<{message_id(key)}>"
    message["Auto-Submitted"] = "auto-generated"
    text = f"{t['dear']} {name},\n\n{wording.text}\n"
    if unsubscribe is not None:
        message["List-Unsubscribe"] = f"<{unsubscribe}>"
        message["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"
        text += f"\n-- \n{t['no_more']}: {unsubscribe}\n"
    message.set_content(text, cte="quoted-printable")
    shown = {"t": t, "name": name, "paragraphs": re.split(r"\n\s*\n", wording.text), "unsubscribe": unsubscribe}
    message.add_alternative(_pages.get_template("mail.html").render(shown), subtype="html", cte="quoted-printable")
    return message


def message_id(key: str) -> str:
    """The same for the same notice, so that mailboxes, and whoever counts, see a second copy as one."""
    return f"{hashlib.blake2b(key.encode(), digest_size=16).hexdigest()}@{SENDER.partition('@')[2]}"
