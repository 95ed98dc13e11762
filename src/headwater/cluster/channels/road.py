"""The way of a channel to one consumer: batches within its credit, acknowledgements, and again after a break.

A road keeps what it was given until that is settled: acknowledged, written (mode ``fire``), or taken back. Order is
that of ``put``. One connection at a time; after it broke all that was not settled goes once more, first.
"""

from __future__ import annotations

import asyncio
import itertools
import struct
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from headwater.cluster.channels.advisory import Slowness
from headwater.kit import tasks
from headwater.kit.errors import HeadwaterError, Lost, Unavailable
from headwater.peer import batch, connection
from headwater.peer.connection import Connection, Kind
from headwater.peer.credit import Spending

if TYPE_CHECKING:
    from headwater.cluster.channels.outbound import OutboundChannel

BACKOFF_FIRST_S = 0.05
BACKOFF_MAX_S = 2.0
OPEN_S = 5.0
"""A consumer that took the connection answers within this time, or it is tried again."""


class Told(Protocol):
    """Who wants to know what became of certain events."""

    def settled(self, event: Event) -> None:
        """It was acknowledged."""

    def failed(self, error: str, *, passes: bool) -> None:
        """A consumer's handler raised on a batch with some of them; ``passes``: whatever the events are."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Of a replayed event: whose it is, and its number there (R5)."""

    producer: str
    number: int
    replays: int
    first_ms: int


@dataclass(slots=True)
class Event:
    """An event on its way. ``node`` is set for one that is meant for that node only (broadcast)."""

    number: int
    slot: int
    data: bytes
    since_s: float
    node: str = ""
    routed_s: float = 0.0
    """Since when it waits for whom it waits for now."""
    origin: Origin | None = None
    told: Told | None = None


