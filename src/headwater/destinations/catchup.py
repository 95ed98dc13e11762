"""The way back to the chain, while it is under way: one private run, and what it had to leave out (protocol.md §5).

Where the raw log no longer holds all that the destination lacks, the destination is paused for an operator; unless it
is new, or was written off (by `destination write-off`, or by ``on_raw_full``): then it takes what is left. How many
events that leaves out follows from the counters of processing as soon as both stand on the chain (``stand.reckoned``);
that it is still to be reckoned is remembered durably before the first row is taken.

A run costs as much as processing and delivery together, so the next load is made ready while one is written: as many
pieces as fill it, at most half of ``ahead_bytes_max``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from queue import SimpleQueue
from typing import NamedTuple

from headwater.destinations import stand
from headwater.destinations.chain import link_of
from headwater.destinations.plan import Paused, Private
from headwater.destinations.port import OpenPrivate, PrivateRun
from headwater.destinations.remember import Memory
from headwater.destinations.settings import DestinationSettings
from headwater.event.commit import Commit
from headwater.event.position import EMPTY
from headwater.kit.threads import Submit, inline

Tell = Callable[[str, Mapping[str, object]], None]


class Prepared(NamedTuple):
    """Commits that follow one another, and what broke the run off behind them."""

    commits: list[Commit]
    error: Exception | None


class CatchUp:
    """The private run of one destination. From the deliverer's thread; ``progress`` from any."""

    def __init__(
        self,
        name: str,
        open_private: OpenPrivate | None,
        memory: Memory,
        settings: DestinationSettings,
        tell: Tell,
        submit: Submit = inline,
    ) -> None:
        self.name = name
        self.open_private = open_private
        self.memory = memory
        self.settings = settings
        self.tell = tell
        self.submit = submit
        self.run: PrivateRun | None = None
        self.coming: SimpleQueue[Prepared] | None = None
        """Where the load that is being made ready will stand."""
        self.stopping = False
        self.incomplete = False
        """Whether it was told that the ids below the run are not all known."""
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
        self.run, self.events, self.incomplete = run, run.left, False
        self.runs += 1
        self.tell("destination_behind", {"destination": self.name, "events": run.left})

    @property
    def may_skip(self) -> bool:
        """Whether what the raw log no longer holds may be left out."""
        return self.settings.on_raw_full == "write_off" or self.memory.written_off or self.memory.skips

    def advance(self) -> list[Commit]:
        """The commits of one load, which follow one another; none at the end, or where it was only preparation.

        Raises what broke the run off, after what came before it was given."""
        run = self.run
        assert run is not None
        if self.coming is None:
            self._prepare(run)
        assert self.coming is not None
        commits, error = self.coming.get()
        self.coming = None
        if run.incomplete and not self.incomplete:
            self.incomplete = True
            self.tell("destination_ids_incomplete", {"destination": self.name})
        if error is not None:
            if not commits:
                raise error
            self.coming = SimpleQueue()
            self.coming.put(
                Prepared([], error)
            )  # a run that broke off is never asked again: it has read ahead
        elif not run.ended:
            self._prepare(run)
        return commits

    @property
    def ended(self) -> bool:
        """Whether everything was given."""
        return self.coming is None and (self.run is None or self.run.ended)

    def _prepare(self, run: PrivateRun) -> None:
        coming: SimpleQueue[Prepared] = SimpleQueue()
        self.coming = coming
        self.submit(lambda: coming.put(self._gather(run)))

    def _gather(self, run: PrivateRun) -> Prepared:
        """Pieces of the run until a load is full. In the other thread."""
        commits: list[Commit] = []
        rows = size = 0
        try:
            while rows < self.settings.load_rows and size < self.settings.ahead_bytes_max // 2:
                if run.ended or self.stopping:
                    break
                commit = run.advance()
                if commit is None:
                    if not commits:
                        break
                    continue
                commits.append(commit)
                rows += link_of(commit).rows
                size += sum(map(len, commit.sections.values()))
        except Exception as error:
            return Prepared(commits, error)
        return Prepared(commits, None)

    def end(self) -> None:
        """Let go of the run; what was prepared of it is dropped."""
        run, self.run = self.run, None
        coming, self.coming = self.coming, None
        if coming is not None:
            self.stopping = True
            coming.get()
            self.stopping = False
        if run is not None:
            run.close()

    @property
    def progress(self) -> dict[str, int] | None:
        """Events that the run has still to read, of how many; None while there is none."""
        run = self.run
        return None if run is None else {"events_left": run.left, "events": self.events}
