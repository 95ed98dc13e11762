"""Whose state a processor goes on from, and which ids it may believe (protocol.md §7)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.event.commit import COUNTERS
from headwater.event.position import EMPTY, Position, Vector, WriterId
from headwater.kit.disk import SystemDisk
from headwater.kit.errors import Broken
from headwater.process import idruns, state
from headwater.process.dedupe import Ids, Seen, encode_ids
from headwater.process.idruns import About, Runs
from headwater.process.state import Fold, StateStore, furthest, merge, parts_below
from headwater.process.takeover import candidates, standby_folder, standby_of

DISK = SystemDisk()
NODE = "aaaaaaaaaaaa0000"
ONE, TWO = WriterId(0xA0000), WriterId(0xB0000)


def at(one: int, two: int = 0) -> Vector:
    return Vector({ONE: Position(1, one), TWO: Position(1, two)}, clock=one + two)


def ids(*numbers: int, partition: int = 0) -> Ids:
    count = len(numbers)
    return (
        np.zeros(count, np.uint64),
        np.array(numbers, np.uint64),
        np.full(count, 7, np.uint32),
        np.full(count, partition, np.uint16),
    )


def fold(vectors: Mapping[int, Vector], events: int = 0) -> Fold:
    counts = {p: [events] + [0] * (len(COUNTERS) - 1) for p in vectors}
    return Fold(vectors=dict(vectors), counters={"web": counts})


def kept(path: Path, told: Fold, *chunks: bytes) -> str:
    """A folder of state."""
    folder = str(path)
    runs = Runs(DISK, folder)
    runs.append(b"".join(chunks))
    runs.close()
    state.save(DISK, folder, told)
    return folder


def numbers(folder: str, told: Fold, base: Mapping[int, Vector]) -> list[int]:
    return sorted(n for part in parts_below(folder, told, base) for n in part.ids[1].tolist())


def first_copies(
    folder: str, told: Fold, base: Mapping[int, Vector], *run: int, rule: bool = True
) -> list[int]:
    """Which events of those that are run from the base on make a row."""
    seen = Seen(partitions=4, memory_bytes=1 << 20, window_s=3600)
    if rule:
        for part in parts_below(folder, told, base):
            seen.remember(part.ids)
    else:
        for chunk in idruns.since(folder):
            found = idruns.read(chunk)
            assert found is not None
            seen.remember(found)
    return [n for n, fresh in zip(run, seen.add(*ids(*run)).tolist(), strict=True) if fresh]


# -- which ids count ---------------------------------------------------------------------------------------------------


def fork(tmp_path: Path) -> tuple[str, Fold]:
    """This node's own state: it went on with partition 0 from 10 to 20 when another node had taken it over at 10."""
    told = fold({0: at(20)})
    runs = (About((0,), EMPTY, at(10)), ids(1, 9)), (About((0,), at(10), at(20)), ids(11, 19))
    return kept(tmp_path / "state", told, *(idruns.encode(i, about) for about, i in runs)), told


def test_inv_state_ids_of_another_folder_count_below_the_base_only(tmp_path: Path) -> None:
    folder, told = fork(tmp_path)
    base = {0: at(10, 30)}
    assert numbers(folder, told, base) == [1, 9]
    assert first_copies(folder, told, base, 9, 11, 19) == [11, 19]


@pytest.mark.broken_variant
def test_inv_state_ids_above_the_base_would_lose_their_events(tmp_path: Path) -> None:
    folder, told = fork(tmp_path)
    assert first_copies(folder, told, {0: at(10, 30)}, 9, 11, 19, rule=False) == []


def test_inv_state_ids_that_were_left_beside_the_chain_count_when_the_chain_has_passed_them(
    tmp_path: Path,
) -> None:
    folder, told = fork(tmp_path)
    assert numbers(folder, told, {0: at(20, 30)}) == [1, 9, 11, 19]


def test_inv_state_of_a_commit_of_several_partitions_those_count_whose_base_covers_it(tmp_path: Path) -> None:
    both = tuple(np.concatenate(pair) for pair in zip(ids(1), ids(2, partition=1), strict=True))
    told = fold({0: at(10), 1: at(10)})
    folder = kept(tmp_path / "state", told, idruns.encode(both, About((0, 1), EMPTY, at(10))))  # type: ignore[arg-type]
    assert numbers(folder, told, {0: at(10), 1: at(5)}) == [1]
    assert numbers(folder, told, {1: at(10)}) == [2]
    (part,) = parts_below(folder, told, {1: at(12)})
    assert part.about == About((1,), EMPTY, at(10))


def test_inv_state_ids_without_a_name_count_where_their_folder_stands_at_or_below_the_base(
    tmp_path: Path,
) -> None:
    told = fold({0: at(10)})
    folder = kept(tmp_path / "state", told, encode_ids(ids(1)), encode_ids(ids(2, partition=1)))
    assert numbers(folder, told, {0: at(10), 1: at(50)}) == [1]
    assert numbers(folder, told, {0: at(9, 9)}) == []


def test_inv_state_ids_that_were_taken_over_keep_the_name_of_their_commit(tmp_path: Path) -> None:
    """A partition came to us at 10, and comes back later at 5: what was taken over with it must not count then."""
    store = StateStore(DISK, str(tmp_path), dead_letters_max=1)
    store.take_over(ids(7), About((0,), at(5), at(10)))
    told = fold({0: at(10)})
    store.save(told)
    store.close()
    assert numbers(str(tmp_path), told, {0: at(10)}) == [7]
    assert numbers(str(tmp_path), told, {0: at(5)}) == []


