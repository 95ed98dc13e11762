"""A raw block for some partitions: what belongs to others is left out, its place is kept.

Single events whose slot is known and belongs to another partition become ELSEWHERE records, one for each run of them:
so sequence numbers, the counts per stream and the time of the block stay as at home, and damage is still counted.
Heads that only they had go too. Batches, events without a slot and what the door refused stay whole: only reading them
tells whose they are.

On the data's way, so nothing here is done per event in Python. Measured for a third of the partitions, 1 KiB bodies
and 8 heads per block, on two cores with other work (benchmarks/mirror.py): 2.2 µs per event in blocks of 16, 0.13 µs
in blocks of 600.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from headwater.event.record import COUNTS, DEAD, ELSEWHERE, ERASED, SINGLE, STAMP_BYTES, split_heads
from headwater.event.slots import NO_SLOT, SLOTS

Array = np.ndarray[Any, Any]
WORDS = STAMP_BYTES // 4
ADDRESS, BODY, HEAD, EVENTS, REFUSED, KIND, SPARE = slice(2, 6), 6, 7, 8, 9, 10, 11
"""A stamp as u32 (event/record.STAMP_FIELDS): the slot is the lower half of KIND, the flags are the upper."""
FLAGS = SINGLE | DEAD | ERASED | ELSEWHERE
NOBODY = ELSEWHERE << 16 | NO_SLOT
NEWLINE = b"\n"


class Blanked(NamedTuple):
    """A payload that may have become smaller."""

    parts: Sequence[bytes | memoryview]
    records: int


def unwanted(wanted: Iterable[int], partitions: int) -> Array:
    """Of each number that a stamp may have as its slot: whether it belongs to none of the ``wanted`` partitions."""
    mine = np.zeros(partitions, bool)
    mine[list(wanted)] = True
    table = np.zeros(NO_SLOT + 1, bool)
    table[:SLOTS] = ~mine[np.arange(SLOTS) % partitions]
    return table


def blank(payload: memoryview, unwanted_slot: Array) -> Blanked:
    """The payload without what is unwanted; the same bytes where all of it is wanted."""
    records, events, refused, head_bytes, stream_bytes, _ = COUNTS.unpack_from(payload)
    stamps = np.frombuffer(payload, "<u4", records * WORDS, COUNTS.size).reshape(records, WORDS)
    kind = stamps[:, KIND]
    gone = ((kind >> 16) & FLAGS == SINGLE) & unwanted_slot[kind & 0xFFFF]
    if not gone.any():
        return Blanked((payload,), records)
    begins = ~gone
    begins[0] = True
    begins[1:] |= ~gone[:-1]
    (leaders,) = begins.nonzero()  # those that stay, and the first of each run that goes
    left = stamps[leaders]
    going = gone[leaders]
    lengths = np.empty_like(leaders)
    lengths[:-1] = leaders[1:] - leaders[:-1]
    lengths[-1] = records - leaders[-1]
    left[going] = blanked(left[going], lengths[going])

    refused_at = COUNTS.size + records * STAMP_BYTES
    heads_at = refused_at + 4 * refused
    streams_at = heads_at + head_bytes
    bodies_at = streams_at + stream_bytes
    heads = needed_heads(payload[heads_at:streams_at], int(stamps[:, HEAD].max()) + 1, left, ~going)
    bodies = b"".join(body_pieces(payload[bodies_at:], stamps, gone))
    counts = COUNTS.pack(len(left), events, refused, len(heads), stream_bytes, len(bodies))
    rest = (payload[refused_at:heads_at], heads, payload[streams_at:bodies_at], bodies)
    return Blanked((counts, left.tobytes(), *rest), len(left))


def blanked(first: Array, lengths: Array) -> Array:
    """The stamps of runs that go, from the first stamp of each: the time is kept, for the order of a block."""
    first[:, ADDRESS] = 0
    first[:, BODY : SPARE + 1] = 0
    first[:, EVENTS] = lengths
    first[:, KIND] = NOBODY
    return first


def needed_heads(heads: memoryview, count: int, stamps: Array, here: Array) -> bytes:
    """Of so many heads, those that the records that stay refer to; ``stamps`` are changed to their new numbers."""
    used = stamps[here, HEAD]
    needed = np.zeros(count, bool)
    needed[used] = True
    if needed.all():
        return bytes(heads)
    stamps[here, HEAD] = (needed.cumsum() - 1)[used]
    every = split_heads(bytes(heads))
    kept = [every[number] for number in needed.nonzero()[0].tolist()]
    return b"".join([len(head).to_bytes(4, "little") + head for head in kept])


def body_pieces(bodies: memoryview, stamps: Array, gone: Array) -> Iterable[bytes | memoryview]:
    """The bodies that stay, in stretches, with an empty one in the place of each run that goes."""
    ends = stamps[:, BODY].cumsum(dtype=np.int64)
    (changes,) = (gone[1:] != gone[:-1]).nonzero()
    borders = [0, *(ends[changes] + changes + 1).tolist(), len(bodies)]
    going = bool(gone[0])
    for start, end in pairwise(borders):
        yield NEWLINE if going else bodies[start:end]
        going = not going
