"""Batches: many events in one frame's body, opaque to whoever carries them (jetstream.md §15.1 C8).

::

    count u32 · length u32 × count · the events, one after the other          big-endian

A batch is sent when it has 512 events or 256 KiB, or when its first event has waited 5 ms. An event that no frame can
hold is refused to the one who gave it, never dropped.
"""

from __future__ import annotations

import array
import struct
import sys
from collections.abc import Sequence

from headwater.kit.errors import Rejected
from headwater.peer import frames

EVENTS_MAX = 512
BYTES_MAX = 256 * 1024
WAIT_S = 0.005
HEADER_ROOM_BYTES = 64 * 1024
EVENT_BYTES_MAX = frames.FRAME_BYTES_MAX - HEADER_ROOM_BYTES
COUNT = struct.Struct(">I")


class Batch:
    """Events that wait to be sent together. Whoever owns it looks at the clock."""

    def __init__(self, events_max: int = EVENTS_MAX, bytes_max: int = BYTES_MAX) -> None:
        self.events_max = events_max
        self.bytes_max = bytes_max
        self.events: list[bytes] = []
        self.size_bytes = 0

    def add(self, event: bytes) -> bool:
        """Take it; True when the batch is to be sent now. Rejected (``too_large``) when no frame can hold it."""
        size = len(event)
        if size > EVENT_BYTES_MAX:
            raise Rejected(
                f"an event of {size} bytes",
                code="too_large",
                help=f"an event has at most {EVENT_BYTES_MAX} bytes",
            )
        self.events.append(event)
        self.size_bytes += size
        return self.size_bytes >= self.bytes_max or len(self.events) >= self.events_max

    def fits(self, event: bytes) -> bool:
        """Whether ``event`` may go with the others; else they are sent first."""
        return self.size_bytes + len(event) <= EVENT_BYTES_MAX

    def take(self) -> bytes:
        """The body of a frame with all of them; the batch is empty then."""
        body = pack(self.events)
        self.events = []
        self.size_bytes = 0
        return body


def pack(events: Sequence[bytes]) -> bytes:
    """A frame's body that holds these events."""
    lengths = array.array("I", map(len, events))
    if sys.byteorder == "little":
        lengths.byteswap()
    return b"".join((COUNT.pack(len(events)), lengths.tobytes(), *events))


def unpack(body: memoryview) -> list[memoryview]:
    """The events of a body, as views of it. Rejected: it is no batch."""
    if len(body) < COUNT.size:
        raise bad_batch(body)
    count = COUNT.unpack_from(body)[0]
    at = COUNT.size * (1 + count)
    if at > len(body):
        raise bad_batch(body)
    lengths = array.array("I")
    lengths.frombytes(body[COUNT.size : at])
    if sys.byteorder == "little":
        lengths.byteswap()
    if at + sum(lengths) != len(body):
        raise bad_batch(body)
    found = []
    for length in lengths:
        found.append(body[at : at + length])
        at += length
    return found


def bad_batch(body: memoryview) -> Rejected:
    return Rejected(f"a body of {len(body)} bytes that is no batch of events", code="bad_batch")
