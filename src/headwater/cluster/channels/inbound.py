"""The consumer's side of a channel: takes batches from producers, for the slots that this node owns.

A batch with an event of a slot that this node does not own by the newest directory is refused whole (NACK, C6), and
the connection ends: nothing of it or after it was processed, the producer looks who owns it and sends all again.
Ownership is looked at when the batch is about to be processed, not when it arrived.

Events that were processed already are dropped (``duplicates``), by their producer, slot and number, also when they come
from a replayer. A producer's events of a slot come in the order of their numbers, so the greatest that was processed
is all that is remembered; of events without a slot the last ``IDS_MAX`` numbers are, more than can be unacknowledged.
What comes by ``fire`` never comes twice and is not looked up.

A handler that raises ends the connection, and the producer is told (NACK ``failed``): the events come again, and with
an advice listener by the replayer, which sets aside what fails again and again (R6). A handler that raises Unavailable
or Busy says that it cannot process anything now: that is tried for as long as it takes.

While ``pause`` holds, nothing is processed or acknowledged and no credit is given: producers wait, ownership stays
(C4). A producer that sends more than its credit is refused.
"""

from __future__ import annotations

import asyncio
import struct
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any, NamedTuple

from headwater.cluster.channels.topic import NO_SLOT, Directory, Discover
from headwater.kit.errors import Busy, Rejected, Unavailable
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
    replays: int = 0
    """How often a replayer has tried it; 0: it came directly (R5)."""
    first_ms: int = 0
    """Of a replayed event: when its producer accepted it, by the wall clock there."""


Handle = Callable[[Sequence[Received]], Awaitable[None]]
"""Processes events of one producer, in order. When it returns, they are acknowledged; when it raises, they come
again."""


class Ids:
    """What was processed of one producer."""

    def __init__(self) -> None:
        self.greatest: dict[int, int] = {}
        """Slot → number."""
        self.known: set[int] = set()
        self.order: deque[int] = deque()

    def has(self, event: Received) -> bool:
        if event.slot == NO_SLOT:
            return event.number in self.known
        return event.number <= self.greatest.get(event.slot, -1)

    def add(self, event: Received) -> None:
        if event.slot != NO_SLOT:
            self.greatest[event.slot] = max(event.number, self.greatest.get(event.slot, -1))
            return
        self.known.add(event.number)
        self.order.append(event.number)
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
        """``processed``, ``replayed`` (those among them that a replayer sent), ``duplicates``, ``failed`` (batches that
        the handler raised on), ``refused`` (batches of others' slots)."""

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
            try:
                is_ours = await self.process(producer, events, remembered=frame.kind == Kind.DATA)
            except Exception as error:
                self.counts["failed"] += 1
                passes = isinstance(error, Unavailable | Busy)
                refusal = {"reason": "failed", "error": said(error), "events": len(events), "passes": passes}
                await peer.send(Kind.NACK, refusal)
                raise
            if not is_ours:
                self.counts["refused"] += 1
                refusal = {"reason": "not_owner", "epoch": self.discover().epoch, "events": len(events)}
                await peer.send(Kind.NACK, refusal)
                return
            if frame.kind == Kind.DATA:
                await peer.send(Kind.ACK, {"to": frame.header.get("seq")})
            totals = granting.finish(*size_of(frame))
            if totals is not None:
                await peer.send(Kind.CREDIT, {"events": totals.events, "bytes": totals.size_bytes})

    async def process(self, sender: str, events: Sequence[Received], *, remembered: bool = True) -> bool:
        """Hand them to the application; False: not all are ours, and none was handed over.

        One batch of a producer at a time, also when a former connection of it still ends, or a replayer has events of
        it: what that one processed must be known before the same events are looked at again.
        """
        async with AsyncExitStack() as turns:
            for producer in sorted({sender, *(event.producer for event in events)}):
                await turns.enter_async_context(self.turns.setdefault(producer, asyncio.Lock()))
            await self.running.wait()
            directory = self.discover()
            if not self.ours(directory, events):
                return False
            ids = {producer: self.ids_of(producer) for producer in {event.producer for event in events}}
            new = [event for event in events if not remembered or not ids[event.producer].has(event)]
            self.counts["duplicates"] += len(events) - len(new)
            if new:
                await self.handle(new)
            for event in new if remembered else ():
                ids[event.producer].add(event)
            self.counts["processed"] += len(new)
            self.counts["replayed"] += sum(event.replays > 0 for event in new)
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
    if "origins" not in frame.header:
        return [Received(producer, *told) for told in zip(numbers, slots, data, strict=True)]
    producers = producers_of(frame.header["origins"], producer, len(data))
    replays = numbers_of(frame.header.get("replays"), "H", len(data))
    first_ms = numbers_of(frame.header.get("first_ms"), "Q", len(data))
    return [Received(*told) for told in zip(producers, numbers, slots, data, replays, first_ms, strict=True)]


def producers_of(origins: Any, sender: str, count: int) -> list[str]:
    """Whose each event is; what is said in stretches [producer, events], "" being whoever sends it."""
    found: list[str] = []
    try:
        for origin, events in origins:
            if not isinstance(origin, str) or not 0 < events <= count - len(found):
                raise ValueError
            found += [origin or sender] * events
    except (TypeError, ValueError):
        found = []
    if len(found) != count:
        raise Rejected(f"a batch of {count} events with origins of another", code="bad_batch")
    return found


def numbers_of(packed: Any, form: str, count: int) -> tuple[int, ...]:
    pattern = struct.Struct(f">{count}{form}")
    if not isinstance(packed, bytes) or len(packed) != pattern.size:
        raise Rejected(f"a batch of {count} events with numbers or slots of another", code="bad_batch")
    return pattern.unpack(packed)


def said(error: Exception) -> str:
    """An error in a line, bounded."""
    return f"{type(error).__name__}: {error}"[:500]
