"""`rq.rate_limit`: how many jobs of one key may run at once. It becomes a Limit of headrace's."""

from __future__ import annotations

from headrace.core.ties import Limit


class RateLimit:
    """At most `concurrency` jobs with this key run at once, of those in one queue; the others wait in order.

    Raises:
        ValueError: an empty key, or a concurrency below 1.
    """

    def __init__(self, key: str, concurrency: int) -> None:
        if not key:
            raise ValueError("key must not be empty")
        if not isinstance(concurrency, int) or isinstance(concurrency, bool) or concurrency < 1:
            raise ValueError(f"concurrency must be an integer of at least 1, got {concurrency!r:.40}")
        self.key = key
        self.concurrency = concurrency


def limit_of(key: str, concurrency: int) -> Limit:
    """As headrace has it; braces in a key stand for themselves."""
    return Limit(key.replace("{", "{{").replace("}", "}}"), concurrency=concurrency)
