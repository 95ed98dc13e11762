"""The consumer's side of a channel: takes batches from producers, for the slots that this node owns.

A batch with an event of a slot that this node does not own by the newest directory is refused whole (NACK, C6), and
the connection ends: nothing of it or after it was processed, the producer looks who owns it and sends all again.
Ownership is looked at when the batch is about to be processed, not when it arrived. Events that were processed
already are dropped (``duplicates``): each producer's last ``IDS_MAX`` numbers are remembered, more than it can have
unacknowledged.

While ``pause`` holds, nothing is processed or acknowledged and no credit is given: producers wait, ownership stays
(C4). A producer that sends more than its credit is refused.
"""

from __future__ import annotations

import asyncio
import struct
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

from headwater.cluster.channels.topic import Directory, Discover
from headwater.kit.errors import Rejected
from headwater.peer import batch
from headwater.peer.connection import Connection, Frame, Identity, Kind
from headwater.peer.credit import BYTES_WINDOW, EVENTS_WINDOW, Granting

IDS_MAX = 100_000
PRODUCERS_MAX = 256
"""Beyond them the ids of the one that was silent longest are forgotten."""


class Received(NamedTuple):
    """An event as it came. ``data`` is a view: copy what is kept."""

    producer: str
    number: int
    slot: int
    data: memoryview


Handle = Callable[[Sequence[Received]], Awaitable[None]]
"""Processes events of one producer, in order. When it returns, they are acknowledged; when it raises, they come
again."""


class Ids:
    """The last numbers of one producer that were processed."""

    def __init__(self) -> None:
        self.known: set[int] = set()
        self.order: deque[int] = deque()

    def add(self, number: int) -> None:
        self.known.add(number)
        self.order.append(number)
        if len(self.order) > IDS_MAX:
            self.known.discard(self.order.popleft())


class InboundChannel:
    """A topic to take events from. ``serve`` is for ``connection.listen``."""

    def __init__(
        self,
        topic: str,
        identity: Identity,
        discover: Discover,
        handle: Handle,
        *,
        credit_events: int = EVENTS_WINDOW,
        credit_bytes: int = BYTES_WINDOW,
    ) -> None:
        self.topic = topic
        self.identity = identity
        self.discover = discover
        self.handle = handle
        self.credit = (credit_events, credit_bytes)
        self.running = asyncio.Event()
        self.running.set()
        self.ids: dict[str, Ids] = {}
        self.turns: dict[str, asyncio.Lock] = {}
        self.counts: Counter[str] = Counter()
        """``processed``, ``duplicates``, ``refused`` (batches of others' slots)."""

    def pause(self) -> None:
        """Process nothing more; what is being processed is finished."""
        self.running.clear()

    def resume(self) -> None:
        self.running.set()

    async def serve(self, peer: Connection) -> None:
        """One producer, until it goes."""
        opening = await peer.receive()
        if opening is None:
            return
        producer = opening.header.get("producer")
        if (
            opening.kind != Kind.OPEN
            or opening.header.get("topic") != self.topic
            or not isinstance(producer, str)
        ):
            peer.refuse(Rejected(f"this is the topic {self.topic!r}", code="unexpected_frame"))
            return
        granting = Granting(*self.credit)
        await peer.send(Kind.OPEN, {"topic": self.topic, "events": self.credit[0], "bytes": self.credit[1]})
        while (frame := await peer.receive()) is not None:
            if frame.kind not in (Kind.DATA, Kind.FIRE):
                peer.ignore(frame)
                continue
            try:
                granting.receive(*size_of(frame))
                events = events_of(frame, producer)
            except Rejected as error:
                peer.refuse(error)
                return
            if not await self.process(producer, events):
                self.counts["refused"] += 1
                refusal = {"reason": "not_owner", "epoch": self.discover().epoch, "events": len(events)}
                await peer.send(Kind.NACK, refusal)
                return
            if frame.kind == Kind.DATA:
                await peer.send(Kind.ACK, {"to": frame.header.get("seq")})
            totals = granting.finish(*size_of(frame))
            if totals is not None:
                await peer.send(Kind.CREDIT, {"events": totals.events, "bytes": totals.size_bytes})

    async def process(self, producer: str, events: Sequence[Received]) -> bool:
        """Hand them to the application; False: not all are ours, and none was handed over.

        One batch of a producer at a time, also when a former connection of it still ends: what that one processed
        must be known before the same events are looked at again.
        """
        async with self.turns.setdefault(producer, asyncio.Lock()):
            await self.running.wait()
            directory = self.discover()
            if not self.ours(directory, events):
                return False
            ids = self.ids_of(producer)
            new = [event for event in events if event.number not in ids.known]
            self.counts["duplicates"] += len(events) - len(new)
            if new:
                await self.handle(new)
            for event in new:
                ids.add(event.number)
            self.counts["processed"] += len(new)
            return True

    def ours(self, directory: Directory, events: Sequence[Received]) -> bool:
        return all(directory.owns(self.identity.node, slot) for slot in {event.slot for event in events})

    def ids_of(self, producer: str) -> Ids:
        """The producer's, as the one that was heard last."""
        ids = self.ids.pop(producer, None) or Ids()
        self.ids[producer] = ids
        while len(self.ids) > PRODUCERS_MAX:
            silent = next(iter(self.ids))
            del self.ids[silent]
            self.turns.pop(silent, None)
        return ids


def size_of(frame: Frame) -> tuple[int, int]:
    """What a frame takes of its credit."""
    slots = frame.header.get("slots")
    return (len(slots) // 2 if isinstance(slots, bytes) else 0), len(frame.body)


def events_of(frame: Frame, producer: str) -> list[Received]:
    """The events of a DATA or FIRE. Rejected: the frame contradicts itself."""
    data = batch.unpack(frame.body)
    numbers = numbers_of(frame.header.get("numbers"), "Q", len(data))
    slots = numbers_of(frame.header.get("slots"), "H", len(data))
    if not isinstance(frame.header.get("seq"), int):
        raise Rejected("a batch without its seq", code="bad_batch")
    return [Received(producer, *told) for told in zip(numbers, slots, data, strict=True)]


def numbers_of(packed: Any, form: str, count: int) -> tuple[int, ...]:
    pattern = struct.Struct(f">{count}{form}")
    if not isinstance(packed, bytes) or len(packed) != pattern.size:
        raise Rejected(f"a batch of {count} events with numbers or slots of another", code="bad_batch")
    return pattern.unpack(packed)
