"""Tools to test with: a link to the server that can be made to fail. For tests of headrace, and of your own app."""

from headrace.testing.proxy import FaultProxy, Trap, runs

__all__ = ["FaultProxy", "Trap", "runs"]
