"""The work of one partition: batches to the sink, one after the other; retry, bisect, dead letters (K3, K4, K6).

Each partition has a worker of its own, so that a sink that is slow or down for one holds up no other, and polling goes
on whatever the sinks do: the group never takes a member for dead because its warehouse is slow.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from headwater.kit.clock import Clock
from headwater.kit.errors import Busy, Unavailable
from headwater.kit.happenings import Happening
from headwater.kit.retry import RESOLUTION, Backoff
from headwater.kit.rng import Rng
from headwater.lane.kafka.happenings import KafkaDeadLetter, KafkaSinkBack, KafkaSinkDown
from headwater.lane.kafka.part import Part
from headwater.lane.kafka.rate import Rate
from headwater.lane.kafka.sink import Advance, Answer, Event, Hold, Revert, Sink

Bury = Callable[[str, int, Event, Exception, int], Awaitable[None]]
"""Topic, partition, event, the sink's error, attempts → the event is in the dead-letter topic; Unavailable, Busy:
not yet."""


class Worker:
    """See the module. ``run`` ends after ``close``; ``part`` then says what may be committed."""

    def __init__(
        self,
        part: Part,
        sink: Sink,
        rate: Rate,
        *,
        clock: Clock,
        rng: Rng,
        bury: Bury,
        seek: Callable[[Part, int], None],
        emit: Callable[[Happening], None],
    ) -> None:
        """``seek`` asks the broker for an offset, for the part's present epoch."""
        self.part = part
        self.sink = sink
        self.rate = rate
        self.clock = clock
        self.rng = rng
        self.bury = bury
        self.seek = seek
        self.emit = emit
        settings = part.settings
        self.backoff = Backoff(settings.retry_first_s, settings.retry_ceiling_s_max)
        self.woken = asyncio.Event()
        self.closing = asyncio.Event()
        self.busy_ns = clock.boot_ns()
        """When something last came."""
        self.idle_told = False
        self.committed = self.committed_told = part.done

    # -- from the consumer ---------------------------------------------------------------------------------------------

    def add(self, events: Sequence[Event], epoch: int) -> None:
        """Events came from the broker."""
        self.part.add(events, epoch, self.clock.boot_ns())
        self.woken.set()

    def commit_done(self, offset: int) -> None:
        """The brokers keep this offset."""
        self.committed = offset
        self.woken.set()

    def close(self) -> None:
        """End after the call that runs; what waits is left to the next owner."""
        self.closing.set()
        self.woken.set()

    # -- the worker ----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        while not self.closing.is_set():
            self.woken.clear()
            await self.tell_committed()
            if self.part.closed(self.clock.boot_ns()):
                await self.next_batch()
            else:
                await self.tell_idle()
                await self.rest()

    async def next_batch(self) -> None:
        events = self.part.take(self.rate.batch_events_max)
        await self.rate.take(len(events))
        await self.hand_over(events)
        self.part.release(events)
        self.busy_ns, self.idle_told = self.clock.boot_ns(), False

    async def rest(self) -> None:
        """Until something comes, or is due."""
        part, now = self.part, self.clock.boot_ns()
        if part.waiting:
            due_s = part.settings.batch_age_s - (now - part.since_ns) / 1e9
        elif not self.idle_told:
            due_s = part.settings.idle_s - (now - self.busy_ns) / 1e9
        else:
            due_s = None
        await wait(self.woken, due_s)

    async def tell_committed(self) -> None:
        if self.committed != self.committed_told:
            self.committed_told = self.committed
            await self.sink.on_committed(self.part.topic, self.part.partition, self.committed)

    async def tell_idle(self) -> None:
        part = self.part
        quiet_ns = self.clock.boot_ns() - self.busy_ns
        if part.waiting or self.idle_told or quiet_ns < part.settings.idle_s * 1e9:
            return
        self.idle_told = True
        answer = await self.sink.on_idle(part.topic, part.partition)
        if answer is not None:
            await self.apply(answer)

    async def hand_over(self, events: Sequence[Event]) -> None:
        """One batch, until it is the sink's, or its bad events are dead letters, or the worker closes."""
        retries = 0
        while True:
            error = await self.offer(events)
            if error is None or self.closing.is_set():
                return
            if retries == self.part.settings.retries_max:
                break
            retries += 1
            await self.pause(self.wait_s(retries))
        await self.bisect(events, error, retries + 1, self.part.epoch)

    async def bisect(self, events: Sequence[Event], error: Exception, attempts: int, epoch: int) -> None:
        """The sink fails on these: find the bad ones, let the others through."""
        if len(events) == 1:
            await self.give_up_on(events[0], error, attempts)
            return
        middle = len(events) // 2
        for half in (events[:middle], events[middle:]):
            failed = await self.offer(half)
            if failed is not None:
                await self.bisect(half, failed, attempts + 1, epoch)
            if self.closing.is_set() or self.part.epoch != epoch:
                return

    async def give_up_on(self, event: Event, error: Exception, attempts: int) -> None:
        """An event becomes a dead letter; where that cannot be written it is tried on."""
        part = self.part
        failures = 0
        while not self.closing.is_set():
            try:
                await self.bury(part.topic, part.partition, event, error, attempts)
            except (Unavailable, Busy):
                failures += 1
                await self.pause(self.wait_s(failures))
                continue
            part.bury(event.offset)
            self.emit(KafkaDeadLetter(part.topic, part.partition, event.offset, said(error), attempts))
            return

    async def offer(self, events: Sequence[Event]) -> Exception | None:
        """The sink's answer to these events is applied; its error is returned. What it declares to pass is waited
        out."""
        part = self.part
        refusals = 0
        while True:
            before = part.offer(events)
            try:
                answer = await self.sink.on_batch(
                    part.topic, part.partition, events[0].offset, events[-1].offset, events
                )
            except (Unavailable, Busy) as error:
                part.refused(before)
                refusals += 1
                if refusals == 1:
                    self.emit(KafkaSinkDown(part.topic, part.partition, said(error)))
                least_s = error.retry_after_s if isinstance(error, Busy) else 0.0
                await self.pause(max(least_s, self.wait_s(refusals)))
                if self.closing.is_set():
                    return error
            except Exception as error:
                part.refused(before)
                return error
            else:
                if refusals:
                    self.emit(KafkaSinkBack(part.topic, part.partition))
                await self.apply(answer)
                return None

    async def apply(self, answer: Answer) -> None:
        """What the sink wants. Broken: it wants what it may not."""
        part = self.part
        part.resize(answer.next_bytes)
        match answer:
            case Advance(upto):
                part.advance(part.given - 1 if upto is None else upto)
            case Hold():
                part.hold()
            case Revert(offset, wait_s):
                self.seek(part, part.revert(offset))
                await self.pause(wait_s)

    def wait_s(self, failures: int) -> float:
        """Between half and all of a ceiling that doubles, so that partitions do not all come back at once."""
        return self.backoff.ceiling_s(failures) * (0.5 + self.rng.below(RESOLUTION) / RESOLUTION / 2)

    async def pause(self, seconds: float) -> None:
        """Wait, but not when closing."""
        if seconds > 0:
            await wait(self.closing, seconds)


def said(error: Exception) -> str:
    """An error in a line, bounded."""
    return f"{type(error).__name__}: {error}"[:500]


async def wait(event: asyncio.Event, seconds: float | None) -> None:
    """Until the event is set, at most so long."""
    if seconds is not None and seconds <= 0:
        return
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass
