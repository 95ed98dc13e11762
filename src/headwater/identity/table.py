"""Facts as they stand in a commit, and travel to destinations: one Arrow table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from headwater.identity.owner import Fact, Interval

SETTLE = "settle"
"""No fact, but a wish: rows of this id came from where its facts may not have been known."""
FACTS_SCHEMA = pa.schema(
    [
        ("partition", pa.uint16()),
        ("anonymous_id", pa.string()),
        ("kind", pa.string()),
        ("user_id", pa.string()),
        ("time", pa.timestamp("us", tz="UTC")),
        ("message_id", pa.string()),
    ]
)
INTERVALS_SCHEMA = pa.schema(
    [
        ("anonymous_id", pa.string()),
        ("begin_us", pa.int64()),
        ("end_us", pa.int64()),
        ("user_id", pa.string()),
    ]
)
ROWS_BY_USER_SCHEMA = pa.schema(
    [("anonymous_id", pa.string()), ("user_id", pa.string()), ("own", pa.bool_()), ("rows", pa.int64())]
)
"""What a destination tells of the rows of anonymous ids."""
Named = tuple[int, str, Fact]
"""Partition, anonymous id, fact."""


def facts_table(facts: Sequence[Named]) -> pa.Table:
    """As they travel; a logout and a wish to settle have no user."""
    columns = [
        pa.array([p for p, _, _ in facts], pa.uint16()),
        pa.array([a for _, a, _ in facts], pa.string()),
        pa.array([f.kind for _, _, f in facts], pa.string()),
        pa.array([f.user_id or None for _, _, f in facts], pa.string()),
        pa.array([f.time_us for _, _, f in facts], pa.int64()).cast(FACTS_SCHEMA.field("time").type),
        pa.array([f.message_id for _, _, f in facts], pa.string()),
    ]
    return pa.table(columns, schema=FACTS_SCHEMA)


def wishes_of(rows: pa.Table) -> pa.Table:
    """A wish to settle each anonymous id of these rows."""
    if "anonymous_id" not in rows.column_names:
        return FACTS_SCHEMA.empty_table()
    pairs = rows.select(["anonymous_id", "_hw_partition"]).drop_null()
    named = pairs.group_by("anonymous_id").aggregate([("_hw_partition", "min")])
    return wishes_table(named["anonymous_id"], named["_hw_partition_min"])


def wishes_table(ids: Any, partitions: Any) -> pa.Table:
    """Wishes to settle these ids (arrays of one length); no Python for each."""
    count = len(ids)
    columns = [
        pa.array(partitions, pa.uint16())
        if isinstance(partitions, np.ndarray)
        else partitions.cast(pa.uint16()),
        ids,
        pa.repeat(SETTLE, count),
        pa.nulls(count, pa.string()),
        pa.repeat(pa.scalar(0, FACTS_SCHEMA.field("time").type), count),
        pa.repeat("", count),
    ]
    return pa.table(columns, schema=FACTS_SCHEMA)


def facts_in(table: pa.Table) -> Iterator[tuple[str, Fact]]:
    """Anonymous id and fact, of each row that is one."""
    for batch in table.to_batches():
        _, ids, kinds, users, times, messages = batch.columns
        rows = zip(
            ids.to_pylist(), kinds.to_pylist(), users.to_pylist(), times.cast(pa.int64()).to_pylist(),
            messages.to_pylist(), strict=True,
        )  # fmt: skip
        for anonymous_id, kind, user, time_us, message in rows:
            if kind != SETTLE:
                yield anonymous_id, Fact(kind, user or "", time_us, message)


def intervals_table(found: Mapping[str, Iterable[Interval]]) -> pa.Table:
    """Whose each id was, for a destination to join."""
    rows = [(a, i.begin_us, i.end_us, i.user_id) for a, each in found.items() for i in each]
    columns = list(zip(*rows, strict=True)) or [(), (), (), ()]
    arrays = [pa.array(column, field.type) for column, field in zip(columns, INTERVALS_SCHEMA, strict=True)]
    return pa.table(arrays, schema=INTERVALS_SCHEMA)
