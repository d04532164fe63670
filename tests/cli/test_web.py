"""`headrace web`: who may reach it, and with what password."""

from __future__ import annotations

import base64
import subprocess
import sys

import pytest
from starlette.requests import Request

from headrace.errors import UsageError
from headrace.web.access import Access, Passwords, Right, hash_password


def run(*args: str, typed: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "headrace", "web", "--url", "redis://127.0.0.1:1/0", *args]
    return subprocess.run(command, input=typed, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])
def test_a_public_host_without_users_is_refused(host):
    """Exit code 4, before anything listens, with what to do."""
    done = run("--host", host)
    assert done.returncode == 4
    assert "--auth" in done.stderr
    assert done.stdout == ""


def test_a_hash_is_printed_for_a_typed_password():
    """It is no password, and another each time; it lets in who knows the password."""
    done = run("--hash-password", typed="open sesame\n")
    assert done.returncode == 0, done.stderr
    known = Passwords([f"ann:{done.stdout.strip()}"])
    assert known(asking("ann:open sesame")) == Access.all("ann")
    assert "open" not in done.stdout


def test_only_a_known_user_with_the_right_password_has_rights():
    """A wrong password, an unknown name, a broken header: none. Asked again, the answer is the same."""
    known = Passwords([f"ann:{hash_password('right')}"])
    for _ in range(2):
        for words in ("ann:wrong", "bob:right", "ann:", "ann", ":"):
            assert known(asking(words)) == Access.none()
        assert known(asking("ann:right")).may(Right.PURGE_QUEUES)
    assert known(Request({"type": "http", "headers": []})) == Access.none()
    assert known(Request({"type": "http", "headers": [(b"authorization", b"Basic \xff!")]})) == Access.none()


def test_a_user_without_a_hash_is_told_how_to_make_one():
    """Not taken for a password."""
    for pair in ("ann", "ann:secret", ":00$00", "ann:zz$zz"):
        with pytest.raises(UsageError, match="hash-password"):
            Passwords([pair])


def asking(words: str) -> Request:
    token = base64.b64encode(words.encode())
    return Request({"type": "http", "headers": [(b"authorization", b"Basic " + token)]})
