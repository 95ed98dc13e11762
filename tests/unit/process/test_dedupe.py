"""Ids seen: exact within the window, first copy wins, bounded."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.kit.errors import Broken
from headwater.process.dedupe import Seen, decode_ids, encode_ids, hash_ids


def seen(**options: float) -> Seen:
    return Seen(
        partitions=4,
        memory_bytes=int(options.get("memory_bytes", 1 << 24)),
        window_s=options.get("window_s", 600),
    )


def add(table: Seen, ids: list[str], minutes: list[int] | int = 100, partition: int = 0) -> list[bool]:
    high, low = hash_ids(["web"] * len(ids), ids)
    when = np.full(len(ids), minutes, np.uint32) if isinstance(minutes, int) else np.array(minutes, np.uint32)
    return [bool(x) for x in table.add(high, low, when, np.full(len(ids), partition, np.uint16))]


def test_the_first_of_two_copies_in_one_batch_wins() -> None:
    assert add(seen(), ["a", "b", "a", "c", "b"]) == [True, True, False, True, False]


def test_a_copy_within_the_window_is_a_duplicate_and_beyond_it_is_not() -> None:
    table = seen(window_s=600)
    assert add(table, ["a"], 100) == [True]
    assert add(table, ["a"], 110) == [False]
    table = seen(window_s=600)
    add(table, ["a"], 100)
    assert add(table, ["a"], 111) == [True]


def test_one_id_in_two_streams_is_two_ids() -> None:
    table = seen()
    high, low = hash_ids(["web", "app"], ["a", "a"])
    assert table.add(high, low, np.full(2, 5, np.uint32), np.zeros(2, np.uint16)).tolist() == [True, True]


def test_memory_is_bounded_by_raising_the_edge_of_the_partition_that_holds_most() -> None:
    table = seen(memory_bytes=1 << 20, window_s=3600)
    for minute in range(60):
        add(table, [f"{minute}-{i}" for i in range(1000)], 1000 + minute, partition=1)
    add(table, ["rare"], 1001, partition=2)
    table.expire(1060)
    assert table.count <= table.entries_max
    assert table.edge[1] > 1030
    assert add(table, ["rare"], 1060, partition=2) == [False]
    assert add(table, ["59-7"], 1060, partition=1) == [False]


def test_memory_is_bounded_too_while_ids_of_runs_are_remembered() -> None:
    table = seen(memory_bytes=1 << 20, window_s=3600)
    most = 0
    for minute in range(120):
        high, low = hash_ids(["web"] * 1000, [f"{minute}-{i}" for i in range(1000)])
        table.remember((high, low, np.full(1000, 1000 + minute // 2, np.uint32), np.full(1000, 1, np.uint16)))
        most = max(most, table.count)
    assert most <= table.entries_max + 1000
    assert add(table, ["119-7"], 1060, partition=1) == [False]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.integers(0, 60), min_size=1, max_size=80), min_size=1, max_size=8))
def test_it_answers_as_a_set_would(batches: list[list[int]]) -> None:
    table, model = seen(), set()
    for batch in batches:
        expected = []
        for number in batch:
            expected.append(number not in model)
            model.add(number)
        assert add(table, [str(n) for n in batch]) == expected


def test_ids_survive_encoding_and_a_torn_chunk_is_refused() -> None:
    high, low = hash_ids(["web"] * 3, ["a", "b", "c"])
    data = encode_ids((high, low, np.array([1, 2, 3], np.uint32), np.array([4, 5, 6], np.uint16)))
    ids, end = decode_ids(data)
    assert end == len(data)
    assert [part.tolist() for part in ids] == [high.tolist(), low.tolist(), [1, 2, 3], [4, 5, 6]]
    with pytest.raises(Broken):
        decode_ids(data[:-1])
    with pytest.raises(Broken):
        decode_ids(data[:-1] + bytes([data[-1] ^ 1]))


def test_inv_dest_a_busy_partition_never_forgets_the_minute_it_is_in() -> None:
    seen = Seen(partitions=4, memory_bytes=1 << 20, window_s=3600)
    count = 2 * seen.share
    high = np.arange(count, dtype=np.uint64)
    minute, partition = np.full(count, 1000, np.uint32), np.full(count, 3, np.uint16)
    assert seen.add(high, high, minute, partition).all()
    seen.expire(1000)
    assert not seen.add(high, high, minute + np.uint32(1), partition).any()


def test_partitions_that_are_forgotten_were_never_seen_and_the_others_were() -> None:
    seen = Seen(partitions=4, memory_bytes=1 << 20, window_s=3600)
    numbers = np.arange(2000, dtype=np.uint64)
    entries = numbers * np.uint64(0x9E3779B97F4A7C15), numbers, np.full(2000, 90, np.uint32)
    partition = (numbers % 4).astype(np.uint16)
    seen.add(*entries, partition)
    seen.edge[:] = 50
    seen.forget([1, 2])
    assert (seen.count, seen.edge.tolist()) == (1000, [50, 0, 0, 50])
    fresh = seen.add(*entries, partition)
    assert (fresh == np.isin(partition, [1, 2])).all()
    old = np.full(
        1, 20, np.uint32
    )  # they come back with what others remember, from before the edge that they had here
    seen.forget([1])
    seen.remember((entries[0][1:2], entries[1][1:2], old, partition[1:2]))
    assert not seen.add(entries[0][1:2], entries[1][1:2], old, partition[1:2]).any()
