"""What takes the micro-batches of a Kafka channel, and what it may answer (K4).

::

    class Load(Sink):
        async def on_batch(self, topic, partition, first, last, events):
            await warehouse.load(f"{topic}-{partition}-{first}-{last}", [event.value for event in events])
            return Advance()

Calls for one partition come one after the other; partitions run beside each other. What an exception of ``on_batch``
means:

* Unavailable or Busy: the sink cannot take anything now. The same events come again, for as long as it takes; the
  partition waits, others do not.
* anything else: the events may be at fault. The batch comes again a few times, then in halves, until the bad event is
  alone and goes to the dead-letter topic (K6).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple


class Event(NamedTuple):
    """One record of a topic."""

    offset: int
    key: bytes | None
    value: bytes
    headers: Sequence[tuple[str, bytes | None]]
    timestamp_ms: int
    """When it was made, or taken by the broker, as the topic is configured; -1 where unknown."""


@dataclass(frozen=True, slots=True)
class Advance:
    """Everything up to the offset ``upto`` (None: to the end of this batch) is done and may be committed. What is above
    it stays in the sink's hand, as with Hold."""

    upto: int | None = None
    next_bytes: int | None = None
    """The size that the next batches are closed at (K3)."""


@dataclass(frozen=True, slots=True)
class Hold:
    """The sink keeps the batch and says later, by Advance, that it is done."""

    next_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Revert:
    """Go back to ``offset`` (at most, and None: the first that is not done) after ``wait_s``; what the sink held it has
    dropped."""

    offset: int | None = None
    wait_s: float = 0.0
    next_bytes: int | None = None


Answer = Advance | Hold | Revert


class Sink(ABC):
    """Override what you need (the others do nothing, on purpose: B027)."""

    @abstractmethod
    async def on_batch(
        self, topic: str, partition: int, first: int, last: int, events: Sequence[Event]
    ) -> Answer:
        """Events of one partition, in order, none between ``first`` and ``last`` left out."""

    async def on_assign(self, topic: str, partition: int, first: int) -> int | None:
        """The partition is this member's from now on; its events begin at ``first``. The answer is the offset to
        read from, where the sink knows better than the group: one that keeps its position beside its rows gets each
        event exactly once by it."""
        return None

    async def on_committed(self, topic: str, partition: int, offset: int) -> None:  # noqa: B027
        """The brokers keep: everything below ``offset`` is done."""

    async def on_idle(self, topic: str, partition: int) -> Answer | None:
        """Nothing has come for ``idle_s``; said once. A good moment to finish what is held."""
        return None

    async def on_revoke(self, topic: str, partition: int, deadline_s: float) -> Answer | None:
        """The partition goes to somebody else: finish what is held within ``deadline_s`` and Advance, or drop it."""
        return None

    async def on_lost(self, topic: str, partition: int) -> None:  # noqa: B027
        """The partition is somebody else's already: what is held must be dropped."""
