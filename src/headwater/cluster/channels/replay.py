"""Undelivered events to the consumers after all: through the router of today, in order, with care (R5, R6).

``Replay.deliver`` takes the next events of one lane and returns when each of them was acknowledged by the node that
owns its slot by the newest table. It begins when these owners have taken connections for ``healthy_s`` without a
break, and when no stop holds (stops.py); it rests after each turn, so that it takes ``share_max`` of the consumers'
time at most. Order: one turn of a lane at a time, and within it as for any channel (C3).

The events keep producer, number, slot and the time when they were first seen, so a consumer knows again what it had
processed when the acknowledgement was lost. They carry how often they were tried.

What a handler raises on, and it is not Unavailable or Busy, is told to the caller as Rejected; everything of the turn
that was not acknowledged is withdrawn before. The caller tries again, fewer together, and sets aside what fails alone
(lane/kafka/replay).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec

from headwater.cluster.channels.advice import Undelivered
from headwater.cluster.channels.outbound import OutboundChannel
from headwater.cluster.channels.road import Event
from headwater.cluster.channels.stops import Stops
from headwater.cluster.channels.topic import NO_SLOT
from headwater.kit.errors import Rejected, Unavailable

LOOK_S = 0.05
REST_S_MAX = 1.0
REPLAYS_MAX = 0xFFFF


class ReplaySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How carefully undelivered events are replayed."""

    healthy_s: float = 2.0
    """An owner has taken a connection for so long before it is given anything, seconds (R5)."""
    share_max: float = 0.5
    """The part of its time that the replay may keep a consumer busy; 1 never rests (R5)."""
    attempts_max: int = 10
    """A batch that handlers raise on is tried so often before the bad event is looked for and set aside (R6)."""
    backoff_s_max: float = 60.0
    """The longest wait between two attempts."""
    age_s_max: float = 24 * 3600.0
    """An older event is set aside instead of delivered."""

    def __post_init__(self) -> None:
        if not 0.01 <= self.share_max <= 1:
            raise ValueError(f"share_max: expected 0.01 to 1, got {self.share_max}")
        if not 1 <= self.attempts_max <= 1000:
            raise ValueError(f"attempts_max: expected 1 to 1000, got {self.attempts_max}")
        for name in ("healthy_s", "backoff_s_max", "age_s_max"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}: expected 0 or more, got {getattr(self, name)}")


Known = set[tuple[str, int]]
"""Producer and number of events that were acknowledged."""


class Delivery:
    """What became of the events of one turn."""

    def __init__(self, events: int, known: Known) -> None:
        self.left = events
        self.known = known
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def settled(self, event: Event) -> None:
        assert event.origin is not None
        self.known.add((event.origin.producer, event.origin.number))
        self.left -= 1
        if not self.left and not self.done.done():
            self.done.set_result(None)

    def failed(self, error: str, *, passes: bool) -> None:
        kind = Unavailable if passes else Rejected
        if not self.done.done():
            self.done.set_exception(kind(error, code="handler_failed"))


class Replay:
    """See the module. ``channel``: to the consumers, ``acked``, ``eager``, without an advice listener of its own."""

    def __init__(
        self, channel: OutboundChannel, settings: ReplaySettings | None = None, stops: Stops | None = None
    ) -> None:
        self.channel = channel
        self.clock = channel.identity.clock
        self.settings = settings or ReplaySettings()
        self.stops = stops
        self.waits_for = ""
        """Why nothing is replayed now; empty: it is, or there is nothing."""

    def is_expired(self, event: Undelivered) -> bool:
        return self.clock.wall_ns() // 1_000_000 - event.first_ms > self.settings.age_s_max * 1000

    async def deliver(self, events: Sequence[Undelivered], replays: int, known: Known) -> None:
        """On return all of them are with their owners, and in ``known``. Those that are in it already are left out.

        Rejected: a handler failed on some; Unavailable: it cannot process anything now. ``known`` says which were
        acknowledged nevertheless. On cancellation nothing more of them is sent.
        """
        left = [event for event in events if (event.producer, event.number) not in known]
        if not left:
            return
        await self.ready(left)
        delivery = Delivery(len(left), known)
        began_ns = self.clock.boot_ns()
        for event in left:
            self.channel.forward(event, min(replays, REPLAYS_MAX), delivery)
        try:
            await delivery.done
        finally:
            self.channel.withdraw(delivery)
        took_s = (self.clock.boot_ns() - began_ns) / 1e9
        await self.clock.sleep(min(REST_S_MAX, took_s * (1 / self.settings.share_max - 1)))

    async def ready(self, events: Sequence[Undelivered]) -> None:
        """Wait until these may go."""
        slots = {event.slot for event in events}
        while why := await self.hindrance(slots):
            self.waits_for = why
            await self.clock.sleep(LOOK_S)
        self.waits_for = ""

    async def hindrance(self, slots: set[int]) -> str:
        """Why events of these slots may not go now."""
        if self.stops is not None and (stops := await self.stops.all()):
            return f"stopped by {', '.join(sorted(stop.owner for stop in stops))}"
        directory = self.channel.directory
        owners = {directory.owner_of(slot) for slot in slots - {NO_SLOT}} or set(self.channel.roads) or {""}
        if "" in owners:
            return "some slots have no owner"
        now_s = self.channel.now_s()
        for node in sorted(owners):
            road = self.channel.roads.get(node)
            if (
                road is None
                or road.open_since_s is None
                or now_s - road.open_since_s < self.settings.healthy_s
            ):
                return f"{node} has not taken a connection for {self.settings.healthy_s} s"
        return ""
