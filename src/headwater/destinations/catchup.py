"""The way back to the chain, while it is under way: one private run, and what it had to leave out (protocol.md §5).

Where the raw log no longer holds all that the destination lacks, the destination is paused for an operator; unless it
is new, or was written off (by `destination write-off`, or by ``on_raw_full``): then it takes what is left. How many
events that leaves out follows from the counters of processing as soon as both stand on the chain (``stand.reckoned``);
that it is still to be reckoned is remembered durably before the first row is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from headwater.destinations import stand
from headwater.destinations.plan import Paused, Private
from headwater.destinations.port import OpenPrivate, PrivateRun
from headwater.destinations.remember import Memory
from headwater.destinations.settings import DestinationSettings
from headwater.event.commit import Commit
from headwater.event.position import EMPTY

Tell = Callable[[str, Mapping[str, object]], None]


class CatchUp:
    """The private run of one destination. From the deliverer's thread; ``progress`` from any."""

    def __init__(
        self,
        name: str,
        open_private: OpenPrivate | None,
        memory: Memory,
        settings: DestinationSettings,
        tell: Tell,
    ) -> None:
        self.name = name
        self.open_private = open_private
        self.memory = memory
        self.settings = settings
        self.tell = tell
        self.run: PrivateRun | None = None
        self.runs = 0
        self.events = 0
        """What the run under way had to read when it began."""

    def begin(self, decision: Private, now_ns: int) -> None:
        """Begin a run. Misconfigured: what it needs is gone, and nobody said that it may be left out."""
        new = decision.origin == EMPTY
        if self.open_private is None:
            code = "chain_begins_later" if new else "off_chain"
            raise stand.paused(self.name, Paused(code, decision.partitions))
        run = self.open_private(decision.partitions, decision.origin, decision.until)
        if run.missing:
            if not (new or self.may_skip):
                run.close()
                raise stand.paused(self.name, Paused("raw_gone", decision.partitions))
            self.memory.begin_skipping(now_ns)
            self.tell("destination_skips", {"destination": self.name, "events": run.missing})
        self.run, self.events = run, run.left
        self.runs += 1
        self.tell("destination_behind", {"destination": self.name, "events": run.left})

    @property
    def may_skip(self) -> bool:
        """Whether what the raw log no longer holds may be left out."""
        return self.settings.on_raw_full == "write_off" or self.memory.written_off

    def advance(self) -> Commit | None:
        """One piece of the run; a commit, or none where it was only preparation."""
        assert self.run is not None
        return self.run.advance()

    def end(self) -> None:
        """Let go of the run."""
        run, self.run = self.run, None
        if run is not None:
            run.close()

    @property
    def progress(self) -> dict[str, int] | None:
        """Events that the run has still to read, of how many; None while there is none."""
        run = self.run
        return None if run is None else {"events_left": run.left, "events": self.events}
