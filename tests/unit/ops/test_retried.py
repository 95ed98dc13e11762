"""Which letters were retried: noted before, confirmed after, and never forgotten by a retry that failed."""

from headwater.kit.disk import SystemDisk
from headwater.ops.retried import Retried, Retry

A, B = ("w", "l", 1, 0), ("w", "l", 2, 0)


def test_reading_makes_no_file(tmp_path):
    assert Retried(SystemDisk(), str(tmp_path)).of([A]) == {}
    assert list(tmp_path.iterdir()) == []


def test_a_letter_that_was_begun_and_not_confirmed_has_no_receipt(tmp_path):
    retried = Retried(SystemDisk(), str(tmp_path))
    retried.begin([A, B], "noon")
    retried.done({A: "r-1"})
    assert Retried(SystemDisk(), str(tmp_path)).of([A, B]) == {A: Retry("noon", "r-1"), B: Retry("noon", "")}


def test_what_was_not_sent_is_as_it_was_before(tmp_path):
    retried = Retried(SystemDisk(), str(tmp_path))
    retried.begin([A], "noon")
    retried.done({A: "r-1"})
    before = retried.of([A, B])
    retried.begin([A, B], "later")
    retried.undo([A, B], before)
    assert retried.of([A, B]) == {A: Retry("noon", "r-1")}


def test_the_oldest_go_when_there_are_too_many(tmp_path, monkeypatch):
    monkeypatch.setattr("headwater.ops.retried.KEPT_MAX", 2)
    retried = Retried(SystemDisk(), str(tmp_path))
    for number in range(4):
        retried.begin([("w", "l", number, 0)], f"at {number}")
    assert [key[2] for key in retried.of([("w", "l", number, 0) for number in range(4)])] == [2, 3]
