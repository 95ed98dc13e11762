"""What a sink refuses, and what it gives back."""

from __future__ import annotations

import numpy as np
import pytest

from headwater.event.position import EMPTY, Vector
from headwater.kit.errors import Broken
from headwater.kit.simulate.disk import SimDisk
from headwater.node.standby import entries, sink
from headwater.node.standby.entries import Base, Delta, Seen
from headwater.node.standby.sink import Sink
from headwater.process import idruns, state
from headwater.process.dedupe import encode_ids
from headwater.process.idruns import About
from tests.unit.node.standby.world import FOLDER, vector


def chunk(origin: Vector, target: Vector, *minutes: int) -> bytes:
    count = len(minutes)
    ids = np.arange(count, dtype=np.uint64), np.arange(count, dtype=np.uint64)
    found = *ids, np.array(minutes, np.uint32), np.zeros(count, np.uint16)
    return idruns.encode(found, About((0,), origin, target))


def delta(origin: Vector, target: Vector, *minutes: int) -> Delta:
    return Delta(chunk(origin, target, *minutes), {"web": {0: [len(minutes), 0, 0, 0, 0, 0, 0]}}, (1, 1), 1)


def base(at: Vector) -> Base:
    return Base([(at.encode(), [0])], {"web": {0: [9, 0, 0, 0, 0, 0, 0]}}, (2, 2), 1)


@pytest.fixture
def disk() -> SimDisk:
    return SimDisk()


def opened(disk: SimDisk, window_minutes: int = 60) -> Sink:
    return Sink(disk.process("standby"), FOLDER, window_minutes=window_minutes)


def runs(disk: SimDisk) -> list[list[int]]:
    view = disk.process("reader")
    return [[c.last_minute for c in idruns.chunks(path, view)] for path in idruns.paths(FOLDER, view)]


def test_a_delta_that_does_not_begin_where_it_stands_is_refused_and_changes_nothing(disk: SimDisk) -> None:
    kept = opened(disk)
    kept.take(delta(EMPTY, vector(5, 5), 1))
    for wrong in (delta(EMPTY, vector(9, 9), 1), delta(vector(6, 5), vector(9, 9), 1)):
        with pytest.raises(Broken) as refused:
            kept.take(wrong)
        assert refused.value.code == "standby_gap"
    kept.save()
    assert kept.synced == {0: vector(5, 5)} and runs(disk) == [[1]]


@pytest.mark.parametrize("at", [0, 20, 40, 60, -1])
def test_ids_that_are_damaged_on_their_way_are_refused(disk: SimDisk, at: int) -> None:
    data = bytearray(chunk(EMPTY, vector(5, 5), 1, 2))
    data[at] ^= 1
    for entry in (Seen(bytes(data)), Delta(bytes(data), {}, (1, 1), 1), Seen(bytes(data[:-1])), Seen(b"")):
        with pytest.raises(Broken, match="damaged"):
            opened(disk).take(entry)


def test_ids_that_do_not_say_whose_they_are_are_refused(disk: SimDisk) -> None:
    one = np.zeros(1, np.uint64), np.zeros(1, np.uint64), np.zeros(1, np.uint32), np.zeros(1, np.uint16)
    with pytest.raises(Broken, match="whose"):
        opened(disk).take(Seen(idruns.encode(one, None)))
    with pytest.raises(Broken, match="damaged"):
        opened(disk).take(Seen(encode_ids(one)))


def test_a_fold_that_cannot_be_read_is_told_and_begun_anew(disk: SimDisk) -> None:
    first = opened(disk)
    first.take(delta(EMPTY, vector(5, 5), 1))
    first.save()
    view = disk.process("rot")
    view.pwrite(view.open(f"{FOLDER}/fold", write=True), b"\xff", 0)
    again = opened(disk)
    assert "cannot be read" in again.trouble and again.known([0]) == sink.nothing()
    again.take(base(vector(5, 5)))
    again.save()
    assert opened(disk).trouble == "" and opened(disk).synced == {0: vector(5, 5)}


def test_memory_is_bounded_whatever_comes_between_two_saves(
    disk: SimDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sink, "PENDING_BYTES", 500)
    kept = opened(disk)
    for number in range(50):
        kept.take(Seen(chunk(vector(number, 0), vector(number + 1, 0), 1)))
        assert sum(map(len, kept.pending)) <= 500
    kept.take(base(vector(50, 0)))
    kept.save()
    assert sum(map(len, runs(disk))) == 50


def test_runs_beyond_the_window_are_removed(disk: SimDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idruns, "RUN_BYTES", 100)
    kept = opened(disk)
    at = EMPTY
    for minute in range(10, 200, 10):
        kept.take(delta(at, vector(minute, 0), minute))
        at = vector(minute, 0)
        kept.save()
    assert min(m for run in runs(disk) for m in run) == 190 - 60  # 65 minutes, whole runs
    assert kept.synced == {0: vector(190, 0)}


def test_runs_that_a_base_replaces_are_removed_when_nobody_reads_them_any_more(
    disk: SimDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(idruns, "RUN_BYTES", 1)
    kept = opened(disk)
    kept.take(delta(EMPTY, vector(5, 5), 10))
    kept.take(delta(vector(5, 5), vector(6, 6), 11))
    kept.save()
    kept.take(Seen(chunk(EMPTY, vector(9, 9), 11)))
    kept.take(base(vector(9, 9)))
    kept.save()
    assert runs(disk) == [[10, 11], [11]]
    kept.take(delta(vector(9, 9), vector(10, 10), 17))
    kept.save()
    assert runs(disk) == [[11], [17]]


def test_a_base_of_some_partitions_leaves_the_others_as_they_are(disk: SimDisk) -> None:
    kept = opened(disk)
    other = Base([(vector(7, 7).encode(), [1])], {"web": {1: [3, 0, 0, 0, 0, 0, 0]}}, (1, 1), 1)
    kept.take(delta(EMPTY, vector(5, 5), 100))
    kept.take(other)
    kept.save()
    fold = state.load(disk.process("reader"), FOLDER)
    assert fold.vectors == {0: vector(5, 5), 1: vector(7, 7)}
    assert (fold.events_in(0), fold.events_in(1)) == (1, 3)
    assert runs(disk) == [[100]] and not kept.replaced
    assert kept.known([0]).standing == entries.standing(fold.vectors, [0])
