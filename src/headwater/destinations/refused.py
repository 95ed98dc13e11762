"""Rows that a destination refuses: found by halving, kept as dead letters, left out (protocol.md §5, D7).

The dead letters are durable before the step without them begins, under a key that does not change when the step is
made again: a crash between the two adds nothing, and a second finding replaces the first.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import msgspec
import pyarrow as pa

from headwater.destinations.load import ORIGIN, STREAM
from headwater.destinations.port import Destination, Step
from headwater.event.position import Position
from headwater.kit.errors import Misconfigured, Rejected, Unavailable

SCHEMA = """
create table if not exists dead(
  destination text, writer text, log text, seq integer, row integer, partition integer, stream text,
  reason text, help text, body blob, node_ns integer, arrow blob,
  primary key (destination, writer, log, seq, row)
) without rowid;
"""
FORMER = "alter table dead add column arrow blob"
"""For a file of a version that did not keep the row as it was."""
INSERT = "insert or replace into dead values (?,?,?,?,?,?,?,?,?,?,?,?)"
Origin = tuple[int, int, int]
"""Writer, log, seq."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A row of a row set, by its index, and why."""

    index: int
    reason: Rejected


def find(accepts: Callable[[pa.Table], None], rows: pa.Table, tries_max: int) -> list[Refused]:
    """The rows that ``accepts`` raises Rejected for, each tried alone; about 2·log2(rows) tries for each.

    Misconfigured when ``tries_max`` tries do not suffice: then it is the table that is wrong, not single rows.
    """
    found: list[Refused] = []
    open_ranges = [(0, rows.num_rows)]
    tries = 0
    while open_ranges:
        begin, end = open_ranges.pop()
        tries += 1
        if tries > tries_max:
            raise Misconfigured(
                f"the destination refuses too many rows: {len(found)} of the first {begin}, "
                f"the last since: {found[-1].reason.message if found else 'unknown'}",
                code="refuses_rows",
                help="look at the constraints of its table; nothing is lost, loading goes on when they fit",
            )
        try:
            accepts(rows.slice(begin, end - begin))
        except Rejected as reason:
            if end - begin == 1:
                found.append(Refused(begin, reason))
            else:
                middle = (begin + end) // 2
                open_ranges += [(middle, end), (begin, middle)]
    return found


def mask_of(rows: pa.Table, refused: Sequence[Refused]) -> pa.Array:
    """True where a row was refused."""
    mask = [False] * rows.num_rows
    for one in refused:
        mask[one.index] = True
    return pa.array(mask, pa.bool_())


def left_out(
    destination: Destination, dead: DeadLetters, step: Step, error: Rejected, tries_max: int, node_ns: int
) -> dict[str, list[pa.Array]]:
    """What a step that was refused must go on without: per table, a mask (True: refused) for each row set.

    The refused rows are durable dead letters on return. Misconfigured: none is refused alone, or too many are.
    """
    masks: dict[str, list[pa.Array]] = {}
    for table, sets in step.tables.items():
        masks[table] = []
        for rows in sets:
            found = find(partial(destination.try_rows, table), rows, tries_max)
            if found:
                dead.add(rows, found, node_ns)
            masks[table].append(mask_of(rows, found))
    if not any(map(count, masks.values())):
        raise Misconfigured(
            f"the destination refuses a load, but no row of it alone: {error.message}", code="refuses_rows"
        ) from error
    return masks


def count(masks: Sequence[pa.Array]) -> int:
    """How many rows were refused."""
    return sum(mask.true_count for mask in masks)


@dataclass(frozen=True, slots=True)
class Letter:
    """A letter that is tried again. ``arrow``: the row as a load had it; None where processing refused the event."""

    origin: Origin
    row: int
    partition: int | None
    stream: str
    reason: str
    arrow: bytes | None

    @property
    def name(self) -> str:
        """As `headwater dead list` prints it."""
        writer, log, seq = self.origin
        return f"{writer:016x}-{log:016x}-{seq}"


def packed(rows: pa.Table) -> bytes:
    """An Arrow IPC stream; without dictionaries, which hold the values of all rows around."""
    for number, field in enumerate(rows.schema):
        if pa.types.is_dictionary(field.type):
            plain = field.with_type(field.type.value_type)
            rows = rows.set_column(number, plain, rows.column(number).cast(plain.type))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as stream:
        stream.write_table(rows)
    return bytes(sink.getvalue())


