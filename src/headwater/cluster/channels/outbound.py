"""The producer's side of a channel: events go to the owner of their key, in order per key.

Modes (C5): ``acked`` [default] keeps an event until its batch was acknowledged, and sends it again, with the same
number, over a new connection or to a new owner; the consumer drops what it knows already. ``fire`` never sends
again what was written once: ``delivered`` means written there, less what consumers said that they did not take.

Order (C3): all events of a slot go over one connection in the order of ``send``. When a connection or a table
changes, all that was not acknowledged is taken back at once, sorted, and goes its new way before anything newer
(``adopt``); so the order of a slot holds for what an owner gets, with repetitions at the seams.

Bounds: what was accepted and is not settled is at most ``pending_events_max`` and ``pending_bytes_max``; then
``send`` waits (acked) or raises Busy (fire). ``accepted = delivered + pending + lost`` at every moment (A1); what
``send`` raised for was not accepted.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Iterable
from types import TracebackType
from typing import Literal, Self

from headwater.cluster.channels.advisory import Action, Advise, Advisory, Reason
from headwater.cluster.channels.road import Event, Road
from headwater.cluster.channels.topic import NO_SLOT, Discover, Key, slot_of
from headwater.kit import tasks
from headwater.kit.errors import Busy, Rejected
from headwater.peer import batch
from headwater.peer.connection import Identity

LOOK_S = 0.2
"""How often the directory and the age of what waits are looked at (M6: a new table is used within 1 s)."""

DRAIN_LOOK_S = 0.005


class OutboundChannel:
    """A topic to send to. Use as a context manager; leaving it drops what is pending (``drain`` before)."""

    def __init__(
        self,
        topic: str,
        identity: Identity,
        discover: Discover,
        *,
        mode: Literal["acked", "fire"] = "acked",
        keyless: Literal["balance", "reject"] = "balance",
        pending_events_max: int = 65_536,
        pending_bytes_max: int = 64 * 1024 * 1024,
        advise: Advise | None = None,
    ) -> None:
        self.topic = topic
        self.identity = identity
        self.discover = discover
        self.mode = mode
        self.keyless = keyless
        self.pending_events_max = pending_events_max
        self.pending_bytes_max = pending_bytes_max
        self.advise = advise
        self.producer = f"{identity.node}-{identity.rng.u64():016x}"
        self.directory = discover()
        self.roads: dict[str, Road] = {}
        self.running: dict[str, asyncio.Task[None]] = {}
        self.homeless: list[Event] = []
        """Events whose slot has no owner alive; they wait."""
        self.number = 0
        self.pending_events = 0
        self.pending_bytes = 0
        self.waiting: deque[asyncio.Future[None]] = deque()
        """Senders for whom there is no room; each looks again when it is woken."""
        self.counts: Counter[str] = Counter()
        """``accepted``, ``delivered``, ``lost``, ``rejected``; events."""
        self.group = tasks.Group(f"channel {topic}", self.failed)

    async def __aenter__(self) -> Self:
        await self.group.__aenter__()
        self.follow()
        self.group.start("look", self.look())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.group.__aexit__(kind, error, trace)

    # -- sending -------------------------------------------------------------------------------------------------------

    async def send(self, key: Key | None, event: bytes) -> None:
        """Take an event for the owner of ``key``; without a key, for the live node that has least to do.

        On return it is pending, not delivered. Waits while the channel is full; Busy instead in the mode ``fire``.
        Rejected: too large, or without a key where one is asked for; an advisory says so, too.
        """
        if len(event) > batch.EVENT_BYTES_MAX:
            raise self.rejected("too_large", event, f"an event has at most {batch.EVENT_BYTES_MAX} bytes")
        if key is None and self.keyless == "reject":
            raise self.rejected("missing_key", event, "this channel takes events with a key only")
        slot = NO_SLOT if key is None else slot_of(key)
        if not self.fits(len(event)):
            await self.wait_for_room(len(event))
        self.route(self.accepted(slot, event))

    async def broadcast(self, event: bytes) -> int:
        """Take an event for each live node once; how many there are."""
        if len(event) > batch.EVENT_BYTES_MAX:
            raise self.rejected("too_large", event, f"an event has at most {batch.EVENT_BYTES_MAX} bytes")
        if not self.fits(len(event)):
            await self.wait_for_room(len(event))
        nodes = sorted(self.roads)
        for node in nodes:
            self.route(self.accepted(NO_SLOT, event, node))
        return len(nodes)

    async def drain(self, deadline_s: float) -> int:
        """Wait until nothing is pending, at most so long; how many events still are."""
        try:
            async with asyncio.timeout(deadline_s):
                while self.pending_events:
                    await self.identity.clock.sleep(DRAIN_LOOK_S)
        except TimeoutError:
            pass
        return self.pending_events

    def fits(self, size: int) -> bool:
        return self.pending_events < self.pending_events_max and (
            self.pending_bytes + size <= self.pending_bytes_max or not self.pending_events
        )

    async def wait_for_room(self, size: int) -> None:
        if self.mode == "fire":
            self.counts["rejected"] += 1
            raise Busy(f"the channel {self.topic} is full", code="channel_full")
        while not self.fits(size):
            turn = asyncio.get_running_loop().create_future()
            self.waiting.append(turn)
            await turn

    def accepted(self, slot: int, data: bytes, node: str = "") -> Event:
        self.number += 1
        self.counts["accepted"] += 1
        self.pending_events += 1
        self.pending_bytes += len(data)
        return Event(self.number, slot, data, self.now_s(), node)

    def route(self, event: Event) -> None:
        """Onto the road of whoever is to get it by the directory in use."""
        node = event.node or self.chosen(event.slot)
        if node in self.roads:
            self.roads[node].put(event)
        elif event.node:
            self.settled("lost", [event])  # a broadcast to a node that is gone
        else:
            if not self.homeless:
                self.tell("no_owner", "waiting", events=1)
            self.homeless.append(event)

    def chosen(self, slot: int) -> str:
        if slot != NO_SLOT:
            return self.directory.owner_of(slot)
        if not self.roads:
            return ""
        least = min(road.size_bytes for road in self.roads.values())
        idle = sorted(node for node, road in self.roads.items() if road.size_bytes == least)
        return idle[self.number % len(idle)]

    # -- when the world changes ----------------------------------------------------------------------------------------

    def adopt(self) -> None:
        """Use the newest directory; what now belongs elsewhere goes there, before anything newer."""
        newest = self.discover()
        if newest.epoch < self.directory.epoch or newest == self.directory:
            return
        self.directory = newest
        self.follow()

    def follow(self) -> None:
        """Roads to the nodes of the directory, and each event on the road where it belongs."""
        moved, self.homeless = self.homeless, []
        for node, road in list(self.roads.items()):
            if self.directory.nodes.get(node) != road.address:
                del self.roads[node]
                self.running.pop(node).cancel()
                moved += road.take_back()
            elif self.strays(road):
                moved += road.take_back()
        for node, address in self.directory.nodes.items():
            if node not in self.roads:
                self.roads[node] = road = Road(self, node, address)
                self.running[node] = self.group.start(f"road to {node}", road.run())
        for event in sorted(moved, key=lambda event: event.number):
            self.route(event)

    def strays(self, road: Road) -> bool:
        """Whether something on this road belongs onto another one."""
        return any(
            event.slot != NO_SLOT and self.directory.owner_of(event.slot) != road.node
            for events in ([event for _, events in road.sent for event in events], road.queue)
            for event in events
        )

    def nacked(self, road: Road, events: int) -> None:
        """A consumer knows a newer table than this side does."""
        if self.mode == "fire":
            self.counts["delivered"] -= events
            self.counts["lost"] += events
        self.tell("not_owner", "resent" if self.mode == "acked" else "dropped", peer=road.node, events=events)

    async def look(self) -> None:
        """The clock of the channel."""
        while True:
            await self.identity.clock.sleep(LOOK_S)
            self.adopt()
            now_s = self.now_s()
            for road in self.roads.values():
                since_s = road.oldest_s()
                age_s = 0.0 if since_s is None else now_s - since_s
                action = road.slowness.look(now_s, age_s, self.share_of(road))
                if action is not None:
                    waiting = len(road.queue) + sum(len(events) for _, events in road.sent)
                    self.tell("slow_consumer", action, peer=road.node, events=waiting, oldest_age_s=age_s,
                              size_bytes=road.size_bytes)  # fmt: skip

    def share_of(self, road: Road) -> float:
        """How full the channel is because of one consumer."""
        waiting = len(road.queue) + sum(len(events) for _, events in road.sent)
        return max(waiting / self.pending_events_max, road.size_bytes / self.pending_bytes_max)

    # -- counting and telling ------------------------------------------------------------------------------------------

    def settled(self, how: Literal["delivered", "lost"], events: Iterable[Event]) -> None:
        """They are pending no longer."""
        for event in events:
            self.counts[how] += 1
            self.pending_events -= 1
            self.pending_bytes -= len(event.data)
        while self.waiting and self.fits(0):
            turn = self.waiting.popleft()
            if not turn.done():
                turn.set_result(None)

    def rejected(self, reason: Reason, event: bytes, help: str) -> Rejected:
        self.counts["rejected"] += 1
        self.tell(reason, "rejected", events=1, size_bytes=len(event), event=event)
        return Rejected(
            f"the channel {self.topic} does not take an event of {len(event)} bytes", code=reason, help=help
        )

    def tell(
        self, reason: Reason, action: Action, *, peer: str = "", events: int = 0, size_bytes: int = 0,
        oldest_age_s: float = 0.0, event: bytes = b"",
    ) -> None:  # fmt: skip
        """Hand an advisory to whoever wants it."""
        if self.advise is not None:
            self.advise(
                Advisory(
                    topic=self.topic, reason=reason, action=action, time_ns=self.identity.clock.wall_ns(),
                    node=self.identity.node, peer=peer, events=events, size_bytes=size_bytes,
                    oldest_age_s=oldest_age_s, event=event,
                )
            )  # fmt: skip

    def now_s(self) -> float:
        return self.identity.clock.boot_ns() / 1e9

    def failed(self, owner: str, name: str, error: BaseException) -> None:
        """A task of the channel failed, which is a mistake of ours; the owner gets the error, too."""
        asyncio.get_running_loop().call_exception_handler({"message": f"{owner}: {name}", "exception": error})
