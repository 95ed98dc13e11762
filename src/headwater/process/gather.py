"""From blocks to events: which bytes, which stamps, in which order (protocol.md §3).

Single events lie in a block as lines and are taken as they are; only records that hold several events, or speak a
dialect whose bodies are not JSON, are split by their dialect. What was refused at the door comes out as dead letters.
In the mirror of another node's log, what belongs to others is no event here: the sequence numbers go on behind it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import orjson

from headwater.event.record import (
    DEAD,
    ELSEWHERE,
    ERASED,
    SINGLE,
    Head,
    Payload,
    addresses,
    decode_head,
    decode_payload,
)
from headwater.log.read import Block
from headwater.process.heads import HeadTable, KnownHead

Array = np.ndarray[Any, Any]


class Split(Protocol):
    """What a dialect makes of one record; see dialects/split.py."""

    @property
    def items(self) -> Sequence[bytes]: ...
    @property
    def sent_at(self) -> str | None: ...
    @property
    def context(self) -> bytes | None: ...
    @property
    def failure(self) -> str | None: ...


class Dialect(Protocol):
    """The processing half of a dialect; see dialects/registry.py."""

    @property
    def split(self) -> Callable[[Head, bytes, int], Split]: ...
    @property
    def default_type(self) -> Callable[[Head], str]: ...
    @property
    def why(self) -> Callable[[Head, bytes], tuple[str, str]]: ...


@dataclass(slots=True)
class Events:
    """The events of a cut, in the order in which they are processed; arrays have one entry per event."""

    lines: list[bytes | memoryview]
    writer: Array
    log: Array
    seq: Array
    received_ns: Array
    head: Array
    address: Array
    address_flags: Array
    slot: Array
    heads: list[KnownHead]
    """Indexed by ``head``; those of this cut only."""
    sent_at: dict[int, str]
    """Event → sentAt of its batch, where the event itself may have none."""
    refused: dict[int, tuple[str, str]]
    """Event → (reason, field): refused at the door, or not readable by its dialect."""
    erased: Array
    damaged: dict[str, int] = field(default_factory=dict)
    condemned: set[int] = field(default_factory=set)
    """Refused ones that can be read all the same: their ids tell their partition."""

    def __len__(self) -> int:
        return len(self.lines)


class Gatherer:
    """Turns blocks into ``Events``; keeps caches between cuts, nothing else."""

    def __init__(self, dialect: Callable[[str], Dialect]) -> None:
        self.dialect = dialect
        self.table = HeadTable(lambda head: dialect(head.dialect).default_type(head))
        self.so_far: dict[int, dict[str, int]] = {}
        """Log → events per stream up to the last block seen; tells what a damaged stretch held."""

    def gather(self, blocks: Sequence[Block]) -> Events:
        """All events of the blocks, sorted by (receive time, writer, log, seq)."""
        self.table.make_room()
        parts = Parts(self.table.heads)
        for block in blocks:
            if block.payload is None:
                parts.lost_events += block.header.events
                continue
            payload = decode_payload(block.payload)
            self._count_damage(block, payload, parts)
            self._block(block, payload, parts)
        if parts.lost_events:  # damage with nothing readable behind it: its stream is not known
            parts.damaged[""] = parts.damaged.get("", 0) + parts.lost_events
        return parts.events()

    def _count_damage(self, block: Block, payload: Payload, parts: Parts) -> None:
        log = block.header.log_id
        if parts.lost_events:
            before = self.so_far.get(log, {})
            for stream, counts in payload.streams.items():
                lost = counts.so_far - counts.here - before.get(stream, 0)
                if lost and log in self.so_far:
                    parts.damaged[stream] = parts.damaged.get(stream, 0) + lost
                    parts.lost_events -= lost
        self.so_far[log] = {stream: counts.so_far for stream, counts in payload.streams.items()}
        if len(self.so_far) > 64:
            self.so_far.pop(next(iter(self.so_far)))

    def _block(self, block: Block, payload: Payload, parts: Parts) -> None:
        stamps = payload.stamps
        numbers = self.table.numbers(payload.heads)
        at = len(parts.lines)
        bodies, starts = payload.bodies, payload.body_start.tolist()
        single = stamps["flags"] & (SINGLE | DEAD | ERASED) == SINGLE
        if single.all():
            parts.lines += [bodies[a : b - 1] for a, b in itertools.pairwise(starts)]
        else:
            ends = starts[1:]
            here = stamps["flags"] & ELSEWHERE == 0
            if not here.all():
                parts.skip(stamps, here)
                starts = payload.body_start[:-1][here].tolist()
                ends = payload.body_start[1:][here].tolist()
                stamps, single = stamps[here], single[here]
            refused_at = np.concatenate(([0], np.cumsum(stamps["refused"], dtype=np.int64)))
            for number, alone in enumerate(single.tolist()):
                body = bodies[starts[number] : ends[number] - 1]
                if alone:
                    parts.lines.append(body)
                else:
                    head = decode_head(payload.heads[stamps["head"][number]])
                    refused = payload.refused[refused_at[number] : refused_at[number + 1]]
                    self._record(head, bytes(body), stamps[number], refused, parts)
        parts.stamps.append(stamps)
        parts.numbers.append(numbers)
        parts.places.append(
            (
                int(block.writer),
                block.header.log_id,
                block.header.first_seq,
                len(stamps),
                len(numbers),
                len(parts.lines) - at,
            )
        )

    def _record(self, head: Head, body: bytes, stamp: Any, refused: Array, parts: Parts) -> None:
        at, count = len(parts.lines), int(stamp["events"])
        if stamp["flags"] & ERASED:
            parts.lines += [b"{}"] * count
            return
        if stamp["flags"] & DEAD:
            reason, _, field_name = head.refusal.partition("|")
            parts.lines += [body] + [b"{}"] * (count - 1)
            for number in range(count):
                parts.refused[at + number] = (reason or "refused at the door", field_name)
            return
        try:
            split = self.dialect(head.dialect).split(head, body, count)
            items = split.items if split.context is None else with_context(split.items, split.context)
        except Exception as error:  # a bug of ours: it must not stop the other records
            parts.lines += [body] + [b"{}"] * (count - 1)
            why = f"the request could not be split into events: {error}"[:500]
            parts.refused |= dict.fromkeys(range(at, at + count), (why, ""))
            return
        parts.lines += items
        if split.failure is not None:
            parts.refused |= dict.fromkeys(range(at, at + count), (split.failure, ""))
        if split.sent_at is not None:
            for number in range(count):
                parts.sent_at[at + number] = split.sent_at
        for number in refused.tolist():
            parts.refused[at + number] = self.dialect(head.dialect).why(head, bytes(split.items[number]))


def with_context(items: Sequence[bytes], context: bytes) -> list[bytes]:
    """The events of a batch, each with what the batch says about all of them where it says nothing itself."""
    shared = orjson.loads(context)
    merged = []
    for item in items:
        try:
            event = orjson.loads(item)
            own = event.get("context") or {}
            merged.append(orjson.dumps({**event, "context": {**shared, **own}}))
        except (orjson.JSONDecodeError, AttributeError, TypeError):
            merged.append(item)  # not an event: the reading says why
    return merged


class Parts:
    """Pieces of ``Events`` while blocks are read: per block its arrays as they lie, joined once at the end."""

    def __init__(self, heads: list[KnownHead]) -> None:
        self.heads = heads
        self.lines: list[bytes | memoryview] = []
        self.sent_at: dict[int, str] = {}
        self.refused: dict[int, tuple[str, str]] = {}
        self.damaged: dict[str, int] = {}
        self.lost_events = 0
        self.stamps: list[Array] = []
        self.numbers: list[Array] = []
        self.places: list[tuple[int, int, int, int, int, int]] = []
        """Of each block: writer, log, first seq, and how many records, heads and events."""
        self.skipped: list[tuple[int, Array]] = []
        """Of each block with ELSEWHERE records: its first line, and of each line how many such events lie before it."""

    def skip(self, stamps: Array, here: Array) -> None:
        """The block that comes next has these records, and only those that are ``here`` have lines."""
        before = np.cumsum(np.where(here, 0, stamps["events"]), dtype=np.uint64)[here]
        self.skipped.append((len(self.lines), np.repeat(before, stamps["events"][here])))

    def events(self) -> Events:
        """Everything in one, sorted."""
        if not self.lines:
            none = np.zeros(0, np.uint64)
            nothing = np.zeros(0, bool)
            return Events(
                [], none, none, none, none, none, none, none, none, [], {}, {}, nothing, self.damaged
            )
        stamps = np.concatenate(self.stamps)
        places = np.array(self.places, np.uint64)
        records, heads, counts = places[:, 3:].astype(np.int64).T
        first_head = np.repeat(np.cumsum(heads) - heads, records)
        used, head = np.unique(np.concatenate(self.numbers)[first_head + stamps["head"]], return_inverse=True)
        event = np.arange(len(self.lines))
        first_event = np.cumsum(counts) - counts
        seq = np.repeat(places[:, 2] - first_event.astype(np.uint64), counts) + event.astype(np.uint64)
        for first, before in self.skipped:
            seq[first : first + len(before)] += before
        if len(stamps) < len(self.lines) or not (stamps["events"] == 1).all():
            per_event = np.repeat(np.arange(len(stamps)), stamps["events"])
            stamps, head = stamps[per_event], head[per_event]
        flags = np.ascontiguousarray(stamps["flags"])
        events = Events(
            self.lines,
            np.repeat(places[:, 0], counts),
            np.repeat(places[:, 1], counts),
            seq,
            np.ascontiguousarray(stamps["received"]),
            head,
            addresses(stamps),
            flags,
            np.ascontiguousarray(stamps["slot"]),
            [self.heads[number] for number in used.tolist()],
            self.sent_at,
            self.refused,
            (flags & ERASED) != 0,
            self.damaged,
        )
        order = np.lexsort((events.seq, events.log, events.writer, events.received_ns))
        return events if (order[1:] > order[:-1]).all() else select(events, order)


def select(events: Events, order: Array) -> Events:
    """The events at these indexes, in this order."""
    where = (
        {int(old): new for new, old in enumerate(order.tolist())}
        if events.sent_at or events.refused or events.condemned
        else {}
    )
    return Events(
        [events.lines[i] for i in order.tolist()],
        events.writer[order],
        events.log[order],
        events.seq[order],
        events.received_ns[order],
        events.head[order],
        events.address[order],
        events.address_flags[order],
        events.slot[order],
        events.heads,
        {where[i]: text for i, text in events.sent_at.items() if i in where},
        {where[i]: why for i, why in events.refused.items() if i in where},
        events.erased[order],
        events.damaged,
        {where[i] for i in events.condemned if i in where},
    )
