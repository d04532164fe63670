"""The queues of the field; apart from the tasks, which read their environment when they are imported."""

QUEUES = ("high", "default", "low")
