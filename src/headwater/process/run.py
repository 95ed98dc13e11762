"""The pure step: events in, rows, dead letters, ids and counters out (protocol.md §4).

``run`` depends on the events, the ids seen and the learned schema, and on nothing else; what it adds to ``seen`` it
also returns, so that the commit carries it. An event that cannot be processed becomes a dead letter with its bytes and
the reason, and never stops the others.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from headwater.event.commit import COUNTERS
from headwater.event.record import OPERATOR
from headwater.event.slots import NO_SLOT, affinity, slot_of
from headwater.identity.junk import Junk
from headwater.identity.recognise import Recogniser, decisions
from headwater.identity.settings import IdentitySettings
from headwater.identity.store import Unknown
from headwater.log.read import Block
from headwater.process.columns import TYPES
from headwater.process.dedupe import MINUTE_NS, Ids, Seen, hash_ids
from headwater.process.gather import Array, Events, Gatherer, select
from headwater.process.heads import KnownHead
from headwater.process.read import Parsed, Reader
from headwater.process.shape import Shaper

DEAD_SCHEMA = pa.schema(
    [
        ("writer", pa.uint64()),
        ("log", pa.uint64()),
        ("seq", pa.uint64()),
        ("row", pa.uint32()),
        ("stream", pa.string()),
        ("reason", pa.string()),
        ("field", pa.string()),
        ("message_id", pa.string()),
        ("received", TYPES["timestamp"]),
        ("body", pa.binary()),
    ]
)
IN, OUT, DUPLICATE, DEAD, FILTERED, ERASED, DAMAGED = range(len(COUNTERS))
REASON_CHARS_MAX = 500
LIKE_AN_ID = re.compile(rb'"messageId"\s*:\s*"([\x20-\x21\x23-\x5b\x5d-\x7e]{1,200})"')
"""In text that is not JSON."""
Changes = dict[str, dict[int, list[int]]]


@dataclass(slots=True)
class Output:
    """What follows from the events of a cut, for the partitions of one processor."""

    events: int
    rows: pa.Table | None
    dead: pa.Table | None
    ids: Ids | None
    changes: Changes
    facts: pa.Table | None = None
    """What the rows say of anonymous ids (identity/table.py)."""


@dataclass(frozen=True, slots=True)
class Made:
    """What follows from events one by one: before it is known which of them were seen."""

    events: Events
    """Those of the processor's own partitions."""
    message_ids: list[str]
    partition: Array
    dead: dict[int, tuple[str, str]]
    alive: Array
    """Neither dead nor erased."""
    rows: pa.Table | None
    """One for each event that is alive."""