def test_ids_before_the_minute_are_left_out_and_commits_without_ids_are_told(tmp_path: Path) -> None:
    chunks = [
        idruns.encode(ids(1), About((0,), EMPTY, at(5))),
        idruns.encode(ids(), About((0,), at(5), at(6))),
    ]
    told = fold({0: at(6)})
    folder = kept(tmp_path / "state", told, *chunks)
    assert [len(p.ids[0]) for p in parts_below(folder, told, told.vectors, 7)] == [1, 0]
    assert [len(p.ids[0]) for p in parts_below(folder, told, told.vectors, 8)] == [0]


# -- which state counts ------------------------------------------------------------------------------------------------


@given(
    st.permutations(
        [fold({0: at(10)}, 10), fold({0: at(4, 9)}, 13), fold({0: at(4)}, 4), fold({1: at(99)}, 99)]
    )
)
def test_of_states_beside_each_other_the_one_that_counted_most_is_chosen_in_any_order(
    folds: list[Fold],
) -> None:
    chosen = merge(folds, [0, 2])
    assert chosen.vectors == {0: at(4, 9), 2: EMPTY}
    assert chosen.counters["web"] == {0: [13] + [0] * (len(COUNTERS) - 1)}


def test_the_furthest_state_is_chosen_though_another_counted_more() -> None:
    behind, ahead = fold({0: at(4)}, 40), fold({0: at(5)}, 5)
    assert furthest([ahead, behind], 0) is ahead


@given(st.permutations([fold({0: at(3, 1)}, 4), fold({0: at(1, 3)}, 4)]))
def test_equal_counts_are_decided_by_the_vectors_bytes(folds: list[Fold]) -> None:
    assert furthest(folds, 0).vectors == {0: at(3, 1)}


# -- what there is to choose from --------------------------------------------------------------------------------------


def node(tmp_path: Path) -> str:
    for name in ("state", "ready"):
        (tmp_path / name).mkdir()
    kept(tmp_path / "state" / "1", fold({0: at(1), 1: at(2)}))
    kept(tmp_path / "state" / "4", fold({0: at(3)}))
    (tmp_path / "ready" / "2").mkdir()
    (tmp_path / "state" / "deliver-a").mkdir()
    return str(tmp_path)


def standby(data: str) -> list[str]:
    path = f"{data}/standby"
    return [f"{path}/{name}" for name in DISK.listdir(path)] if DISK.exists(path) else []


def test_candidates_are_the_own_folder_those_of_other_processors_and_those_of_standbys(
    tmp_path: Path,
) -> None:
    data = node(tmp_path)
    told = fold({0: at(9), 3: at(9)})
    told.config_epoch, told.ready = 77, Position(5, 5)
    folder = kept(Path(standby_folder(data, NODE, 0)), told)
    kept(Path(standby_folder(data, NODE, 1)), fold({2: at(9)}))  # nothing of ours
    found = candidates(DISK, data, [0, 1], 1, standby(data))
    assert [(c.folder, c.number) for c in found.candidates] == [
        (f"{data}/state/1", 1), (f"{data}/state/2", 2), (f"{data}/state/4", 4), (folder, None),
    ]  # fmt: skip
    assert found.unreadable == []
    last = found.candidates[-1].fold  # of the other node's starts and ready log it says nothing here
    assert (last.vectors, last.config_epoch, last.ready) == ({0: at(9)}, 0, (0, 0))


def test_a_standby_folder_that_cannot_be_read_is_passed_over_and_told(tmp_path: Path) -> None:
    data = node(tmp_path)
    good = kept(Path(standby_folder(data, NODE, 0)), fold({0: at(9)}))
    for number, spoilt in enumerate((b"", b"\xff" * 50, (Path(good) / "fold").read_bytes()[:-3]), start=1):
        folder = Path(kept(Path(standby_folder(data, NODE, number)), fold({0: at(99)})))
        (folder / "fold").write_bytes(spoilt)
    Path(f"{data}/standby/{NODE}-7.gone").mkdir()
    found = candidates(DISK, data, [0], 1, standby(data))
    assert [c.folder for c in found.candidates if c.number is None] == [good]
    assert len(found.unreadable) == 3 and all(
        standby_folder(data, NODE, 1)[:-1] in t for t in found.unreadable
    )


def test_own_state_that_cannot_be_read_is_not_passed_over(tmp_path: Path) -> None:
    data = node(tmp_path)
    (tmp_path / "state" / "4" / "fold").write_bytes(b"\xff")
    with pytest.raises(Broken, match="state/4/fold cannot be read"):
        candidates(DISK, data, [0], 1, standby(data))


@pytest.mark.parametrize(
    "data",
    [
        msgspec.msgpack.encode(state.Saved((0, 0), {0: b"\x09"}, {})),  # no vector
        b"\x81\xa1\xff\x00",  # a name that is no UTF-8
        b"",
    ],
)
def test_a_state_that_holds_nonsense_is_unreadable_and_no_other_error(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "fold").write_bytes(data)
    with pytest.raises(Broken) as caught:
        state.load(DISK, str(tmp_path))
    assert caught.value.code == "state_unreadable"


@pytest.mark.parametrize(
    "name", ["", "x-1", f"{NODE}", f"{NODE}-", f"{NODE}-1.gone", f"{NODE[:-1]}-1", f"{NODE}-²"]
)
def test_other_names_are_no_standby_folders(name: str) -> None:
    assert standby_of(name) is None
    assert standby_of(f"{NODE}-12") == (NODE, 12)
