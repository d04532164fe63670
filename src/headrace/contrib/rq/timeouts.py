"""The exception a job sees when its time is up: headrace's own, under RQ's names."""

from headrace.errors import JobTimeout

BaseTimeoutException = JobTimeout
JobTimeoutException = JobTimeout

__all__ = ["BaseTimeoutException", "JobTimeoutException"]
