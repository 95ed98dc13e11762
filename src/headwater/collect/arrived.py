"""Waiting for destinations: requests with a key at `ack: delivered` are answered when the destination that the key
names has passed them: it has their rows, or they are dead letters, copies of what is there, or left out by an operator.

The log releases them when the block is on this disk, as it does all others; then they wait here, by the partition that
the events are in (all partitions, for a batch). What is known of the positions of destinations is told by ``hear``;
whoever reads them does so only for the destinations in ``waited_for``, once for all who wait (node/arrived). After
``timeout_s`` an answer says 503 `not_delivered`, and that the events are on disk here: they arrive all the same, and
sent again, they are duplicates by their message ids. So does who still waits when the door closes.

At most ``waiting_max`` requests of a worker wait so; one more is answered 503 `too_many_waiting` at once, and nothing
of it is kept. Each takes about half a kilobyte with its answer, also when its client has gone, until its time is over.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping

from headwater.collect.owed import ANYWHERE, Further, Promise
from headwater.kit.errors import Busy, HeadwaterError

RETRY_S = 2.0


class Arrival(Further):
    """What of a worker's log one destination has, and who waits for it."""

    def __init__(self, arrivals: Arrivals, name: str) -> None:
        super().__init__()
        self.arrivals = arrivals
        self.name = name
        self.passed = [0] * arrivals.partitions
        """Of each partition: everything of this log below this number."""
        self.paused = False
        self.lines: dict[int, deque[Promise]] = {}
        """Durable here, by partition or ANYWHERE; in each, numbers and due times rise."""

    def short(self) -> HeadwaterError | None:
        """Why nobody more may wait; None where one may."""
        arrivals = self.arrivals
        if arrivals.waits() < arrivals.waiting_max:
            return None
        return Busy(
            f"{arrivals.waiting_max} requests wait for destinations already, as many as may; nothing was kept of "
            "this one",
            retry_after_s=RETRY_S,
            code="too_many_waiting",
        )

    def durable(self, promise: Promise) -> None:
        """From here on only the destination is waited for, and only so long."""
        promise.due_ns = self.arrivals.boot_ns() + int(self.arrivals.timeout_s * 1e9)
        self.lines.setdefault(promise.partition, deque()).append(promise)

    def hear(self, passed: Mapping[int, int], *, paused: bool = False) -> None:
        """Where the destination stands, of some partitions. What was true once stays so: numbers never go back."""
        self.paused = paused
        for partition, seq in passed.items():
            if 0 <= partition < len(self.passed) and seq > self.passed[partition]:
                self.passed[partition] = seq
        self.look()

    def look(self) -> None:
        """Answer those whose events are there, and those who have waited for too long."""
        now_ns = self.arrivals.boot_ns()
        for partition in list(self.lines):
            line = self.lines[partition]
            seq = min(self.passed) if partition == ANYWHERE else self.passed[partition]
            while line and (line[0].seq <= seq or now_ns >= line[0].due_ns):
                first = line.popleft()
                first.settle(None if first.seq <= seq else self.late())
            if not line:
                del self.lines[partition]

    def give_up(self) -> None:
        """Say to all who wait what is true now."""
        lines, self.lines = self.lines, {}
        for line in lines.values():
            for promise in line:
                promise.settle(self.late())

    def late(self) -> Busy:
        """What holds nevertheless."""
        paused = ", which is paused" if self.paused else ""
        return Busy(
            f"the events are on this node's disk and will be delivered, but are not yet in the destination "
            f"{self.name}{paused}; sent again with the same message ids, they are duplicates",
            retry_after_s=RETRY_S,
            code="not_delivered",
            ack="disk",
        )


class Arrivals:
    """Of all destinations that keys name."""

    def __init__(
        self, boot_ns: Callable[[], int], *, partitions: int, timeout_s: float, waiting_max: int
    ) -> None:
        self.boot_ns = boot_ns
        self.partitions = partitions
        self.timeout_s = timeout_s
        self.waiting_max = waiting_max
        self.by_name: dict[str, Arrival] = {}

    def of(self, name: str) -> Arrival:
        """Of one destination."""
        found = self.by_name.get(name)
        if found is None:
            found = self.by_name[name] = Arrival(self, name)
        return found

    def waits(self) -> int:
        """Requests that wait."""
        return sum(one.waits for one in self.by_name.values())

    def waited_for(self) -> list[str]:
        """The destinations for which anybody waits."""
        return [name for name, one in self.by_name.items() if one.waits]

    def look(self) -> None:
        """Every 50 ms: whose time is over."""
        for one in self.by_name.values():
            if one.lines:
                one.look()

    def give_up(self) -> None:
        """The door closes: nobody waits any longer."""
        for one in self.by_name.values():
            one.give_up()