class Road:
    """The way to one consumer: what waits for it, and what it has not acknowledged."""

    def __init__(self, channel: OutboundChannel, node: str, address: str) -> None:
        self.channel = channel
        self.node = node
        self.address = address
        self.queue: deque[Event] = deque()
        self.sent: deque[tuple[int, list[Event]]] = deque()
        self.size_bytes = 0
        self.seq = 0
        self.turn = 0
        """Counts up when everything is taken back; whoever was in the middle of something then stops."""
        self.wake = asyncio.Event()
        self.full = asyncio.Event()
        self.peer: Connection | None = None
        self.slowness = Slowness()
        self.open_since_s: float | None = None
        """Since when the consumer takes events over this connection; None: it does not."""
        self.failing = False
        """Its handler raised on what it was sent last."""

    def put(self, event: Event) -> None:
        self.queue.append(event)
        self.size_bytes += len(event.data)
        self.wake.set()
        if len(self.queue) >= batch.EVENTS_MAX or self.size_bytes >= batch.BYTES_MAX:
            self.full.set()

    def take_back(self) -> list[Event]:
        """Everything that is not settled, oldest first; the connection ends."""
        events = self.events()
        self.sent.clear()
        self.queue.clear()
        self.size_bytes = 0
        self.turn += 1
        self.wake.clear()
        self.full.clear()
        if self.peer is not None:
            self.peer.abort()
        return events

    def events(self) -> list[Event]:
        """Everything that is not settled, oldest first."""
        return [event for _, events in self.sent for event in events] + list(self.queue)

    def count(self) -> int:
        """How many these are."""
        return len(self.queue) + sum(len(events) for _, events in self.sent)

    def holds(self, told: Told) -> bool:
        """Whether some of it is of interest to ``told``."""
        return any(event.told is told for event in self.events())

    def oldest_s(self) -> float | None:
        """Since when its oldest event waits for it."""
        if self.sent:
            return self.sent[0][1][0].routed_s
        return self.queue[0].routed_s if self.queue else None

    async def run(self) -> None:
        """Connect and send, again and again, until cancelled."""
        wait_s = BACKOFF_FIRST_S
        while True:
            if not self.channel.eager:
                await self.wake.wait()
            try:
                self.peer = await connection.dial(self.address, self.channel.identity, node=self.node)
                await self.talk(self.peer)
            except (HeadwaterError, TimeoutError):
                pass
            finally:
                if self.peer is not None:
                    self.peer.abort()
            if self.open_since_s is not None and not self.failing:
                wait_s = BACKOFF_FIRST_S
            self.peer = self.open_since_s = None
            self.again(self.take_back())
            self.channel.adopt()
            await self.channel.identity.clock.sleep(wait_s)
            wait_s = min(BACKOFF_MAX_S, 2 * wait_s)

    def again(self, events: list[Event]) -> None:
        """The connection ended: all of it goes once more, first."""
        for event in events:
            self.put(event)

    async def talk(self, peer: Connection) -> None:
        """Send what waits over one connection. Raises what ended it."""
        self.seq = 0
        await peer.send(Kind.OPEN, {"topic": self.channel.topic, "producer": self.channel.producer})
        async with asyncio.timeout(OPEN_S):
            opened = await peer.receive()
        if opened is None or opened.kind != Kind.OPEN:
            raise Unavailable(f"{self.node} does not take {self.channel.topic}", code="no_topic")
        credit = Spending(opened.header["events"], opened.header["bytes"])
        self.open_since_s = self.channel.now_s()
        async with tasks.Group(f"road to {self.node}", ignore) as group:
            group.start("hear", self.hear(peer, credit, self.turn))
            await self.speak(peer, credit, self.turn)

    async def speak(self, peer: Connection, credit: Spending, turn: int) -> None:
        """Batches, as events and credit come."""
        while turn == self.turn:
            await self.wake.wait()
            if not self.full.is_set():
                try:
                    async with asyncio.timeout(batch.WAIT_S):
                        await self.full.wait()
                except TimeoutError:
                    pass
            if turn != self.turn or not self.queue:
                continue
            events = self.next_batch(credit)
            body = batch.pack([event.data for event in events])
            self.seq += 1
            self.sent.append((self.seq, events))
            await credit.take(len(events), len(body))
            if turn != self.turn:
                return
            header = {
                "topic": self.channel.topic,
                "epoch": self.channel.directory.epoch,
                "producer": self.channel.producer,
                "seq": self.seq,
            } | told(events)
            if self.channel.mode == "fire":  # written once is all there is: it is out of our hands now
                self.sent.pop()
                self.settle(events)
            await peer.send(Kind.FIRE if self.channel.mode == "fire" else Kind.DATA, header, body)

    def next_batch(self, credit: Spending) -> list[Event]:
        """The first events that wait, as many as go together. Those of two turns of a replay do not: when a handler
        fails on a batch, it is known whose event may be at fault."""
        events_max = min(batch.EVENTS_MAX, max(1, credit.window.events // 2))
        events: list[Event] = []
        size = 0
        while self.queue and len(events) < events_max:
            if events and size + len(self.queue[0].data) > batch.BYTES_MAX:
                break
            if events and self.queue[0].told is not events[0].told:
                break
            events.append(self.queue.popleft())
            size += len(events[-1].data)
        if not self.queue:
            self.wake.clear()
        if len(self.queue) < batch.EVENTS_MAX:
            self.full.clear()
        return events

    async def hear(self, peer: Connection, credit: Spending, turn: int) -> None:
        """Acknowledgements and credit; raises when there will be no more."""
        while (frame := await peer.receive()) is not None and turn == self.turn:
            match frame.kind:
                case Kind.ACK:
                    self.failing = False
                    while self.sent and self.sent[0][0] <= frame.header["to"]:
                        self.settle(self.sent.popleft()[1])
                case Kind.CREDIT:
                    credit.grant(frame.header["events"], frame.header["bytes"])
                case Kind.NACK if frame.header["reason"] == "failed":
                    self.failing = True
                    self.channel.failed_at(self, frame.header)
                    raise Lost(f"the handler of {self.node} failed", code="handler_failed")
                case Kind.NACK:
                    self.channel.nacked(self, frame.header["events"])
                    raise Lost(f"{self.node} does not own what was sent", code="not_owner")
                case _:
                    peer.ignore(frame)
        raise Unavailable(f"{self.node}: {peer.closed}", code="connection_lost")

    def settle(self, events: list[Event]) -> None:
        """They are delivered."""
        self.size_bytes -= sum(len(event.data) for event in events)
        self.channel.settled("delivered", events)


def told(events: list[Event]) -> dict[str, Any]:
    """What a header says of each event; of replayed ones also whose they are, in stretches [producer, events]."""
    numbers = [event.number if event.origin is None else event.origin.number for event in events]
    header: dict[str, Any] = {
        "numbers": struct.pack(f">{len(events)}Q", *numbers),
        "slots": struct.pack(f">{len(events)}H", *[event.slot for event in events]),
    }
    origins = [event.origin for event in events]
    if any(origins):
        stretches = itertools.groupby("" if origin is None else origin.producer for origin in origins)
        header["origins"] = [[producer, len(list(same))] for producer, same in stretches]
        header["replays"] = struct.pack(
            f">{len(events)}H", *[origin.replays if origin else 0 for origin in origins]
        )
        header["first_ms"] = struct.pack(
            f">{len(events)}Q", *[origin.first_ms if origin else 0 for origin in origins]
        )
    return header


def ignore(owner: str, name: str, error: BaseException) -> None:
    """The end of a connection is nothing to report: ``Road.run`` goes on."""
