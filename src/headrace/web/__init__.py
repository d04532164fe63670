"""The dashboard: pages that show queues, jobs and workers, and let operators act; an ASGI app to mount or to run alone."""

from headrace.web.access import Access, Right
from headrace.web.site import dashboard

__all__ = ["Access", "Right", "dashboard"]
