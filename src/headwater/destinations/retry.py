"""Rows that a destination refused, tried again: op ``retry`` of the deliverer's socket.

A letter is keyed by its origin, so trying again can be killed anywhere: row and counters (`dead` - 1, `rows` + 1)
change in one step that begins and ends where the destination stands, and afterwards the letter goes. A letter whose
row is there already, because a crash came between the two, only goes. Where another copy of the event has a row, the
letter stays: the event is not missing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import pyarrow as pa

from headwater.destinations import load
from headwater.destinations.port import Counts, Outcome, Replayable, Step
from headwater.destinations.redo import ORIGIN, Origin
from headwater.destinations.refused import Letter
from headwater.event.piece import Range
from headwater.event.position import Vector
from headwater.identity.table import wishes_of
from headwater.kit.errors import Rejected, Unavailable

if TYPE_CHECKING:
    from headwater.destinations.deliver import Deliverer

LAYOUT = "events"
AT_ONCE = 1000
"""Letters of one request that are tried; ``all`` says how many are left."""
COPY = "another copy of this event has a row"
NO_ROW = "processing refuses the event: change what it refuses, and replay its time"
FORMER = "it was kept by an older version, without the row: replay its time"


@dataclass(slots=True)
class Tried:
    """What came of it."""

    retried: list[str] = field(default_factory=list)
    refused_again: list[dict[str, str]] = field(default_factory=list)

    def refuse(self, letter: Letter, reason: str) -> None:
        """It stays a letter."""
        self.refused_again.append({"origin": letter.name, "reason": reason})


def retry(deliverer: Deliverer, request: Mapping[str, Any]) -> dict[str, Any]:
    """``origins`` (as `dead list` prints them) or ``all``. Rejected: an origin is none; Unavailable: it is paused."""
    wanted = None if request.get("all") else [parsed(text) for text in request.get("origins") or []]
    if wanted == []:
        raise Rejected("origins: expected some, or all", code="retry_origins")
    if not deliverer.destination.capabilities.replays:
        raise Rejected(f"destination {deliverer.name} cannot try rows again", code="retry_none")
    with deliverer.lock:
        if deliverer.rows is None or deliverer.trouble is not None:
            raise Unavailable(f"destination {deliverer.name} is paused", code="destination_paused")
        letters = deliverer.dead.letters(wanted, AT_ONCE)
        tried = Tried()
        carry_out(deliverer, letters, tried)
        unknown = [] if wanted is None else sorted(set(wanted) - {letter.origin for letter in letters})
        left = deliverer.dead.count()
    return {
        "retried": tried.retried,
        "refused_again": tried.refused_again,
        "unknown": [f"{writer:016x}-{log:016x}-{seq}" for writer, log, seq in unknown],
        "left": left,
    }


def carry_out(deliverer: Deliverer, letters: Sequence[Letter], tried: Tried) -> None:
    """Try them, those of partitions that stand together in one step."""
    destination = cast(Replayable, deliverer.destination)
    there = held(destination, letters)
    deliverer.dead.remove(sorted(there))
    tried.retried += [letter.name for letter in letters if letter.origin in there]
    groups: dict[Vector, list[Letter]] = {}
    for letter in (letter for letter in letters if letter.origin not in there):
        if letter.arrow is None or letter.partition is None:
            tried.refuse(letter, FORMER if letter.partition is not None else NO_ROW)
        else:
            groups.setdefault(deliverer.have[letter.partition], []).append(letter)
    for vector, group in groups.items():
        fresh = without_copies(destination, group, tried)
        if fresh:
            together(deliverer, vector, fresh, tried)


def held(destination: Replayable, letters: Sequence[Letter]) -> set[Origin]:
    """Those whose row is there."""
    exact = [Range(*letter.origin, letter.origin[2] + 1) for letter in letters]
    there = destination.origins(LAYOUT, exact)
    return set(zip(*(there[name].to_pylist() for name in ORIGIN), strict=True))


def without_copies(destination: Replayable, letters: Sequence[Letter], tried: Tried) -> list[Letter]:
    """Those of whose id no row is there; of two letters of one id, the first."""
    ids = [key_of(row_of(letter)) for letter in letters]
    asked = pa.table(
        {
            "number": pa.array(range(len(ids)), pa.uint32()),
            "key_id": pa.array([stream for stream, _ in ids], pa.string()),
            "message_id": pa.array([text for _, text in ids], pa.string()),
        }
    )
    there = destination.present(LAYOUT, asked, None, None)
    fresh: dict[tuple[str, str], Letter] = {}
    for number, (letter, key) in enumerate(zip(letters, ids, strict=True)):
        if number in there or key in fresh:
            tried.refuse(letter, COPY)
        else:
            fresh[key] = letter
    return list(fresh.values())


def together(deliverer: Deliverer, vector: Vector, letters: Sequence[Letter], tried: Tried) -> None:
    """One step that stays where it stands."""
    rows = load.joined([row_of(letter) for letter in letters])
    partitions = tuple(sorted({letter.partition for letter in letters if letter.partition is not None}))
    added: dict[int, dict[str, Counts]] = {partition: {} for partition in partitions}
    for some in rows:
        load.add(added, load.counted(some, "rows"))
        load.add(added, load.counted(some, "dead", -1))
    epoch = max(deliverer.rows[p].config_epoch for p in partitions) if deliverer.rows else 0
    at = vector.encode()
    wishes = tuple(wishes_of(some) for some in rows)  # what became known since they were refused
    step = Step(
        deliverer.memory.pipeline, partitions, at, at, {LAYOUT: rows}, added, epoch, deliverer.owner, wishes
    )
    deliverer.destination.fit({LAYOUT: [some.schema for some in rows]})
    step, outcome = deliverer.carry_out(step)
    if outcome is not Outcome.DONE:
        deliverer.rows, deliverer.certain = None, False
        raise Unavailable("the destination has moved meanwhile: try again", code="moved")
    deliverer.done(step)
    taken = {
        origin
        for some in step.tables[LAYOUT]
        for origin in zip(*(some[name].to_pylist() for name in ORIGIN), strict=True)
    }
    deliverer.dead.remove(sorted(taken))
    tried.retried += [letter.name for letter in letters if letter.origin in taken]
    left = [letter.origin for letter in letters if letter.origin not in taken]
    for letter in deliverer.dead.letters(left, AT_ONCE):
        tried.refuse(letter, letter.reason)


def row_of(letter: Letter) -> pa.Table:
    """The row as the load had it."""
    assert letter.arrow is not None
    with pa.ipc.open_stream(pa.py_buffer(letter.arrow)) as stream:
        return stream.read_all()


def key_of(row: pa.Table) -> tuple[str, str]:
    """Stream and message id."""
    return row[load.STREAM][0].as_py() or "", row["message_id"][0].as_py()


def parsed(text: object) -> Origin:
    """``writer-log-seq``."""
    parts = str(text).split("-")
    try:
        writer, log, seq = parts
        return int(writer, 16), int(log, 16), int(seq)
    except ValueError:
        raise Rejected(
            f"{text!r} is no origin: expected writer-log-seq, as `headwater dead list` prints it",
            code="retry_origins",
        ) from None
