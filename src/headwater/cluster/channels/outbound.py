"""The producer's side of a channel: events go to the owner of their key, in order per key.

Modes (C5): ``acked`` [default] keeps an event until its batch was acknowledged, and sends it again, with the same
number, over a new connection or to a new owner; the consumer drops what it knows already. ``fire`` never sends
again what was written once: ``delivered`` means written there, less what consumers said that they did not take.
``spooled`` hands every event to the advice listener: it is durable when ``send`` returns, and the replay delivers it.

Order (C3): all events of a slot go over one connection in the order of ``send``. When a connection or a table
changes, all that was not acknowledged is taken back at once, sorted, and goes its new way before anything newer
(``adopt``); so the order of a slot holds for what an owner gets, with repetitions at the seams.

Bounds: what was accepted and is not settled is at most ``pending_events_max`` and ``pending_bytes_max``; then
``send`` waits (acked) or raises Busy (fire). ``accepted = delivered + pending + spooled + lost`` at every moment (A1);
what ``send`` raised for was not accepted.

With an advice listener (advice.py) events that cannot be delivered are kept there, and are somebody else's then
(``spooled``); spooling.py says when, and how the order of a slot holds.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any, Literal, Self

from headwater.cluster.channels.advice import AdviceListener, AdviceSettings, Undelivered
from headwater.cluster.channels.advisory import REMIND_S, SLOW_AGE_S, Action, Advise, Advisory, Reason
from headwater.cluster.channels.road import Event, Origin, Road, Told
from headwater.cluster.channels.spooling import Spooling
from headwater.cluster.channels.topic import NO_SLOT, Discover, Key, slot_of
from headwater.kit import tasks
from headwater.kit.errors import Busy, Misconfigured, Rejected
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
        mode: Literal["acked", "fire", "spooled"] = "acked",
        keyless: Literal["balance", "reject"] = "balance",
        pending_events_max: int = 65_536,
        pending_bytes_max: int = 64 * 1024 * 1024,
        advise: Advise | None = None,
        advice: AdviceListener | None = None,
        advice_settings: AdviceSettings | None = None,
        eager: bool = False,
    ) -> None:
        """``advise`` is called with each advisory and must not wait; ``advice`` keeps what cannot be delivered;
        ``eager``: connect with every consumer before there is anything for it."""
        self.topic = topic
        self.identity = identity
        self.discover = discover
        self.mode = mode
        self.keyless = keyless
        self.pending_events_max = pending_events_max
        self.pending_bytes_max = pending_bytes_max
        self.advise = advise
        self.eager = eager
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
        """``accepted``, ``delivered``, ``spooled``, ``lost``, ``rejected``; events."""
        self.advised: Counter[str] = Counter()
        """Advisories, by reason."""
        self.told_s: dict[str, float] = {}
        """When something was told that is told seldom."""
        self.event_bytes_max = batch.EVENT_BYTES_MAX
        self.spooling: Spooling | None = None
        if advice is not None:
            self.event_bytes_max = min(self.event_bytes_max, advice.event_bytes_max)
            self.spooling = Spooling(self, advice, advice_settings or AdviceSettings())
        elif mode == "spooled":
            raise Misconfigured(
                f"the channel {topic} is `spooled` and has no advice listener",
                code="no_advice",
                help="give it one (advice=KafkaAdvice(…)), or take the mode `acked`",
            )
        self.group = tasks.Group(f"channel {topic}", self.failed)

    async def __aenter__(self) -> Self:
        if self.spooling is not None:
            await self.spooling.begin()
        await self.group.__aenter__()
        if self.spooling is not None:
            self.group.start("keep", self.spooling.run())
            self.group.start("follow the replay", self.spooling.follow())
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

        On return it is pending, not delivered; in the mode ``spooled`` the advice listener has it durably. Waits
        while the channel is full; Busy instead in the mode ``fire``.
        Rejected: too large, or without a key where one is asked for; an advisory says so, too.
        """
        if len(event) > self.event_bytes_max:
            raise self.rejected("too_large", event, f"an event has at most {self.event_bytes_max} bytes")
        if key is None and self.keyless == "reject":
            raise self.rejected("missing_key", event, "this channel takes events with a key only")
        slot = NO_SLOT if key is None else slot_of(key)
        if not self.fits(len(event)):
            await self.wait_for_room(len(event))
        if self.mode == "spooled" and self.spooling is not None:
            await self.spooling.spool(self.accepted(slot, event))
        else:
            self.route(self.accepted(slot, event))

    async def broadcast(self, event: bytes) -> int:
        """Take an event for each live node once; how many there are."""
        if len(event) > self.event_bytes_max:
            raise self.rejected("too_large", event, f"an event has at most {self.event_bytes_max} bytes")
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

    def forward(self, undelivered: Undelivered, replays: int, told: Told) -> None:
        """Route an event of another producer, under its own name (R5). The caller keeps it within bounds."""
        event = self.accepted(undelivered.slot, undelivered.data)
        event.origin = Origin(undelivered.producer, undelivered.number, replays, undelivered.first_ms)
        event.told = told
        self.route(event)

    def withdraw(self, told: Told) -> None:
        """Forget what was forwarded for ``told`` and is not settled."""
        mine = [event for event in self.homeless if event.told is told]
        self.homeless = [event for event in self.homeless if event.told is not told]
        for road in self.roads.values():
            if road.holds(told):
                events = road.take_back()
                mine += [event for event in events if event.told is told]
                road.again([event for event in events if event.told is not told])
        self.counts["accepted"] -= len(mine)
        self.unpend(mine)

    def route(self, event: Event) -> None:
        """Onto the road of whoever is to get it by the directory in use, or to the advice listener."""
        node = event.node or self.chosen(event.slot)
        road = self.roads.get(node)
        event.routed_s = self.now_s()
        if self.spooling is not None and not event.node and self.spooling.takes(event, road):
            return
        if road is not None:
            road.put(event)
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
        rank = {node: (road.slowness.slow, road.size_bytes) for node, road in self.roads.items()}
        least = min(rank.values())
        idle = sorted(node for node in rank if rank[node] == least)
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

    def failed_at(self, road: Road, refusal: Mapping[str, Any]) -> None:
        """A consumer's handler raised on the oldest that it has of us."""
        events, error = refusal["events"], str(refusal["error"])
        if self.mode == "fire":
            self.counts["delivered"] -= events
            self.counts["lost"] += events
        self.tell_seldom("failed", events, error, peer=road.node)
        oldest = road.sent[0][1] if road.sent else []
        for told in {id(event.told): event.told for event in oldest if event.told is not None}.values():
            told.failed(f"{road.node}: {error}", passes=refusal.get("passes") is True)

    async def look(self) -> None:
        """The clock of the channel."""
        while True:
            await self.identity.clock.sleep(LOOK_S)
            self.adopt()
            now_s = self.now_s()
            for road in list(self.roads.values()):
                self.look_at(road, now_s)
            if self.spooling is not None and self.homeless and now_s - self.homeless[0].routed_s > SLOW_AGE_S:
                self.spool_homeless(self.spooling)

    def look_at(self, road: Road, now_s: float) -> None:
        """Whether a consumer is slow; what it does not take is kept elsewhere then."""
        since_s = road.oldest_s()
        age_s = 0.0 if since_s is None else now_s - since_s
        share = self.share_of(road)
        spooling, slowness = self.spooling, road.slowness
        if spooling and slowness.slow and not spooling.healing(road.node, slowness.slow_since_s):
            share = 1.0  # nothing was tried since
        action = slowness.look(now_s, age_s, share)
        if action is not None:
            events = road.events()
            done: Action = "spooling" if spooling and action == "waiting" else action
            self.tell("slow_consumer", done, peer=road.node, events=len(events), oldest_age_s=age_s,
                      size_bytes=road.size_bytes, slots=range_of(events))  # fmt: skip
        if spooling and slowness.slow:
            self.divert(road)

    def divert(self, road: Road) -> None:
        """What a slow consumer has not acknowledged goes another way; what is for it alone stays."""
        if all(event.node for event in road.events()):
            return
        events = road.take_back()
        road.again([event for event in events if event.node])
        for event in events:
            if not event.node:
                self.route(event)

    def spool_homeless(self, spooling: Spooling) -> None:
        """Nobody owns them, and that for long."""
        events, self.homeless = self.homeless, []
        age_s = self.now_s() - events[0].routed_s
        for event in events:
            spooling.add(spooling.bars.get(event.slot) or spooling.bar(event.slot, ""), event)
        self.tell("no_owner", "spooling", events=len(events), oldest_age_s=age_s, slots=range_of(events),
                  size_bytes=sum(len(event.data) for event in events))  # fmt: skip

    def share_of(self, road: Road) -> float:
        """How full the channel is because of one consumer."""
        return max(road.count() / self.pending_events_max, road.size_bytes / self.pending_bytes_max)

    # -- counting and telling ------------------------------------------------------------------------------------------

    def settled(self, how: Literal["delivered", "spooled", "lost"], events: list[Event]) -> None:
        """They are pending no longer."""
        self.counts[how] += len(events)
        self.unpend(events)
        for event in events:
            if event.told is not None:
                event.told.settled(event)

    def unpend(self, events: list[Event]) -> None:
        """Give back their room."""
        self.pending_events -= len(events)
        self.pending_bytes -= sum(len(event.data) for event in events)
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

    def tell_seldom(self, reason: Reason, events: int, error: str = "", peer: str = "") -> None:
        """What goes on for long is told each 30 s."""
        what, now_s = f"{reason} {peer}", self.now_s()
        if now_s - self.told_s.get(what, -REMIND_S) >= REMIND_S:
            self.told_s = {told: at_s for told, at_s in self.told_s.items() if now_s - at_s < REMIND_S}
            self.told_s[what] = now_s
            self.tell(reason, "waiting", peer=peer, events=events, error=error)

    def tell(self, reason: Reason, action: Action, **more: Any) -> None:
        """Hand an advisory to whoever wants it. It passes no queue, so none is lost to a full one (R2)."""
        self.advised[reason] += 1
        if self.advise is not None:
            self.advise(
                Advisory(
                    id=f"{self.producer}-{self.advised.total()}", topic=self.topic, reason=reason, action=action,
                    time_ns=self.identity.clock.wall_ns(), node=self.identity.node, **more,
                )
            )  # fmt: skip

    def now_s(self) -> float:
        return self.identity.clock.boot_ns() / 1e9

    def failed(self, owner: str, name: str, error: BaseException) -> None:
        """A task of the channel failed, which is a mistake of ours; the owner gets the error, too."""
        asyncio.get_running_loop().call_exception_handler({"message": f"{owner}: {name}", "exception": error})


def range_of(events: Iterable[Event]) -> tuple[int, int] | None:
    """The least and the greatest slot."""
    slots = [event.slot for event in events if event.slot != NO_SLOT]
    return (min(slots), max(slots)) if slots else None
