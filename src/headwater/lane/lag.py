"""How far the owners are behind this node's raw log, and when one is so slow that somebody should know.

Each second the home notes where its log ends. What an owner says that it has processed (lane/progress) is compared
with those notes: the oldest one that it has not passed tells for how long, at least, an event has waited. An owner is
slow when that is more than 2 s, or its mirrors are fuller than 85 % of what they may take; it is normal again when it
has been prompt, and below 25 %, for 2 s. Nothing here slows or moves anything.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from headwater.cluster.channels.advisory import Action, Slowness
from headwater.event.position import EMPTY, Position, Vector, WriterId
from headwater.kit.disk import Disk
from headwater.log import files
from headwater.log.cut import WRITER

NOTES_MAX = 600
SILENT_S = 3.0
"""An owner says something every second; after so long without a word, its silence is part of the delay."""

Ends = Mapping[WriterId, list[Position]]
"""Of each writer the ends of its logs, the oldest first."""


class RawEnds:
    """Where the logs of this node end; those that have ended are read once."""

    def __init__(self, disk: Disk, raw: str) -> None:
        self.disk = disk
        self.raw = raw
        self.ended: dict[tuple[str, int], Position] = {}

    def look(self) -> Ends:
        """Now."""
        names = [name for name in self.disk.listdir(self.raw) if WRITER.match(name)]
        found = {
            WriterId(int(name, 16)): [
                self.end(name, log) for log in files.logs(self.disk, f"{self.raw}/{name}")
            ]
            for name in names
        }
        return {writer: sorted(ends) for writer, ends in found.items() if ends}

    def end(self, name: str, log: int) -> Position:
        """Of one log."""
        folder = f"{self.raw}/{name}"
        if (known := self.ended.get((name, log))) is not None:
            return known
        if (end := files.read_end(self.disk, folder, log)) is not None:
            return self.ended.setdefault((name, log), Position(log, end.seq))
        return Position(log, files.read_watermark(self.disk, folder, log))


def behind(ends: Ends, at: Vector) -> int:
    """Events between a vector and the ends, whoever owns them."""
    return sum(
        end.seq - (at[writer].seq if end.log == at[writer].log else 0)
        for writer, logs in ends.items()
        for end in logs
        if end > at[writer]
    )


def newest(ends: Ends) -> dict[WriterId, Position]:
    """Of each writer, where its log ends that holds the newest event."""
    return {w: max(held) for w, logs in ends.items() if (held := [end for end in logs if end.seq])}


def covers(at: Vector, note: Mapping[WriterId, Position]) -> bool:
    """Whether a vector has passed all that was there."""
    return all(at[writer] >= end for writer, end in note.items())


class Note(NamedTuple):
    """Where this node's log ended at one moment (boot time)."""

    at_ns: int
    ends: dict[WriterId, Position]


@dataclass(slots=True)
class Owner:
    """What is known of one owner."""

    at: Vector = EMPTY
    share: float = 0.0
    said_ns: int = 0
    oldest: Note | None = None
    """The oldest note that it has not passed."""
    slowness: Slowness = field(default_factory=Slowness)


class Lag(NamedTuple):
    """How far an owner is behind."""

    events: int
    age_s: float
    """At least so long the oldest of them has waited."""
    share: float
    slow: bool


class Lags:
    """Of all owners."""

    def __init__(self) -> None:
        self.ends: Ends = {}
        self.notes: deque[Note] = deque(maxlen=NOTES_MAX)
        self.owners: dict[str, Owner] = {}

    def note(self, now_ns: int, ends: Ends) -> None:
        """Where the log ends now."""
        self.ends = ends
        current = newest(ends)
        if not self.notes or self.notes[-1].ends != current:
            self.notes.append(Note(now_ns, current))

    def hear(self, node: str, at: Vector, share: float, now_ns: int) -> None:
        """An owner says where it is; it never goes back by that."""
        owner = self.owners.setdefault(node, Owner())
        owner.at, owner.share, owner.said_ns = at, share, now_ns

    def keep(self, nodes: set[str]) -> list[str]:
        """Forget whoever owns nothing any more; those of them that were slow."""
        gone = self.owners.keys() - nodes
        return sorted(node for node in gone if self.owners.pop(node).slowness.slow)

    def of(self, node: str, now_ns: int) -> Lag:
        """How far an owner is behind now."""
        owner = self.owners[node]
        if owner.oldest is not None and covers(owner.at, owner.oldest.ends):
            owner.oldest = None
        if owner.oldest is None:
            owner.oldest = next((note for note in self.notes if not covers(owner.at, note.ends)), None)
        silent_s = (now_ns - owner.said_ns) / 1e9
        until_ns = now_ns if silent_s > SILENT_S else owner.said_ns
        age_s = 0.0 if owner.oldest is None else max(0.0, (until_ns - owner.oldest.at_ns) / 1e9)
        return Lag(behind(self.ends, owner.at), age_s, owner.share, owner.slowness.slow)

    def look(self, now_ns: int) -> list[tuple[str, Action, Lag]]:
        """What to advise now, for each owner of whom something is to be said."""
        found = []
        for node, owner in self.owners.items():
            lag = self.of(node, now_ns)
            action = owner.slowness.look(now_ns / 1e9, lag.age_s, lag.share)
            if action is not None:
                found.append((node, action, lag))
        return found
