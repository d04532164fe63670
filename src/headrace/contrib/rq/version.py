"""`rq.version`: the version of RQ whose names this layer has."""

VERSION = "3.0.0"
