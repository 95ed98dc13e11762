"""The part of one ready log that is not yet delivered: read ahead within a bound, dropped when it is passed.

``passed`` is what retention may free for this destination: the position after the last commit that the destination
holds for all its partitions. It follows from position rows that were read or written, never from what was sent.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from headwater.destinations.plan import Link, Standing, passed
from headwater.destinations.port import ChainReader, OpenChain
from headwater.event.commit import COUNTERS, Commit
from headwater.event.position import ZERO, Position

OUT = COUNTERS.index("out")


@dataclass(frozen=True, slots=True)
class Entry:
    """A commit read ahead."""

    link: Link
    commit: Commit
    after: Position
    size_bytes: int


def link_of(commit: Commit, owned: frozenset[int] | None = None) -> Link:
    """What the plan needs of a commit, of these partitions (None: of all); its rows are the events that processing let
    out, those of others counted."""
    rows = sum(change[OUT] for stream in commit.changes.values() for change in stream.values())
    held = frozenset(commit.partitions)
    return Link(commit.origin, commit.target, held if owned is None else held & owned, rows)


class Chain:
    """One ready log, read behind ``passed``. ``bytes_max`` bounds what is held in memory (one commit at least)."""

    def __init__(self, open_chain: OpenChain, bytes_max: int, owned: frozenset[int] | None = None) -> None:
        self.open_chain = open_chain
        self.bytes_max = bytes_max
        self.owned = owned
        """The partitions that are delivered from here; None: all."""
        self.passed = ZERO
        self.entries: deque[Entry] = deque()
        self.held_bytes = 0
        self.held_rows = 0
        self.reader: ChainReader | None = None

    def rewind(self, to: Position = ZERO) -> None:
        """Forget what was read ahead and begin behind ``to`` again."""
        self.close()
        self.entries.clear()
        self.held_bytes = self.held_rows = 0
        self.passed = to

    def fill(self, rows_full: int) -> None:
        """Read ahead until there is a whole load, the bound is reached, or there is no more."""
        if self.reader is None:
            self.reader = self.open_chain(self.passed)
        while self.held_bytes < self.bytes_max and self.held_rows < rows_full:
            found = self.reader.read(self.bytes_max - self.held_bytes)
            for commit, after in found:
                size = sum(len(section) for section in commit.sections.values())
                entry = Entry(link_of(commit, self.owned), commit, after, size)
                self.entries.append(entry)
                self.held_bytes += size
                self.held_rows += entry.link.rows
            if not found:
                return

    def drop_passed(self, groups: Standing) -> None:
        """Let go of the commits that the destination holds."""
        while self.entries and passed(groups, self.entries[0].link):
            entry = self.entries.popleft()
            self.held_bytes -= entry.size_bytes
            self.held_rows -= entry.link.rows
            self.passed = entry.after

    @property
    def full(self) -> bool:
        """True when no more is read ahead until something is passed."""
        return self.held_bytes >= self.bytes_max

    @property
    def waits(self) -> bool:
        """Whether there are commits behind the last entry that are not given yet."""
        return self.reader is not None and self.reader.waits

    @property
    def links(self) -> Sequence[Link]:
        """What the plan looks at."""
        return [entry.link for entry in self.entries]

    def close(self) -> None:
        """Release the files; ``fill`` opens them again."""
        if self.reader is not None:
            self.reader.close()
            self.reader = None
