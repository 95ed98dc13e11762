"""Runs of ids on disk: what they tell, and what they do not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from xxhash import xxh3_64_intdigest

from headwater.event.position import EMPTY, Position, Vector, WriterId
from headwater.kit.errors import Broken
from headwater.process import idruns
from headwater.process.dedupe import MINUTE_NS, Ids, encode_ids
from headwater.process.idruns import About

BOTH = (0, 1)


def vector(seq: int, minute: int = 0) -> Vector:
    return Vector({WriterId(7): Position(1, seq)} if seq else {}, minute * MINUTE_NS)


def some(*minutes: int) -> Ids:
    numbers = np.arange(len(minutes), dtype=np.uint64)
    return numbers, numbers, np.array(minutes, np.uint32), np.zeros(len(minutes), np.uint16)


def chunk(first: int, last: int, *minutes: int, partitions: tuple[int, ...] = BOTH) -> bytes:
    """Commit [first, last), taken at the minute of its last event."""
    about = About(partitions, vector(first, first), vector(last, last))
    return idruns.encode(some(*minutes), about)


def folder(tmp_path: Path, *runs: bytes, name: str = "0") -> str:
    (tmp_path / name / "ids").mkdir(parents=True)
    for number, data in enumerate(runs):
        (tmp_path / name / "ids" / f"{number:016x}.run").write_bytes(data)
    return str(tmp_path / name)


def begins(below: idruns.Below | None) -> list[int]:
    assert below is not None
    return [c.about.origin[WriterId(7)].seq for c in below.chunks if c.about is not None]


def test_a_chunk_tells_its_ids_and_its_commit(tmp_path: Path) -> None:
    ids = some(3, 9, 4)
    (path,) = idruns.paths(folder(tmp_path, idruns.encode(ids, About((5,), vector(1), vector(4)))))
    (found,) = idruns.chunks(path)
    assert found.about == About((5,), vector(1), vector(4))
    assert (found.entries, found.first_minute, found.last_minute) == (3, 3, 9)
    read = idruns.read(found)
    assert read is not None and all((a == b).all() for a, b in zip(read, ids, strict=True))


def test_chunks_of_the_first_version_are_read_and_say_nothing_of_a_commit(tmp_path: Path) -> None:
    place = folder(tmp_path, encode_ids(some(3, 9)) + chunk(0, 2, 4))
    assert [c.about is None for path in idruns.paths(place) for c in idruns.chunks(path)] == [True, False]
    assert [c.entries for c in idruns.since(place)] == [2, 1]


def test_a_torn_tail_ends_a_run_and_the_next_one_goes_on(tmp_path: Path) -> None:
    whole = chunk(0, 1, 5) + chunk(1, 2, 5)
    for cut in range(len(chunk(0, 1, 5)), len(whole)):
        place = folder(tmp_path, whole[:cut], chunk(1, 2, 5) + chunk(2, 3, 5), name=str(cut))
        assert begins(idruns.below([place], BOTH, vector(3, 3), 1)) == [0, 1, 2]


def test_only_chunks_with_ids_of_the_window_are_given(tmp_path: Path) -> None:
    place = folder(tmp_path, chunk(0, 1, 5) + chunk(1, 2, 7, 8) + chunk(2, 3, 8))
    assert begins(idruns.below([place], BOTH, vector(3, 9), 8)) == [1, 2]
    assert [c.entries for c in idruns.since(place, 8)] == [2, 1]
    assert idruns.newest_minute(place) == 3, (
        "by the clock of their owner, which says less than the homes here"
    )


def test_a_commit_that_reaches_above_is_left_out(tmp_path: Path) -> None:
    place = folder(tmp_path, chunk(0, 2, 5, 5) + chunk(2, 4, 6, 6))
    below = idruns.below([place], BOTH, vector(3, 9), 1)
    assert begins(below) == [0] and below is not None and below.upto == vector(2, 2)


def test_a_gap_says_no_unless_it_lies_before_the_window(tmp_path: Path) -> None:
    place = folder(tmp_path, chunk(0, 1, 5) + chunk(2, 30, 29) + chunk(30, 31, 30))
    assert idruns.below([place], BOTH, vector(31, 31), 2) is None
    assert begins(idruns.below([place], BOTH, vector(31, 31), 3)) == [2, 30]


def test_a_run_whose_beginning_was_removed_says_no_where_ids_could_be_missing(tmp_path: Path) -> None:
    place = folder(tmp_path, chunk(10, 11, 10) + chunk(11, 12, 11))
    assert idruns.below([place], BOTH, vector(12, 12), 10) is None
    assert begins(idruns.below([place], BOTH, vector(12, 12), 11)) == [11]


def test_a_partition_of_which_nothing_is_known_says_no(tmp_path: Path) -> None:
    place = folder(tmp_path, chunk(0, 1, 5, partitions=(0,)))
    assert idruns.below([place], BOTH, vector(1, 1), 1) is None
    assert begins(idruns.below([place], (0,), vector(1, 1), 1)) == [0]


def test_partitions_of_several_processors_are_put_together(tmp_path: Path) -> None:
    first = folder(tmp_path, chunk(0, 2, 5, partitions=(0,)), name="0")
    second = folder(tmp_path, chunk(0, 1, 5, partitions=(1,)) + chunk(1, 3, 5, partitions=(1,)), name="1")
    below = idruns.below([first, second], BOTH, vector(2, 2), 1)
    assert begins(below) == [0, 0] and below is not None and below.upto == vector(1, 1)


def test_a_partition_that_moved_is_known_where_its_commits_go_on(tmp_path: Path) -> None:
    first = folder(tmp_path, chunk(0, 2, 5), name="0")
    second = folder(tmp_path, chunk(2, 3, 6), name="1")
    assert begins(idruns.below([first, second], BOTH, vector(3, 9), 1)) == [0, 2]


@pytest.mark.parametrize("at", [EMPTY, vector(0)])
def test_below_the_beginning_there_is_nothing(tmp_path: Path, at: Vector) -> None:
    place = folder(tmp_path, chunk(0, 2, 5))
    assert idruns.below([place], BOTH, at, 1) is None


def test_a_chunk_that_came_from_elsewhere_is_whole_and_makes_sense_or_is_refused() -> None:
    good = chunk(0, 2, 4, 5)
    found = idruns.checked(good)
    assert (found.entries, found.about) == (2, About(BOTH, vector(0, 0), vector(2, 2)))
    head = b"\x93\x01\x02\x03"
    fields = idruns.FIELDS.pack(idruns.FIELDS_MAGIC, 0, 0, 0, len(head), xxh3_64_intdigest(b""))
    nonsense = fields + idruns.HASH.pack(xxh3_64_intdigest(fields + head)) + head
    for wrong in (good[:-1], good + b"x", good[:-1] + b"x", b"", nonsense):
        with pytest.raises(Broken):
            idruns.checked(wrong)
