"""One partition at one member: what waits for the sink, what the sink has, and what is done. Pure; no I/O.

Offsets stand in this order: ``done`` ≤ ``given`` ≤ ``next``. Below ``done`` everything was advanced (or is a dead
letter), and only that is ever committed; below ``given`` the sink has had it; ``next`` is wanted from the broker.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from headwater.kit.errors import Broken
from headwater.lane.kafka.settings import ConsumeSettings
from headwater.lane.kafka.sink import Event

EVENT_BYTES = 64
"""What an event counts for beside its key and value, so that empty ones are bounded too."""


def event_bytes(event: Event) -> int:
    """What an event counts for in the bounds of a batch and of what waits."""
    return len(event.value) + (len(event.key) if event.key else 0) + EVENT_BYTES


class Part:
    """See the module. One thread uses it; others only read ``done``, ``epoch`` and ``released_bytes``."""

    def __init__(self, topic: str, partition: int, begin: int, settings: ConsumeSettings) -> None:
        self.topic = topic
        self.partition = partition
        self.settings = settings
        self.done = self.given = self.next = begin
        self.epoch = 0
        """Raised by each Revert: what was read for an earlier one is not wanted any more."""
        self.waiting: deque[Event] = deque()
        self.waiting_bytes = 0
        self.marks: deque[tuple[int, int]] = deque()
        """Which offset came first at which time; the first mark is about the oldest event that waits."""
        self.holding = False
        """Whether the sink holds something that is not done."""
        self.dead: set[int] = set()
        """Dead letters above ``done``; they do not come again."""
        self.next_bytes = settings.batch_bytes
        self.released_bytes = 0
        """All that left ``waiting`` so far."""

    def add(self, events: Sequence[Event], epoch: int, now_ns: int) -> None:
        """Events as they came from the broker; what is known already, or for an earlier epoch, is dropped."""
        if events:
            self.marks.append((events[0].offset, now_ns))
        for event in events:
            size = event_bytes(event)
            if epoch != self.epoch or event.offset < self.next or event.offset in self.dead:
                self.released_bytes += size
                continue
            self.waiting.append(event)
            self.waiting_bytes += size
            self.next = event.offset + 1
        self.forget_marks()

    def forget_marks(self) -> None:
        oldest = self.waiting[0].offset if self.waiting else self.next
        while self.marks and (not self.waiting or (len(self.marks) > 1 and self.marks[1][0] <= oldest)):
            self.marks.popleft()

    @property
    def since_ns(self) -> int:
        """When the oldest that waits came."""
        return self.marks[0][1]

    def closed(self, now_ns: int) -> bool:
        """Whether what waits makes a batch (K3)."""
        return bool(self.waiting) and (
            self.waiting_bytes >= self.next_bytes
            or len(self.waiting) >= self.settings.batch_events_max
            or now_ns - self.since_ns >= self.settings.batch_age_s * 1e9
        )

    def take(self, events_max: int = 1 << 30) -> list[Event]:
        """The next batch, in order, within the bounds; an event that is larger than them is a batch of its own."""
        batch: list[Event] = []
        size = 0
        events_max = min(events_max, self.settings.batch_events_max)
        while self.waiting and len(batch) < events_max:
            one = event_bytes(self.waiting[0])
            if batch and size + one > self.next_bytes:
                break
            batch.append(self.waiting.popleft())
            size += one
        self.waiting_bytes -= size
        self.forget_marks()
        return batch

    def offer(self, events: Sequence[Event]) -> int:
        """These go to the sink now; what to give ``refused`` if it fails on them."""
        before, self.given = self.given, events[-1].offset + 1
        return before

    def refused(self, before: int) -> None:
        """The sink failed on what was offered: it has not had it."""
        self.given = before

    def release(self, events: Sequence[Event]) -> None:
        """The sink is through with a batch: its room is free."""
        self.released_bytes += sum(map(event_bytes, events))

    def advance(self, upto: int) -> None:
        """Everything up to the offset ``upto`` is done. Broken: the sink never had it, or said so before."""
        if not self.done - 1 <= upto < self.given:
            raise Broken(
                f"the sink advanced {self.topic}/{self.partition} to {upto}; "
                f"it has had {self.done} up to {self.given - 1}",
                code="kafka_answer",
                help="Advance(upto) names an offset of a batch that was given and is not done yet",
            )
        self.done = upto + 1
        self.holding = self.done < self.given
        self.skip_dead()

    def hold(self) -> None:
        """The sink keeps what it has."""
        self.holding = True

    def bury(self, offset: int) -> None:
        """An event is a dead letter: it counts as done, once everything before it is."""
        self.dead.add(offset)
        self.given = max(self.given, offset + 1)
        if not self.holding:
            self.done = offset + 1
        self.skip_dead()

    def skip_dead(self) -> None:
        while self.done in self.dead:
            self.done += 1
        self.given = max(self.given, self.done)
        self.next = max(self.next, self.done)
        self.dead = {offset for offset in self.dead if offset >= self.done}
        if self.done >= self.given:
            self.holding = False

    def revert(self, offset: int | None) -> int:
        """Back to ``offset``, or to what is not done; the offset that is wanted from the broker now. Going below what
        is done means that it is done no more, and is committed so."""
        wanted = self.done if offset is None else offset
        if not 0 <= wanted <= self.done:
            raise Broken(
                f"the sink went back to {wanted} in {self.topic}/{self.partition}, but {self.done} is not done",
                code="kafka_answer",
                help="Revert(offset) names an offset at or below the first that is not done: none may be left out",
            )
        self.released_bytes += self.waiting_bytes
        self.waiting.clear()
        self.marks.clear()
        self.waiting_bytes = 0
        self.epoch += 1
        self.done = min(self.done, wanted)
        self.dead = {dead for dead in self.dead if dead >= self.done}
        self.given = self.next = wanted
        self.holding = False
        return wanted

    def jump(self, offset: int) -> None:
        """The broker has nothing between ``next`` and ``offset``: it goes on from there. What waits stays good."""
        if offset < self.next:
            self.revert(min(offset, self.done))
        elif not self.waiting and self.done == self.given:
            self.done = self.given = offset
        self.next = offset

    def resize(self, next_bytes: int | None) -> None:
        """The size of the next batches, as the sink wishes it, within the bound."""
        if next_bytes is not None:
            self.next_bytes = max(1, min(next_bytes, self.settings.batch_bytes_max))
