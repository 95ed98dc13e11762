"""A piece of a replay as one atomic step over rows that are there: pure functions from values to a ``Step``.

**Which copy of an id has the row** is decided once, by whoever delivered first, and never again. The chain, a private
run or an earlier replay may each have chosen another of two copies x1 and x2 (order inside a cut goes by receive time,
blocks of several writers are closed in another order), and deciding anew from the raw log alone could drop both: x2
because x1 lies below, x1 because it never got a row. So a step goes by what the destination holds:

1. An event whose origin has a row there (*held*) gets its row again: the one row of its id stays at that origin.
2. An event without one gets none: it was a copy, or somebody deleted it, and both stay as they are. But:
3. it is *gained* where the ledger knows it as missing: the destination had refused it, processing had refused it (a
   dead letter, *revived*), or ``adopt`` had left it out (*skipped*); and where no row of its id is there. Two copies
   in one piece: the first gains.
4. A held event that is no row today (refused by processing, or erased) loses its row, and is counted as that.

Hence, by induction over the steps: an id that has one row has one row afterwards (1, 2: same origin; 3 only where there
is none), or is a counted dead letter (4); and an id that has none gets at most one. Nothing is said about other pieces,
so any cutting into pieces, any order and any crash between two steps gives the same, and at each moment each id has at
most one row. What is above the main position is neither read nor touched.

A revived event is the one thing that the chain does not know as seen: a corrected copy of it that arrives later would
get a row too. So only letters older than the dedupe window, seen from what the destination has yet to get, are revived;
copies further apart than the window are not promised to be one event anywhere.

**Counters.** The main position row keeps `out + revived = rows + dead + erased + skipped`, each step by what it really
did: deleted rows are counted by the destination inside the step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headwater.destinations.load import PARTITION, RECEIVED, STREAM, add, counted, stream_codes
from headwater.destinations.port import Counts, PositionRow, Redo, Replayable, Step
from headwater.event.piece import Piece, Range

Array = np.ndarray[Any, Any]
Origin = tuple[int, int, int]
"""Writer, log, seq."""
ORIGIN = ("_hw_writer", "_hw_log", "_hw_seq")
LETTER = ("writer", "log", "seq")


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a piece's events beside the destination itself. Origins of letters are those in its ranges."""

    refused: Sequence[Origin]
    """Letters of this destination."""
    dead: Sequence[Origin]
    """Letters of processing."""
    revive_before_us: int
    """Received before this moment (node time): old enough to be revived."""
    window_us: int
    """The dedupe window."""


@dataclass(frozen=True, slots=True)
class Redone:
    """A step, and what it means."""

    step: Step
    lost: pa.Table | None
    """Letters (``Piece.dead``) of events whose rows go: to be kept before the step."""
    made: int
    """Rows that are made again, and gained."""
    gained: int
    too_young: int
    """Letters of processing that would be rows now, and are not old enough to be."""


def redone(
    piece: Piece,
    destination: Replayable,
    table: str,
    known: Known,
    main: Mapping[int, PositionRow],
    step: Step,
    main_pipeline: str,
) -> Redone:
    """``step`` (pipeline, partitions, origin, target of the replay; no rows yet) with the rows of the piece."""
    held = destination.origins(table, piece.ranges)
    size = piece.events
    is_held = marked(size, places(piece.ranges, held, ORIGIN))
    added: dict[int, dict[str, Counts]] = {}
    chosen, gained, young = None, 0, 0
    alive = np.zeros(size, bool)
    if piece.rows is not None and piece.rows.num_rows:
        rows = piece.rows
        at = places(piece.ranges, rows, ORIGIN)
        alive[at] = True
        kept = is_held[at]
        more, young = gains(rows, at, ~kept, size, piece.ranges, known, main)
        more = without_present(rows, more, destination, table, known)
        for name, sign, mask in more:
            add(added, counted(rows.filter(pa.array(mask)), name, sign))
            kept = kept | mask
            gained += int(mask.sum())
        chosen = rows.filter(pa.array(kept))
        add(added, counted(chosen, "rows"))
    lost = count_lost(piece, held, is_held, alive, added)
    tables = {table: [chosen] if chosen is not None and chosen.num_rows else []}
    own: dict[int, dict[str, Counts]] = {partition: {} for partition in step.partitions}
    for rows in tables[table]:
        add(own, counted(rows, "out"))
        add(own, counted(rows, "rows"))
    whole = Step(
        step.pipeline,
        step.partitions,
        step.origin,
        step.target,
        tables,
        own,
        step.config_epoch,
        step.owner,
        facts=() if piece.facts is None else (piece.facts,),
        redo=Redo(table, piece.ranges, held.num_rows, main_pipeline, added),
    )
    return Redone(whole, lost, sum(rows.num_rows for rows in tables[table]), gained, young)


