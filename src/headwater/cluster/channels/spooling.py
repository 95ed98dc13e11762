"""A channel with an advice listener: what cannot be delivered is kept there, and newer events wait behind it (R3, R4).

A slot is *barred* from the moment when one of its events cannot be delivered: its consumer is slow (R1), or it has had
no owner for 2 s. From then on all its events, in their order, go to the listener, and none directly, until the replay
has delivered the last one that was kept. An event leaves the producer's memory when the listener has it durably;
until then it is pending, and what is pending is bounded. A backlog that is full pushes back to ``send`` the same way.

With events that come all the time the last one kept would never be replayed. So once a lane's backlog is short and
shrinking, its slots are *closing*: newer events wait in memory, behind what is kept, and go directly when that is
replayed. Where that takes longer than ``close_s``, they are kept after all.

Slots that a former process left events of are barred from the start (``AdviceListener.left``).
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from headwater.cluster.channels.advice import AdviceListener, AdviceSettings, Undelivered, lane_of
from headwater.cluster.channels.road import Event, Road
from headwater.cluster.channels.topic import NO_SLOT
from headwater.kit.errors import Busy, HeadwaterError, Unavailable
from headwater.kit.retry import Backoff

if TYPE_CHECKING:
    from headwater.cluster.channels.outbound import OutboundChannel

KEEP_EVENTS = 1024
KEEP_BYTES = 1024 * 1024
NOT_KEPT = -1
BACKOFF = Backoff(first_s=0.1, ceiling_s_max=5.0)


@dataclass(slots=True)
class Bar:
    """A slot whose events do not go directly."""

    lane: int
    offset: int = NOT_KEPT
    """Of its last event that is kept."""
    waiting: int = 0
    """Events of it that are still to be kept."""
    held: deque[Event] = field(default_factory=deque)
    """While it is closing: events that came meanwhile."""
    closing: bool = False
    reopened_s: float = 0.0


@dataclass(slots=True)
class Lane:
    """What of this producer a lane holds and is not replayed: (offset of the last, events, bytes), in order."""

    stretches: deque[tuple[int, int, int]] = field(default_factory=deque)
    progress_s: float = 0.0
    """When the replay was last seen to go on."""

    @property
    def events(self) -> int:
        return sum(events for _, events, _ in self.stretches)


class Kept:
    """Who waits until an event is kept. It is settled by that in the mode ``spooled``."""

    def __init__(self) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def settled(self, event: Event) -> None:
        if not self.done.done():
            self.done.set_result(None)

    def failed(self, error: str, *, passes: bool) -> None:
        """Nothing is sent by this side."""


class Spooling:
    """See the module. ``run`` writes, ``follow`` follows the replay."""

    def __init__(self, channel: OutboundChannel, listener: AdviceListener, settings: AdviceSettings) -> None:
        self.channel = channel
        self.listener = listener
        self.settings = settings
        self.bars: dict[int, Bar] = {}
        self.queue: deque[tuple[int, Event]] = deque()
        """Lane and event, to be kept in this order."""
        self.lanes = [Lane() for _ in range(listener.lanes)]
        self.backlog_events = 0
        self.backlog_bytes = 0
        self.wake = asyncio.Event()
        self.replayed_more = asyncio.Event()

    async def begin(self) -> None:
        """Bar what former processes left. Unavailable: the listener does not know now."""
        for slot, place in (await self.listener.left(self.channel.topic)).items():
            self.bars[slot] = Bar(place.lane, place.offset)

    # -- events --------------------------------------------------------------------------------------------------------

    def takes(self, event: Event, road: Road | None) -> bool:
        """Whether an event must not go directly; then it was taken. ``road``: where it would go."""
        bar = self.bars.get(event.slot)
        if bar is None and road is not None and road.slowness.slow:
            bar = self.bar(event.slot, road.node)
        if bar is None:
            return False
        if bar.closing:
            bar.held.append(event)
        else:
            self.add(bar, event)
        return True

    async def spool(self, event: Event) -> None:
        """Keep an event whoever may take it; on return it is durable."""
        event.told = kept = Kept()
        slot = event.slot
        self.add(self.bars.get(slot) or self.bar(slot, self.channel.directory.owner_of(slot)), event)
        await kept.done

    def bar(self, slot: int, node: str) -> Bar:
        """From now on events of this slot are kept. Those without a slot have no order: nothing bars them."""
        bar = Bar(lane_of(node, len(self.lanes)))
        if slot != NO_SLOT:
            self.bars[slot] = bar
        return bar

    def add(self, bar: Bar, event: Event) -> None:
        bar.waiting += 1
        self.queue.append((bar.lane, event))
        self.wake.set()

    def healing(self, node: str, since_s: float) -> bool:
        """Whether the replay of this consumer's events has gone on since then, or there are none."""
        lanes = {bar.lane for slot, bar in self.bars.items() if self.channel.directory.owner_of(slot) == node}
        return not lanes or any(self.lanes[lane].progress_s > since_s for lane in lanes)

    # -- keeping -------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Hand the listener what is to be kept, until cancelled."""
        while True:
            await self.wake.wait()
            for lane, events in self.next_events().items():
                await self.room(events)
                self.kept(lane, events, await self.keep(lane, events))

    def next_events(self) -> dict[int, list[Event]]:
        """The first that wait, by lane."""
        taken: dict[int, list[Event]] = {}
        events = size = 0
        while self.queue and events < KEEP_EVENTS and size < KEEP_BYTES:
            lane, event = self.queue.popleft()
            taken.setdefault(lane, []).append(event)
            events += 1
            size += len(event.data)
        if not self.queue:
            self.wake.clear()
        return taken

    async def room(self, events: list[Event]) -> None:
        """Wait until the backlog has room for them."""
        size = sum(len(event.data) for event in events)
        while self.backlog_events and (
            self.backlog_events + len(events) > self.settings.backlog_events_max
            or self.backlog_bytes + size > self.settings.backlog_bytes_max
        ):
            self.channel.tell_seldom("spool_full", len(self.queue) + len(events))
            self.replayed_more.clear()
            await self.replayed_more.wait()

    async def keep(self, lane: int, events: list[Event]) -> int:
        """Until the listener has them, however long that takes."""
        told = [self.undelivered(event) for event in events]
        failures = 0
        while True:
            try:
                return await self.listener.keep(lane, told)
            except HeadwaterError as error:
                failures = failures + 1 if isinstance(error, Unavailable | Busy) else 16
                self.channel.tell_seldom("spool_failed", len(self.queue) + len(events), error.message)
            await self.channel.identity.clock.sleep(BACKOFF.ceiling_s(failures))

    def undelivered(self, event: Event) -> Undelivered:
        channel = self.channel
        age_s = channel.now_s() - event.since_s
        first_ms = channel.identity.clock.wall_ns() // 1_000_000 - round(age_s * 1000)
        return Undelivered(
            channel.topic, channel.producer, event.number, event.slot, max(0, first_ms), event.data
        )

    def kept(self, lane: int, events: list[Event], offset: int) -> None:
        """The listener has them: they are ours no longer."""
        size = sum(len(event.data) for event in events)
        self.lanes[lane].stretches.append((offset, len(events), size))
        self.backlog_events += len(events)
        self.backlog_bytes += size
        for event in events:
            bar = self.bars.get(event.slot)
            if bar is not None:
                bar.waiting -= 1
                bar.offset = offset
        self.channel.settled("spooled", events)

    # -- following the replay ------------------------------------------------------------------------------------------

    async def follow(self) -> None:
        """Let slots go directly again, as the replay goes on; until cancelled."""
        while True:
            await self.channel.identity.clock.sleep(self.settings.look_s)
            try:
                replayed = await self.listener.replayed()
            except HeadwaterError as error:
                self.channel.tell_seldom("spool_failed", len(self.queue), error.message)
                continue
            for number, lane in enumerate(self.lanes):
                self.advance(lane, replayed.get(number, 0))
            for slot, bar in list(self.bars.items()):
                self.look_at(slot, bar, replayed.get(bar.lane, 0))

    def advance(self, lane: Lane, replayed: int) -> None:
        """Forget what was replayed."""
        while lane.stretches and lane.stretches[0][0] < replayed:
            _, events, size = lane.stretches.popleft()
            self.backlog_events -= events
            self.backlog_bytes -= size
            lane.progress_s = self.channel.now_s()
            self.replayed_more.set()

    def look_at(self, slot: int, bar: Bar, replayed: int) -> None:
        """Open, close or reopen a barred slot."""
        now_s = self.channel.now_s()
        if not bar.waiting and bar.offset < replayed:
            del self.bars[slot]
            for event in bar.held:
                self.channel.route(event)
        elif not bar.closing:
            lane = self.lanes[bar.lane]
            shrinks = now_s - lane.progress_s < self.settings.close_s
            rested = now_s - bar.reopened_s > self.settings.close_s
            short = self.channel.mode != "spooled" and lane.events <= self.settings.close_events
            bar.closing = shrinks and rested and short
        elif bar.held and now_s - bar.held[0].routed_s > self.settings.close_s:
            bar.closing, bar.reopened_s = False, now_s
            held, bar.held = bar.held, deque()
            for event in held:
                self.add(bar, event)
