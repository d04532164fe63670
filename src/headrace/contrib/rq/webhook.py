"""`rq.webhook`: an HTTP request that tells somebody of a job's end. The worker sends it as the job ends."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

if TYPE_CHECKING:
    from headrace.contrib.rq.job import Job

logger = logging.getLogger("rq.webhook")


@dataclass
class Webhook:
    """Tell `url` that a job has "finished" or has "failed" for good. It is sent once; what goes wrong is logged, and changes nothing.

    Args:
        method: "GET", or "POST" with a JSON body: job_id, func_name, status, enqueued_at, ended_at, and exc_info of a failed one.
        timeout: in seconds.

    Raises:
        ValueError, TypeError: naming what is wrong.
    """

    url: str
    job_status: Literal["finished", "failed"]
    method: Literal["GET", "POST"]
    headers: dict[str, str] | None
    timeout: int

    def __init__(
        self,
        url: str,
        job_status: Literal["finished", "failed"],
        *,
        method: Literal["GET", "POST"] = "GET",
        headers: dict[str, str] | None = None,
        timeout: int = 10,
    ) -> None:
        parts = urlsplit(url) if isinstance(url, str) else None
        if parts is None or parts.scheme not in ("http", "https") or not parts.netloc:
            raise ValueError(f"url must be an http:// or https:// URL, got {url!r:.100}")
        if job_status not in ("finished", "failed"):
            raise ValueError(f"job_status must be 'finished' or 'failed', got {job_status!r:.40}")
        if method not in ("GET", "POST"):
            raise ValueError(f"method must be 'GET' or 'POST', got {method!r:.40}")
        if headers is not None and not isinstance(headers, dict):
            raise TypeError(f"headers must be a dict or None, got {type(headers).__name__}")
        if not isinstance(timeout, int) or isinstance(timeout, bool) or timeout <= 0:
            raise ValueError(f"timeout must be a positive integer, got {timeout!r:.40}")
        self.url = url
        self.job_status = job_status
        self.method = method
        self.headers = headers
        self.timeout = timeout

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Webhook:
        others = {name: data[name] for name in ("method", "headers", "timeout") if name in data}
        return cls(data["url"], data["job_status"], **others)

    def get_payload(self, job: Job, *, exc_string: str | None = None) -> dict[str, Any]:
        """What a POST carries."""
        told = {
            "job_id": job.id,
            "func_name": job.func_name,
            "status": self.job_status,
            "enqueued_at": job.enqueued_at.isoformat() if job.enqueued_at else None,
            "ended_at": job.ended_at.isoformat() if job.ended_at else None,
        }
        return {**told, "exc_info": exc_string} if self.job_status == "failed" else told

    def send(self, job: Job, *, exc_string: str | None = None) -> None:
        """Send the request. What goes wrong is logged."""
        headers, body = dict(self.headers or {}), None
        if self.method == "POST":
            body = json.dumps(self.get_payload(job, exc_string=exc_string)).encode()
            headers = {"Content-Type": "application/json", **headers}
        try:
            with urlopen(Request(self.url, body, headers, method=self.method), timeout=self.timeout):
                pass
        except Exception:  # whatever the other side does, the job has ended as it did
            logger.warning("the webhook %s of job %s could not be sent", self.url, job.id, exc_info=True)
