"""Torture: real workers under every fault that can be made here, judged by an audit log, a ledger and the queue itself."""
