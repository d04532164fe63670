"""What takes notices to users: a mail server by SMTP, and two HTTP services, one for SMS, one for push.

Each call either returns the provider's reference, or raises what to do next: `Busy`, `Away`, `Failed` or `Rejected`. `key` is the same
however often a notice is sent: the HTTP services deliver a key once; a mail server gets it as Message-ID, and may deliver it twice.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import parsedate_to_datetime
from urllib.parse import unquote, urlsplit

import aiosmtplib
import httpx

SERVICES = "NOTIFICATION_SERVICES"
MAIL_SERVER = "NOTIFICATION_SMTP"
ANSWERS_WITHIN_S = 10.0
RETRY_AFTER_MAX_S = 3600.0


class Busy(Exception):
    """It takes no more for so long: 429 with Retry-After."""

    def __init__(self, after_s: float) -> None:
        super().__init__(f"it takes nothing for {after_s:g} s")
        self.after_s = after_s


class Away(Exception):
    """It does not answer, or is not itself: no notice can be sent."""


class Failed(Exception):
    """It could not send this one now."""


class Rejected(Exception):
    """It will never send this one."""


async def send_to_service(http: httpx.AsyncClient, service: str, to: str, text: str, key: str) -> str:
    """`service`: sms or push."""
    base = os.environ.get(SERVICES)
    if not base:
        raise RuntimeError(f"set {SERVICES} to the URL of the services for SMS and push")
    sent = {"to": to, "text": text}
    try:
        answer = await http.post(f"{base}/{service}", json=sent, headers={"Idempotency-Key": key})
    except httpx.TransportError as error:
        raise Away(str(error) or type(error).__name__) from error
    if answer.is_success:
        return str(answer.json()["id"])
    said = f"{answer.status_code}: {answer.text[:200]}"
    if answer.status_code == 429:
        raise Busy(read_retry_after(answer.headers.get("Retry-After", ""), datetime.now(UTC)))
    if answer.status_code in (502, 503, 504):
        raise Away(said)
    if answer.is_server_error or answer.status_code in (408, 409, 425):
        raise Failed(said)
    raise Rejected(said)


def read_retry_after(value: str, now: datetime) -> float:
    """Seconds, or a date (RFC 9110); 1 s when it is neither. At most an hour: then we ask again."""
    try:
        seconds = float(value) if value.strip().isdigit() else (parsedate_to_datetime(value) - now).total_seconds()
    except ValueError:
        seconds = 1.0
    return min(max(seconds, 0.1), RETRY_AFTER_MAX_S)


async def send_mail(message: EmailMessage) -> str:
    """To whom it says, by the server of $NOTIFICATION_SMTP: smtp://USER:PASSWORD@HOST:PORT, with TLS where it offers it."""
    parts = urlsplit(os.environ.get(MAIL_SERVER, ""))
    if parts.scheme != "smtp" or not parts.hostname:
        raise RuntimeError(f"set {MAIL_SERVER} to smtp://HOST:PORT")
    try:
        _, said = await aiosmtplib.send(
            message.as_bytes(),  # as its own policy has it
            sender=message["From"],
            recipients=[message["To"]],
            hostname=parts.hostname,
            port=parts.port or 587,
            username=unquote(parts.username) if parts.username else None,
            password=unquote(parts.password) if parts.password else None,
            timeout=ANSWERS_WITHIN_S,
        )
    except aiosmtplib.SMTPRecipientsRefused as error:
        refused = error.recipients[0]
        raise (Rejected if refused.code >= 500 else Failed)(f"{refused.code}: {refused.message}") from error
    except aiosmtplib.SMTPResponseException as error:
        if error.code == 421:
            raise Away(f"421: {error.message}") from error
        raise (Rejected if error.code >= 500 else Failed)(f"{error.code}: {error.message}") from error
    except (aiosmtplib.SMTPException, OSError) as error:
        raise Away(str(error) or type(error).__name__) from error
    return said[:200]
