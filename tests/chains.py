"""Chains made by hand: commits of a few rows, and a reader over a list of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from headwater.destinations.port import OpenChain
from headwater.event import commit as commits
from headwater.event.commit import Commit
from headwater.event.position import EMPTY, ZERO, Position, Vector, WriterId

WRITER = WriterId(0xABCDEF0000000000)
LOG = 0x7000000000000001

STANDARD = pa.schema(
    [
        pa.field("message_id", pa.string(), metadata={"kind": "text", "origin": "standard"}),
        pa.field(
            "received_at", pa.timestamp("us", "UTC"), metadata={"kind": "timestamp", "origin": "standard"}
        ),
        pa.field("key_id", pa.dictionary(pa.int32(), pa.string())),
        pa.field("_hw_writer", pa.uint64()),
        pa.field("_hw_log", pa.uint64()),
        pa.field("_hw_seq", pa.uint64()),
        pa.field("_hw_row", pa.uint32()),
        pa.field("_hw_partition", pa.uint16()),
    ]
)


def vector(seq: int, log: int = LOG) -> Vector:
    """Everything of the one writer below ``seq``."""
    return Vector({WRITER: Position(log, seq)}) if seq else EMPTY


def rows(
    first: int, count: int, partitions: Sequence[int], more: Mapping[str, pa.Array] | None = None
) -> pa.Table:
    """Rows of the events [first, first + count), spread over partitions; ``more``: learned columns."""
    seqs = range(first, first + count)
    base: list[Any] = [
        pa.array([f"m{seq}" for seq in seqs], pa.string()),
        pa.array([1_790_000_000_000_000 + seq for seq in seqs], pa.timestamp("us", "UTC")),
        pa.array(["web" if seq % 3 else "app" for seq in seqs]).dictionary_encode(),
        pa.array([WRITER] * count, pa.uint64()),
        pa.array([LOG] * count, pa.uint64()),
        pa.array(seqs, pa.uint64()),
        pa.array([0] * count, pa.uint32()),
        pa.array([partitions[seq % len(partitions)] for seq in seqs], pa.uint16()),
    ]
    table = pa.table(base, schema=STANDARD)
    for name, column in (more or {}).items():
        table = table.append_column(name, column)
    return table


def commit(
    first: int,
    count: int,
    partitions: Sequence[int],
    more: Mapping[str, pa.Array] | None = None,
    *,
    epoch: int = 1,
) -> Commit:
    """The commit that takes all ``partitions`` from ``first`` to ``first + count``."""
    table = rows(first, count, partitions, more)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    changes: dict[str, dict[int, list[int]]] = {}
    for stream_name, partition in zip(
        table["key_id"].to_pylist(), table["_hw_partition"].to_pylist(), strict=True
    ):
        change = changes.setdefault(stream_name, {}).setdefault(partition, [0] * len(commits.COUNTERS))
        change[0] += 1
        change[1] += 1
    sections = {"rows:events": memoryview(sink.getvalue())}
    return Commit(tuple(partitions), vector(first), vector(first + count), epoch, count, changes, sections)


def chain(sizes: Sequence[int], partitions: Sequence[int], first: int = 0) -> list[Commit]:
    """Commits that follow one another."""
    found = []
    for size in sizes:
        found.append(commit(first, size, partitions))
        first += size
    return found


class ListReader:
    """Reads a list that may grow."""

    waits = False

    def __init__(self, entries: list[Commit], kept_from: int, at: Position) -> None:
        self.entries = entries
        self.at = max(kept_from, at.seq if at != ZERO else 0)

    def read(self, bytes_max: int) -> list[tuple[Commit, Position]]:
        found: list[tuple[Commit, Position]] = []
        size = 0
        while self.at < len(self.entries) and size < bytes_max:
            entry = self.entries[self.at]
            self.at += 1
            size += sum(map(len, entry.sections.values()))
            found.append((entry, Position(1, self.at)))
        return found

    def close(self) -> None:
        pass


class ListChain:
    """A ready log as a list; ``kept_from``: how many of the oldest were freed."""

    def __init__(self, entries: list[Commit] | None = None) -> None:
        self.entries = entries if entries is not None else []
        self.kept_from = 0

    def open(self, at: Position) -> ListReader:
        return ListReader(self.entries, self.kept_from, at)


def opener(entries: list[Commit]) -> OpenChain:
    """The reader of a list."""
    return ListChain(entries).open
