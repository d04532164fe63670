"""The board: what one process writes, another reads, also after the writer is dead."""

import os
import signal

import pytest

from headrace.worker.board import BATCH_BYTES, Board, Exit, session_id


def test_what_a_child_writes_is_read_by_the_supervisor_after_its_death():
    """SIGKILL leaves the numbers and the batch on the board."""
    board = Board.create(2, 3)
    pid = os.fork()
    if pid == 0:
        own = Board.attach(board.fd, 2, 3)
        slot = own.slot(1, 2)
        slot.set_batch([("high", ["a"]), ("low", ["b:1"])], 77)
        slot.start(5_000, 70)
        slot.start(6_000, 78)
        own.child(1).exit_reason = Exit.RECYCLE
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    slot = board.slot(1, 2)
    assert slot.batch() == [("high", "a"), ("low", "b:1")]
    assert slot.running() == ("low", "b:1")
    assert slot.running_id() == "b:1"
    assert (slot.batch_started_ns, slot.started_ns, slot.timeout_ms) == (77, 78, 6_000)
    assert board.child(1).exit_reason == Exit.RECYCLE


def test_rows_do_not_overlap():
    """Every cell and every batch of every row keeps what was written to it."""
    board = Board.create(3, 2)
    for c in range(3):
        board.child(c).pid = 100 + c
        for s in range(2):
            board.slot(c, s).epoch = 10 * c + s + 1
            board.slot(c, s).set_batch([("q", [f"{c}-{s}"])], 0)
    for c in range(3):
        assert board.child(c).pid == 100 + c
        assert [slot.epoch for slot in board.slots_of(c)] == [10 * c + 1, 10 * c + 2]
        assert [slot.batch_ids() for slot in board.slots_of(c)] == [[f"{c}-0"], [f"{c}-1"]]


def test_a_new_batch_has_nothing_running_and_no_revocation():
    """What was said of the old batch never holds for the new one."""
    slot = Board.create(1, 1).slot(0, 0)
    slot.set_batch([("q", ["a", "b"])], 1)
    slot.start(0, 2)
    slot.start(0, 3)
    old = slot.batch_serial
    slot.revoke(old)
    assert slot.is_revoked
    slot.set_batch([("q", ["c"])], 2)
    assert (slot.index, slot.is_running, slot.is_revoked, slot.count) == (-1, False, False, 1)
    assert slot.running() is None
    slot.revoke(old)  # a supervisor that was slow
    assert not slot.is_revoked


def test_a_half_written_batch_reads_as_empty():
    """A child killed while it writes its batch is blamed for nothing."""
    slot = Board.create(1, 1).slot(0, 0)
    slot.set_batch([("q", ["a"])], 1)
    slot.start(0, 2)
    slot.batch_serial += 1
    assert slot.batch() == []
    assert slot.running() is None


def test_the_longest_batch_fits_and_a_longer_one_is_refused():
    """1,000 jobs of the longest queue and job names."""
    slot = Board.create(1, 1).slot(0, 0)
    parts = [("q" * 100, ["i" * 128])] * 1000
    slot.set_batch(parts, 1)
    assert slot.batch() == [("q" * 100, "i" * 128)] * 1000
    with pytest.raises(ValueError, match=str(BATCH_BYTES)):
        slot.set_batch(parts * 2, 1)


def test_jobs_of_several_queues_are_read_in_run_order():
    slot = Board.create(1, 1).slot(0, 0)
    slot.set_batch([("high", ["a", "b"]), ("low", ["c"])], 1)
    assert slot.batch() == [("high", "a"), ("high", "b"), ("low", "c")]


def test_a_reset_row_remembers_nothing_of_the_child_before():
    """A respawned child begins with an empty row and its own spawn id."""
    board = Board.create(1, 1)
    board.child(0).stopping = 1
    board.slot(0, 0).epoch = 4
    board.child(0).reset(8)
    board.slot(0, 0).reset()
    assert (board.child(0).stopping, board.child(0).spawn_id, board.slot(0, 0).epoch) == (0, 8, 0)


def test_session_names_tell_child_slot_generation_and_epoch_apart():
    """Eleven and one-one are not the same."""
    assert session_id("w", 1, 1, 1, 11) == "w.1.1.1.11"
    assert session_id("w", 1, 1, 11, 1) != session_id("w", 1, 1, 1, 11)