def hexed(position: Position) -> tuple[str, int]:
    """A position as the file has it."""
    return f"{position.log:016x}", position.seq


class DeadLetters:
    """What one destination refused, in SQLite with synchronous=FULL; one thread at a time writes, others may read."""

    def __init__(self, path: str, destination: str) -> None:
        self.destination = destination
        self.base = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self.base.execute("pragma journal_mode=wal")
        self.base.execute("pragma synchronous=full")
        self.base.executescript(SCHEMA)
        if "arrow" not in {name for _, name, *_ in self.base.execute("pragma table_info(dead)")}:
            self.base.execute(FORMER)

    def add(self, rows: pa.Table, refused: Sequence[Refused], node_ns: int) -> None:
        """Keep the refused rows of a row set; durable on return; the same row twice is kept once.

        Unavailable: they cannot be kept now, and the step must not go on without them.
        """
        taken = [rows.slice(one.index, 1) for one in refused]
        self.write(
            INSERT, [self.record(row, one.reason, node_ns) for row, one in zip(taken, refused, strict=True)]
        )

    def add_letters(self, dead: pa.Table, node_ns: int) -> None:
        """Keep events whose rows go, since processing refuses them today (process/run.py DEAD_SCHEMA)."""
        records = [
            (
                self.destination,
                f"{one['writer']:016x}",
                f"{one['log']:016x}",
                one["seq"],
                one["row"],
                None,
                one["stream"],
                one["reason"],
                one["field"] or "",
                one["body"],
                node_ns,
                None,
            )
            for one in dead.to_pylist()
        ]
        self.write(INSERT, records)

    def between(self, spans: Sequence[tuple[int, Position, Position]]) -> list[Origin]:
        """Origins of the letters in these stretches: writer, from, up to."""
        query = (
            "select writer, log, seq from dead where destination = ? and writer = ? "
            "and (log, seq) >= (?, ?) and (log, seq) < (?, ?)"
        )
        found: list[Origin] = []
        for writer, begin, end in spans:
            values = (self.destination, f"{writer:016x}", *hexed(begin), *hexed(end))
            found += [(int(w, 16), int(log, 16), seq) for w, log, seq in self.base.execute(query, values)]
        return found

    def letters(self, origins: Sequence[Origin] | None, limit: int) -> list[Letter]:
        """Letters of these events, or the first of all."""
        columns = (
            "select writer, log, seq, row, partition, stream, reason, arrow from dead where destination = ?"
        )
        if origins is None:
            rows = self.base.execute(f"{columns} limit ?", (self.destination, limit)).fetchall()
        else:
            exact = f"{columns} and writer = ? and log = ? and seq = ?"
            rows = [
                row
                for w, log, seq in origins[:limit]
                for row in self.base.execute(exact, (self.destination, f"{w:016x}", f"{log:016x}", seq))
            ]
        return [Letter((int(w, 16), int(log, 16), seq), *rest) for w, log, seq, *rest in rows]

    def remove(self, origins: Sequence[Origin]) -> None:
        """They are rows now, and no letters any more; durable on return."""
        values = [(self.destination, f"{w:016x}", f"{log:016x}", seq) for w, log, seq in origins]
        if values:
            self.write(
                "delete from dead where destination = ? and writer = ? and log = ? and seq = ?", values
            )

    def write(self, statement: str, records: Sequence[tuple[object, ...]]) -> None:
        """One transaction."""
        try:
            with self.base:
                self.base.execute("begin immediate")
                self.base.executemany(statement, records)
        except sqlite3.Error as error:
            raise Unavailable(f"dead letters cannot be kept: {error}", code="dead_letters") from error

    def record(self, rows: pa.Table, reason: Rejected, node_ns: int) -> tuple[object, ...]:
        """The columns of a dead letter; the row itself as JSON for people, and as Arrow to be tried again."""
        (row,) = rows.to_pylist()
        writer, log, seq, number = (row.get(name) or 0 for name in ORIGIN)
        place = (
            f"{writer:016x}",
            f"{log:016x}",
            seq,
            number,
            row.get("_hw_partition"),
            row.get(STREAM) or "",
        )
        body = msgspec.json.encode(
            {name: value for name, value in row.items() if value is not None}, enc_hook=str
        )
        return (self.destination, *place, reason.message, reason.help, body, node_ns, packed(rows))

    def count(self) -> int:
        """How many are kept."""
        return int(self.base.execute("select count(*) from dead").fetchone()[0])

    def close(self) -> None:
        """Let go of the file."""
        self.base.close()
