"""What keeps events that a channel cannot deliver, until somebody replays them (the seed's advice listener; R2, R3).

A listener is injected into an ``OutboundChannel``. What it is handed it keeps durably, in *lanes*: within a lane the
order stays. A replayer (replay.py) delivers what is in the lanes to the consumers, and the listener can tell how far
that is. ``lane/kafka/advice`` keeps events in a Kafka topic; ``MemoryAdvice`` is for tests.

The bytes of an event in a spool::

    version u8 = 1 | mac, 16 bytes | msgpack [topic, producer, number, slot, first_ms, data]

The mac is a keyed hash by what all processes of the cluster know, so that nobody else's records are taken for events.
It hides nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from hmac import compare_digest
from typing import NamedTuple, Protocol

import msgspec

from headwater.kit.errors import Rejected
from headwater.peer.connection import Identity

VERSION = b"\x01"
MAC_BYTES = 16
HEAD_BYTES_MAX = 1024
"""What a record in a spool has beside the event, at most."""


class AdviceSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How much a channel may have at its listener, and how it follows the replay."""

    backlog_events_max: int = 1_000_000
    """Events of this producer that are kept and not replayed yet; with more, events stay in memory, and `send` waits
    once that is full (R3)."""
    backlog_bytes_max: int = 1024 * 1024 * 1024
    """The same in bytes."""
    look_s: float = 0.3
    """How often the listener is asked how far the replay is, seconds."""
    close_events: int = 2_000
    """Once a lane has no more than so many events to be replayed, newer ones of its slots wait in memory, so that live
    flow can resume (R4)."""
    close_s: float = 5.0
    """They wait for so long at most; then they are kept, too."""

    def __post_init__(self) -> None:
        for name in ("backlog_events_max", "backlog_bytes_max", "close_events", "look_s", "close_s"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name}: expected more than 0, got {getattr(self, name)}")


class Undelivered(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """An event that could not be delivered; it keeps its identity and the time when it was first seen (R5)."""

    topic: str
    producer: str
    number: int
    slot: int
    first_ms: int
    """When the producer accepted it, by its wall clock."""
    data: bytes

    def __post_init__(self) -> None:
        for name, most in (("number", 1 << 64), ("slot", 1 << 16), ("first_ms", 1 << 63)):
            if not 0 <= getattr(self, name) < most:
                raise ValueError(f"{name}: expected 0 to {most - 1}, got {getattr(self, name)}")
        if len(self.producer) > 255 or len(self.topic) > 255:
            raise ValueError("topic, producer: expected at most 255 characters")


class Place(NamedTuple):
    """Where an event is kept."""

    lane: int
    offset: int


class AdviceListener(Protocol):
    """What a channel needs of it. Used by one event loop."""

    @property
    def lanes(self) -> int:
        """How many there are; at least 1."""
        ...

    @property
    def event_bytes_max(self) -> int:
        """A larger event cannot be kept, and is rejected by the channel (R2: ``too_large``)."""
        ...

    async def left(self, topic: str) -> Mapping[int, Place]:
        """Slot → its last event that is not replayed yet, as former processes left it. Unavailable: not known now."""
        ...

    async def keep(self, lane: int, events: Sequence[Undelivered]) -> int:
        """Keep them behind all that was kept in this lane before; on return they are durable. The offset of the last.
        Unavailable, Busy: not (all) kept, or not known; the same events come again."""
        ...

    async def replayed(self) -> Mapping[int, int]:
        """Lane → the offset below which everything is delivered, or a dead letter. Unavailable: not known now."""
        ...


class MemoryAdvice:
    """An advice listener that forgets, for tests. ``done`` says how far a replay is."""

    def __init__(self, lanes: int = 4, event_bytes_max: int = 1 << 20) -> None:
        self.lanes = lanes
        self.event_bytes_max = event_bytes_max
        self.kept: list[list[Undelivered]] = [[] for _ in range(lanes)]
        self.done = dict.fromkeys(range(lanes), 0)
        self.error: Exception | None = None
        """Raised by everything, while it is set."""

    async def left(self, topic: str) -> Mapping[int, Place]:
        self.check()
        return {
            event.slot: Place(lane, offset)
            for lane, events in enumerate(self.kept)
            for offset, event in enumerate(events)
            if offset >= self.done[lane] and event.topic == topic
        }

    async def keep(self, lane: int, events: Sequence[Undelivered]) -> int:
        self.check()
        self.kept[lane] += events
        return len(self.kept[lane]) - 1

    async def replayed(self) -> Mapping[int, int]:
        self.check()
        return dict(self.done)

    def check(self) -> None:
        if self.error is not None:
            raise self.error


def lane_of(node: str, lanes: int) -> int:
    """The lane for what could not be delivered to this consumer, so that consumers hinder each other little."""
    return int.from_bytes(blake2b(node.encode(), digest_size=8).digest(), "big") % lanes


def key_of(identity: Identity) -> bytes:
    """What a cluster's records are signed with; where nodes have certificates only, by the cluster's name alone."""
    secret = blake2b(identity.secret).digest()
    return blake2b(identity.cluster.encode(), key=secret, person=b"headwater-advice").digest()


def encode(event: Undelivered, key: bytes) -> bytes:
    """The bytes that are kept."""
    told = msgspec.msgpack.encode(event)
    return b"".join((VERSION, mac(told, key), told))


def decode(data: bytes, key: bytes) -> Undelivered:
    """From ``encode``. Rejected: nobody of this cluster wrote it, or it is spoilt."""
    told = memoryview(data)[1 + MAC_BYTES :]
    if data[:1] != VERSION or not compare_digest(mac(told, key), data[1 : 1 + MAC_BYTES]):
        raise Rejected(
            f"{len(data)} bytes that no producer of this cluster has signed",
            code="advice_record",
            help="does somebody else use the topic, or a process with another secret?",
        )
    try:
        return msgspec.msgpack.decode(told, type=Undelivered)
    except msgspec.MsgspecError as error:
        raise Rejected(f"not an undelivered event: {error}", code="advice_record") from error


def mac(told: bytes | memoryview, key: bytes) -> bytes:
    return blake2b(told, digest_size=MAC_BYTES, key=key).digest()
