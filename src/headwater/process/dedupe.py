"""Ids seen: exact, in flat arrays, bounded (protocol.md §4, §17.11; speed.md §3.1).

An id is the 128-bit hash of (stream, message id). The table is open addressing over numpy arrays; a batch is checked
and added at once, in order, so the first of two copies in one batch wins. An entry is 22 bytes: two hash halves, the
minute of receipt, the partition.

What is seen of a partition is a function of the set of its events: a copy is a duplicate iff an event with that id was
received at most the window before it (to the minute), and the window's *edge* of the partition has not passed that
minute. The edge rises when the partition has used up its share of the memory; it is part of its state.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from xxhash import xxh3_64, xxh3_64_intdigest, xxh3_128_digest

from headwater.kit.errors import Broken

MINUTE_NS = 60_000_000_000
ENTRY_BYTES = 22
LOAD_MAX = 0.5
EMPTY_PARTITION = 0xFFFF

Array = np.ndarray[Any, Any]
Ids = tuple[Array, Array, Array, Array]
"""high u64, low u64, minute u32, partition u16; one entry per id."""


def hash_ids(streams: Sequence[str], ids: Sequence[str]) -> tuple[Array, Array]:
    """High and low halves of hash128(stream, message id)."""
    seeds = {stream: xxh3_64_intdigest(stream.encode()) for stream in set(streams)}
    if len(seeds) == 1:
        (seed,) = seeds.values()
        digests = b"".join([xxh3_128_digest(i.encode(), seed) for i in ids])
    else:
        digests = b"".join([xxh3_128_digest(i.encode(), seeds[s]) for s, i in zip(streams, ids, strict=True)])
    halves = np.frombuffer(digests, ">u8").astype(np.uint64).reshape(-1, 2)
    return np.ascontiguousarray(halves[:, 0]), np.ascontiguousarray(halves[:, 1])


class Seen:
    """The ids of one processor's partitions."""

    def __init__(self, *, partitions: int, memory_bytes: int, window_s: float) -> None:
        self.window_minutes = max(1, int(-(-window_s // 60)))
        self.entries_max = max(
            1024, int(memory_bytes / 2 / ENTRY_BYTES * LOAD_MAX)
        )  # half: room to grow and rebuild
        self.share = max(16, self.entries_max // partitions)
        self.edge = np.zeros(partitions, np.uint32)
        """Per partition: ids received before this minute are forgotten."""
        self.count = 0
        self.left = 0
        """How many were left when ``remember`` last had to forget some."""
        self._allocate(1 << 12)

    def add(self, high: Array, low: Array, minute: Array, partition: Array) -> Array:
        """True for each id that was not seen; those are seen from now on. In order: the first copy wins."""
        self._room_for(len(high))
        fresh = np.zeros(len(high), bool)
        todo = np.arange(len(high))[
            ::-1
        ].copy()  # reversed: of equal claims numpy keeps the last, so the earliest wins
        at = (high[todo] ^ (low[todo] >> np.uint64(7))) & self.mask
        while len(todo):
            owner = self.partition[at]
            same = (self.high[at] == high[todo]) & (self.low[at] == low[todo]) & (owner != EMPTY_PARTITION)
            if same.any():
                self._meet(todo[same], at[same], minute, partition, fresh)
            free = owner == EMPTY_PARTITION
            if free.any():
                slots, rows = at[free], todo[free]
                self.claim[slots] = rows
                won = self.claim[slots] == rows
                slots, rows = slots[won], rows[won]
                self.high[slots], self.low[slots] = high[rows], low[rows]
                self.minute[slots], self.partition[slots] = minute[rows], partition[rows]
                fresh[rows] = True
                self.count += len(rows)
                done = same.copy()
                done[np.flatnonzero(free)[won]] = True
                move = ~done & ~free
            else:
                done, move = same, ~same
            at[move] = (at[move] + np.uint64(1)) & self.mask
            todo, at = todo[~done], at[~done]
        return fresh

    def remember(self, ids: Ids) -> None:
        """Add ids that are known to be seen (rebuilding); order does not matter, the latest minute stays. As bounded as
        when they were seen first: the runs on disk hold all of the window, however short it was in memory."""
        self.add(*ids)
        if self.count > max(self.entries_max, self.left + self.left // 4):
            self._shed()
            self.left = self.count

    def forget(self, partitions: Collection[int]) -> None:
        """Nothing of these partitions was seen: they went to another node, or come back from one at another vector."""
        gone = np.zeros(EMPTY_PARTITION + 1, bool)
        gone[list(partitions)] = True
        self.partition[gone[self.partition]] = EMPTY_PARTITION
        self.edge[list(partitions)] = 0
        self._rebuild(len(self.high))

    def expire(self, now_minute: int) -> None:
        """Forget what no window reaches any more, and raise the edge of partitions that hold more than their share."""
        oldest = max(0, now_minute - self.window_minutes)
        np.maximum(self.edge, np.uint32(oldest), out=self.edge)
        self._shed()

    def _shed(self) -> None:
        """Raise the edge of partitions that hold more than their share, and forget what lies below the edges."""
        live = self.partition != EMPTY_PARTITION
        held = np.bincount(self.partition[live], minlength=len(self.edge))
        for number in np.flatnonzero(held > self.share):
            minutes = np.sort(self.minute[live & (self.partition == number)])
            kept_from = minutes[len(minutes) - self.share * 3 // 4]
            # never into the last two minutes: a client's retry comes at once, and memory follows the rate then
            self.edge[number] = max(int(self.edge[number]), min(int(kept_from) + 1, int(minutes[-1]) - 1))
        self._rebuild(len(self.high))

    def window_s(self, now_minute: int) -> float:
        """The window that holds for every partition at this moment, seconds."""
        return 60.0 * max(0, min(self.window_minutes, now_minute - int(self.edge.max(initial=0))))

    def _meet(self, rows: Array, slots: Array, minute: Array, partition: Array, fresh: Array) -> None:
        """Ids that are in the table: duplicates, unless the copy there is too old to count."""
        for row, slot in zip(rows[::-1].tolist(), slots[::-1].tolist(), strict=True):
            known = int(self.minute[slot])
            if int(minute[row]) > known + self.window_minutes or known < self.edge[self.partition[slot]]:
                fresh[row] = True
                self.partition[slot] = partition[row]
            self.minute[slot] = max(known, int(minute[row])) if not fresh[row] else minute[row]

    def _allocate(self, slots: int) -> None:
        self.mask = np.uint64(slots - 1)
        self.high = np.zeros(slots, np.uint64)
        self.low = np.zeros(slots, np.uint64)
        self.minute = np.zeros(slots, np.uint32)
        self.partition = np.full(slots, EMPTY_PARTITION, np.uint16)
        self.claim = np.zeros(slots, np.int64)

    def _room_for(self, more: int) -> None:
        slots = len(self.high)
        while (self.count + more) > slots * LOAD_MAX:
            slots *= 2
        if slots != len(self.high):
            self._rebuild(slots)

    def _rebuild(self, slots: int) -> None:
        live = self.partition != EMPTY_PARTITION
        live[live] = self.minute[live] >= self.edge[self.partition[live]]
        ids = self.high[live], self.low[live], self.minute[live], self.partition[live]
        self._allocate(slots)
        self.count = 0
        self.add(*ids)


MAGIC = b"HWI1"
CHUNK = struct.Struct("<4sIIIQ")
"""magic, entries, first minute, last minute, xxh3_64 of the arrays."""


def bytes_of(ids: Ids) -> bytes:
    """The four arrays, one after the other."""
    high, low, minute, partition = ids
    return b"".join(
        (high.tobytes(), low.tobytes(), minute.astype("<u4").tobytes(), partition.astype("<u2").tobytes())
    )


def arrays_of(body: bytes | memoryview, count: int) -> Ids:
    """The four arrays of ``count`` entries out of ``bytes_of`` them, without a copy."""
    return (
        np.frombuffer(body, "<u8", count, 0),
        np.frombuffer(body, "<u8", count, 8 * count),
        np.frombuffer(body, "<u4", count, 16 * count),
        np.frombuffer(body, "<u2", count, 20 * count),
    )


def encode_ids(ids: Ids) -> bytes:
    """A chunk of ids: CHUNK, then the four arrays. The delta of a commit."""
    data = bytes_of(ids)
    minute = ids[2]
    first, last = (int(minute.min()), int(minute.max())) if len(minute) else (0, 0)
    return CHUNK.pack(MAGIC, len(minute), first, last, xxh3_64(data).intdigest()) + data


def decode_ids(data: bytes | memoryview, at: int = 0) -> tuple[Ids, int]:
    """One chunk and where the next begins; Broken where it is torn."""
    if len(data) - at < CHUNK.size:
        raise Broken("a chunk of ids is cut short", code="ids_torn")
    magic, count, _, _, digest = CHUNK.unpack_from(data, at)
    at += CHUNK.size
    body = data[at : at + count * ENTRY_BYTES]
    if magic != MAGIC or len(body) != count * ENTRY_BYTES or xxh3_64(body).intdigest() != digest:
        raise Broken("a chunk of ids is damaged", code="ids_torn")
    return arrays_of(body, count), at + len(body)