def places(ranges: Sequence[Range], rows: pa.Table, names: Sequence[str]) -> Array:
    """Each row's place among the events of the ranges, which follow one another; rows are all inside."""
    writer, log, seq = (rows[name].to_numpy().astype(np.uint64) for name in names)
    return placed(ranges, writer, log, seq)


def placed(ranges: Sequence[Range], writer: Array, log: Array, seq: Array) -> Array:
    """The same for arrays."""
    found = np.full(len(seq), -1, np.int64)
    begin = 0
    for one in ranges:
        here = (writer == one.writer) & (log == one.log) & (seq >= one.first) & (seq < one.end)
        found[here] = (seq[here] - np.uint64(one.first)).astype(np.int64) + begin
        begin += one.end - one.first
    return found


def marked(size: int, at: Array) -> Array:
    """True at these places."""
    mask = np.zeros(size, bool)
    mask[at] = True
    return mask


def of_letters(size: int, ranges: Sequence[Range], origins: Sequence[Origin]) -> Array:
    """True where a letter is."""
    if not origins:
        return np.zeros(size, bool)
    writer, log, seq = np.array(origins, np.uint64).reshape(-1, 3).T
    return marked(size, placed(ranges, writer, log, seq))


# -- what is gained

Gains = list[tuple[str, int, Array]]
"""Counter, sign, rows (mask): why they are gained."""


def gains(
    rows: pa.Table,
    at: Array,
    free: Array,
    size: int,
    ranges: Sequence[Range],
    known: Known,
    main: Mapping[int, PositionRow],
) -> tuple[Gains, int]:
    """The rows among ``free`` that the ledger knows as missing; how many letters are too young to be revived."""
    refused = free & of_letters(size, ranges, known.refused)[at]
    dead = free & ~refused & of_letters(size, ranges, known.dead)[at]
    received = rows[RECEIVED].cast(pa.int64()).to_numpy()
    old = received < known.revive_before_us
    skipped = within_skipped(rows, free & ~refused & ~dead, main)
    return [("dead", -1, refused), ("revived", 1, dead & old), ("skipped", -1, skipped)], int(
        (dead & ~old).sum()
    )


def within_skipped(rows: pa.Table, free: Array, main: Mapping[int, PositionRow]) -> Array:
    """Of the free rows, in order, as many of each partition and stream as are counted as skipped."""
    found = np.zeros(len(free), bool)
    left = {
        (p, stream): counts.skipped
        for p, row in main.items()
        for stream, counts in row.streams.items()
        if counts.skipped > 0
    }
    if not left or not free.any():
        return found
    codes, streams = stream_codes(rows)
    partitions = rows[PARTITION].to_numpy()
    for (partition, stream), count in left.items():
        if stream in streams:
            here = np.flatnonzero(free & (partitions == partition) & (codes == streams.index(stream)))
            found[here[:count]] = True
    return found


def without_present(rows: pa.Table, more: Gains, destination: Replayable, table: str, known: Known) -> Gains:
    """Those of whose id no row is there, and no earlier row is gained. Letters are compared with all rows (they may
    have been sent again at any time), what was skipped with the rows within the window."""
    wanted = np.logical_or.reduce([mask for _, _, mask in more])
    if not wanted.any():
        return []
    where = np.flatnonzero(wanted)
    asked = pa.table(
        {
            "number": pa.array(where.astype(np.uint32)),
            "key_id": pc.fill_null(rows[STREAM].cast(pa.string()), "").take(pa.array(where)),
            "message_id": rows["message_id"].take(pa.array(where)),
        }
    )
    bounds: tuple[int | None, int | None] = (None, None)
    if not any(mask.any() for name, _, mask in more if name != "skipped"):
        received = rows[RECEIVED].cast(pa.int64()).to_numpy()[where]
        bounds = int(received.min()) - known.window_us, int(received.max()) + known.window_us
    there = destination.present(table, asked, *bounds)
    first = asked.group_by(["key_id", "message_id"], use_threads=False).aggregate([("number", "min")])
    allowed = np.zeros(len(wanted), bool)
    allowed[first["number_min"].to_numpy()] = True
    allowed[list(there)] = False
    return [(name, sign, mask & allowed) for name, sign, mask in more if (mask & allowed).any()]


# -- what is lost


def count_lost(
    piece: Piece, held: pa.Table, is_held: Array, alive: Array, added: dict[int, dict[str, Counts]]
) -> pa.Table | None:
    """Count held events that are no rows today; the letters of those that processing refuses."""
    gone = is_held & ~alive
    if not gone.any():
        return None
    dead = np.zeros(len(gone), bool)
    letters = None
    if piece.dead is not None:
        at = places(piece.ranges, piece.dead, LETTER)
        dead[at] = True
        letters = piece.dead.filter(pa.array(gone[at]))
    of_held = places(piece.ranges, held, ORIGIN)
    add(added, counted(held.filter(pa.array((gone & dead)[of_held])), "dead"))
    add(added, counted(held.filter(pa.array((gone & ~dead)[of_held])), "erased"))
    return letters