class Runner:
    """Runs cuts for a set of partitions."""

    def __init__(
        self,
        gatherer: Gatherer,
        reader: Reader,
        shaper: Shaper,
        *,
        owned: Sequence[int],
        partitions: int,
        damage_here: bool,
        recogniser: Recogniser | None = None,
    ) -> None:
        """``recogniser``: None where no facts are known."""
        self.gatherer = gatherer
        self.reader = reader
        self.shaper = shaper
        self.partitions = partitions
        self.owned = np.zeros(partitions, bool)
        self.owned[list(owned)] = True
        self.all = bool(self.owned.all())
        self.recogniser = recogniser or stranger()
        self.damage_here = damage_here
        """Whether this processor counts damaged events: nobody knows their partitions, so one does for all."""

    def run(self, blocks: Sequence[Block], seen: Seen, now_s: float) -> Output:
        """Everything that follows from the blocks, given the ids seen below them; adds the new ids to ``seen``."""
        made = self._made(blocks, now_s)
        events = made.events
        streams = [h.key_id for h in events.heads]
        fresh, ids = self._dedupe(made, streams, seen)
        changes = self._count(events, streams, made.partition, made.alive, fresh, made.dead)
        rows, first = made.rows, fresh[made.alive]
        if rows is not None and not first.all():
            rows = rows.filter(pa.array(first)) if first.any() else None
        facts = None
        if rows is not None:
            rows, facts = self.recogniser.apply(rows)
            rows = without_decisions(rows)
        dead = dead_table(events, streams, made.dead, made.message_ids)
        return Output(len(events), rows, dead, ids, changes, facts)

    def each(
        self, blocks: Sequence[Block], now_s: float
    ) -> tuple[pa.Table | None, pa.Table | None, pa.Table | None]:
        """Every event by itself, copies of one id too: a row for each that is alive, the facts of these rows, a letter
        for each that is dead."""
        made = self._made(blocks, now_s)
        streams = [h.key_id for h in made.events.heads]
        rows, facts = made.rows, None
        if rows is not None:
            rows, facts = self.recogniser.apply(rows)
            rows = without_decisions(rows)
        return rows, facts, dead_table(made.events, streams, made.dead, made.message_ids)

    def ids(self, blocks: Sequence[Block]) -> Ids | None:
        """The ids of the events alone, as a run would add them; copies of one are in it twice."""
        made = self._made(blocks, None)
        where = np.flatnonzero(made.alive)
        return self._ids(made, [h.key_id for h in made.events.heads], where) if len(where) else None

    def _made(self, blocks: Sequence[Block], now_s: float | None) -> Made:
        events = self.gatherer.gather(blocks)
        if not self.all:
            events = self._prefilter(events)
        try:
            return self._make(events, now_s)
        except Exception as error:  # a bug of ours or of a library: it must not stop the other events
            self._condemn(events, now_s, error)
            return self._make(events, now_s)

    def _make(self, events: Events, now_s: float | None) -> Made:
        """What follows from each event by itself; rows only where there is a ``now_s``. Changes nothing, so that it may
        be tried again."""
        parsed = self.reader.read(readable(events))
        message_ids = self._message_ids(events, parsed)
        partition = self._partitions(events, parsed, message_ids)
        if not self.all:
            mine = np.flatnonzero(self.owned[partition])
            if len(mine) < len(events):
                events, parsed = select(events, mine), take(parsed, mine)
                message_ids = [message_ids[i] for i in mine.tolist()]
                partition = partition[mine]
        dead = {n: why for n, why in {**parsed.dead, **events.refused}.items() if not events.erased[n]}
        alive = ~events.erased
        alive[list(dead)] = False
        rows = None if now_s is None else self._rows(events, parsed, message_ids, partition, alive, now_s)
        return Made(events, message_ids, partition, dead, alive, rows)

    def _rows(
        self,
        events: Events,
        parsed: Parsed,
        message_ids: list[str],
        partition: Array,
        alive: Array,
        now_s: float,
    ) -> pa.Table | None:
        """A row for each event that is alive."""
        where = np.flatnonzero(alive)
        if not len(where):
            return None
        if len(where) < len(events):
            events, parsed, partition = select(events, where), take(parsed, where), partition[where]
            message_ids = [message_ids[i] for i in where.tolist()]
        return self.shaper.rows(events, parsed, message_ids, partition, now_s)

    def _condemn(self, events: Events, now_s: float | None, error: Exception) -> None:
        """Make dead letters of the events that fail even alone, found by halving. Raises where nothing is processed at
        all: then the events are not to blame."""
        if isinstance(error, OSError | MemoryError) or not self._survives(harmless(), now_s):
            raise error
        stack = [np.arange(len(events))]
        while stack:
            where = stack.pop()
            try:
                self._make(select(events, where), now_s)
            except Exception as failure:
                if len(where) > 1:
                    stack += np.array_split(where, 2)
                else:
                    number = int(where[0])
                    if now_s is not None and self._survives(select(events, where), None):
                        events.condemned.add(number)  # only rows fail: every processor knows its partition
                    reason = f"processing failed: {type(failure).__name__}: {failure}"
                    events.refused[number] = (reason[:REASON_CHARS_MAX], "")

    def _survives(self, events: Events, now_s: float | None) -> bool:
        try:
            self._make(events, now_s)
        except Exception:
            return False
        return True

    def _prefilter(self, events: Events) -> Events:
        """Leave out single events of others before they are parsed."""
        known = events.slot != NO_SLOT
        keep = ~known | self.owned[events.slot % self.partitions]
        return events if keep.all() else select(events, np.flatnonzero(keep))

    def _message_ids(self, events: Events, parsed: Parsed) -> list[str]:
        """Each event's message id; one that has none gets the one that its position gives (protocol.md §17.14)."""
        column = parsed.columns.get("messageId")
        ids: list[str | None] = [None] * len(events) if column is None else column.to_pylist()
        for number in {**parsed.dead, **events.refused}:
            ids[number] = id_in(events.lines[number])
        if column is not None and not column.null_count and "" not in ids:
            return ids  # type: ignore[return-value]
        for number, given in enumerate(ids):
            if not given:
                ids[number] = (
                    f"hw-{events.writer[number]:016x}-{events.log[number]:016x}-{events.seq[number]}"
                )
        return ids  # type: ignore[return-value]

    def _partitions(self, events: Events, parsed: Parsed, message_ids: list[str]) -> Array:
        slots = events.slot.astype(np.int64)
        unknown = np.flatnonzero(slots == NO_SLOT)
        if len(unknown):
            named = (_texts(parsed, name, unknown) for name in ("anonymousId", "previousId", "userId"))
            for number, a, previous, user in zip(unknown.tolist(), *named, strict=True):
                slots[number] = slot_of(affinity(a, previous, user, message_ids[number]) or "")
        return (slots % self.partitions).astype(np.uint16)

    def _dedupe(self, made: Made, streams: list[str], seen: Seen) -> tuple[Array, Ids | None]:
        """Which events are the first of their id, and the ids that they add."""
        where = np.flatnonzero(made.alive)
        fresh = np.zeros(len(made.events), bool)
        if not len(where):
            return fresh, None
        ids = self._ids(made, streams, where)
        new = seen.add(*ids)
        fresh[where] = new
        high, low, minute, owner = ids
        return fresh, (high[new], low[new], minute[new], owner[new])

    def _ids(self, made: Made, streams: list[str], where: Array) -> Ids:
        """The ids of these events."""
        events, texts = made.events, made.message_ids
        keys = [streams[h] for h in events.head[where].tolist()]
        if len(where) < len(events):
            texts = [texts[i] for i in where.tolist()]
        high, low = hash_ids(keys, texts)
        minute = (events.received_ns[where] // MINUTE_NS).astype(np.uint32)
        return high, low, minute, made.partition[where]

    def _count(
        self,
        events: Events,
        streams: list[str],
        partition: Array,
        alive: Array,
        fresh: Array,
        dead: dict[int, Any],
    ) -> Changes:
        """What is added to the counters, per stream and partition; `in` is the sum of the others. What an operator
        decided is taken out on the way: it counts as filtered."""
        names = sorted(set(streams))
        number_of = np.array([names.index(s) for s in streams], np.int64)
        is_dead = np.zeros(len(events), bool)
        is_dead[list(dead)] = True
        changes: Changes = {}
        if len(events):
            decided = np.array([stream == OPERATOR for stream in streams], bool)[events.head]
            cell = number_of[events.head] * self.partitions + partition
            size = len(names) * self.partitions
            columns = np.zeros((size, len(COUNTERS)), np.int64)
            for counter, mask in (
                (IN, None),
                (OUT, fresh & ~decided),
                (DUPLICATE, alive & ~fresh),
                (DEAD, is_dead),
                (FILTERED, fresh & decided),
                (ERASED, events.erased),
            ):
                columns[:, counter] = np.bincount(cell if mask is None else cell[mask], minlength=size)
            for at in np.flatnonzero(columns[:, IN]).tolist():
                changes.setdefault(names[at // self.partitions], {})[at % self.partitions] = columns[
                    at
                ].tolist()
        if self.damage_here:
            for stream, lost in events.damaged.items():
                counts = changes.setdefault(stream, {}).setdefault(0, [0] * len(COUNTERS))
                counts[IN] += lost
                counts[DAMAGED] += lost
        return changes


def without_decisions(rows: pa.Table) -> pa.Table | None:
    """The rows but for those of an operator's decisions, whose facts are known by now."""
    decided = decisions(rows)
    if decided is None:
        return rows
    return None if decided.all() else rows.filter(pa.array(~decided))


def stranger() -> Recogniser:
    """Recognition without any facts: whatever it makes is settled where it lands."""
    return Recogniser(IdentitySettings().policy, Junk(), Unknown(), lambda partition: False)


def harmless() -> Events:
    """One event without content: whatever processes anything processes this."""
    one = np.zeros(1, np.uint64)
    known = KnownHead("track", "", "", False, False, None, None, None, None)
    return Events(
        [b"{}"],
        one,
        one,
        one,
        one,
        np.zeros(1, np.int64),
        np.zeros(1, "V16"),
        np.zeros(1, np.uint16),
        np.zeros(1, np.uint16),
        [known],
        {},
        {},
        np.zeros(1, bool),
    )


def readable(events: Events) -> Sequence[bytes | memoryview]:
    """The lines as reading may see them: what the door refused can be any bytes, and teaches no columns."""
    if not events.refused:
        return events.lines
    lines = list(events.lines)
    for number in events.refused:
        if number not in events.condemned:
            lines[number] = b"{}"
    return lines


def id_in(line: bytes | memoryview) -> str | None:
    """The message id of what was refused, or looks like it: dead letters are found by it."""
    try:
        found = orjson.loads(line).get("messageId")
    except (ValueError, AttributeError, RecursionError):
        looks = LIKE_AN_ID.search(line)
        found = looks[1].decode() if looks else None
    return found if isinstance(found, str) else None


def take(parsed: Parsed, where: Array) -> Parsed:
    """The lines at these indexes."""
    index = pa.array(where)
    new = {int(old): at for at, old in enumerate(where.tolist())}
    dead = {new[n]: why for n, why in parsed.dead.items() if n in new}
    return Parsed(len(where), {name: column.take(index) for name, column in parsed.columns.items()}, dead)


def dead_table(
    events: Events, streams: list[str], dead: dict[int, tuple[str, str]], message_ids: list[str]
) -> pa.Table | None:
    """The dead letters as they stand in a commit."""
    if not dead:
        return None
    order = sorted(dead)
    at = np.array(order)
    received = pa.array(events.received_ns[at].astype(np.int64) // 1000).cast(TYPES["timestamp"])
    columns = [
        pa.array(events.writer[at]),
        pa.array(events.log[at]),
        pa.array(events.seq[at]),
        pa.array(np.zeros(len(order), np.uint32)),
        pa.array([streams[h] for h in events.head[at].tolist()], pa.string()),
        pa.array([dead[n][0] for n in order], pa.string()),
        pa.array([dead[n][1] for n in order], pa.string()),
        pa.array([message_ids[n] for n in order], pa.string()),
        received,
        pa.array([bytes(events.lines[n]) for n in order], pa.binary()),
    ]
    return pa.table(columns, schema=DEAD_SCHEMA)


def _texts(parsed: Parsed, name: str, where: Array) -> list[str | None]:
    column = parsed.columns.get(name)
    found: list[str | None] = (
        [None] * len(where) if column is None else column.take(pa.array(where)).to_pylist()
    )
    return found
