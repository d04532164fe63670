"""The same application without its log: what the load test compares with."""

from __future__ import annotations

from systems.activity.web import make_web

web = make_web(has_log=False)
