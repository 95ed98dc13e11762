"""From commits to a step (destinations/load.py)."""

from __future__ import annotations

import pyarrow as pa

from headwater.destinations.load import counted, step_of
from headwater.destinations.port import Counts, Step
from headwater.event.commit import Commit
from tests.chains import chain, commit

PARTITIONS = (0, 1, 2, 3)


def step(commits: list[Commit], partitions: tuple[int, ...] = PARTITIONS) -> Step:
    return step_of(commits, partitions, pipeline="p", layout="events", owner="me")


def test_commits_with_different_learned_columns_become_one_row_set() -> None:
    commits = [
        commit(0, 2, PARTITIONS, {"price": pa.array([1.0, 2.0])}),
        commit(2, 2, PARTITIONS, {"colour": pa.array(["red", "blue"])}),
        commit(4, 1, PARTITIONS),
    ]
    (rows,) = step(commits).tables["events"]
    assert rows["price"].to_pylist() == [1.0, 2.0, None, None, None]
    assert rows["colour"].to_pylist() == [None, None, "red", "blue", None]
    assert rows["key_id"].to_pylist() == ["app", "web", "web", "app", "web"]
    assert rows.schema.field("received_at").metadata[b"kind"] == b"timestamp"


def test_a_column_of_another_type_begins_a_new_row_set() -> None:
    commits = [
        commit(0, 1, PARTITIONS, {"n": pa.array([1.0])}),
        commit(1, 1, PARTITIONS, {"n": pa.array(["x"])}),
    ]
    assert [rows["n"].to_pylist() for rows in step(commits).tables["events"]] == [[1.0], ["x"]]


def test_a_step_of_some_partitions_has_their_rows_and_counts_only() -> None:
    """INV-DST-2."""
    one = step(chain([8, 4], PARTITIONS), (1, 3))
    (rows,) = one.tables["events"]
    assert set(rows["_hw_partition"].to_pylist()) == {1, 3}
    assert set(one.added) == {1, 3}
    total = [counts for streams in one.added.values() for counts in streams.values()]
    assert sum(c.out for c in total) == sum(c.rows for c in total) == rows.num_rows == 6


def test_partitions_without_rows_are_in_the_step() -> None:
    one = step(chain([1], PARTITIONS))
    assert one.added == {0: {"app": Counts(out=1, rows=1)}, 1: {}, 2: {}, 3: {}}


def test_a_commit_without_rows_moves_only() -> None:
    empty = commit(0, 0, PARTITIONS)
    assert step([empty]).tables == {"events": []}


def test_rows_are_counted_per_partition_and_stream() -> None:
    (rows,) = step(chain([12], (5, 7)), (5, 7)).tables["events"]
    assert counted(rows, "rows") == {
        5: {"app": Counts(rows=2), "web": Counts(rows=4)},
        7: {"app": Counts(rows=2), "web": Counts(rows=4)},
    }
    without_key = rows.drop_columns(["key_id"])
    assert counted(without_key, "dead")[5] == {"": Counts(dead=6)}
