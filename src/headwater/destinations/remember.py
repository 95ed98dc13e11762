"""What a deliverer remembers of its destination: ``state/deliver-<name>/state.json``.

Written after the first delivery, then at most once a second, by rename: it may be older than the truth, never newer.
It is no part of exactly once (the destination's own row is): it tells a *new* destination from one whose positions
were lost, and a destination that went back from one that stands where it stood (protocol-why.md D4, D5). A start of
the node takes no log id that is not above those in it. The
positions in the ready logs only save reading from the start.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from headwater.event.position import Position, Vector
from headwater.kit.disk import Disk, read_whole, write_whole
from headwater.kit.errors import HeadwaterError, Misconfigured

FORMAT = 1


class State(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The file. Vectors are hex; partitions that stand together share one."""

    format: int
    pipeline: str
    vectors: dict[str, list[int]] = {}
    ready: dict[str, tuple[int, int]] = {}
    skips: bool = False
    written_off: bool = False
    left_out: bool = False
    uncounted: bool = False


def last_log(disk: Disk, path: str) -> int:
    """The greatest log id in a file of a deliverer; 0 where there is none, or it is not one: that is its deliverer's to
    say."""
    try:
        state = msgspec.json.decode(read_whole(disk, path), type=State)
        vectors = [Vector.decode(bytes.fromhex(text)) for text in state.vectors]
    except (FileNotFoundError, ValueError, HeadwaterError):
        return 0
    raw = [position.log for vector in vectors for position in vector.values()]
    return max([0, *raw, *(log for log, _ in state.ready.values())])


@dataclass(slots=True)
class Memory:
    """The file's content, and when it must be written."""

    disk: Disk
    path: str
    pipeline: str
    vectors: dict[int, Vector] = field(default_factory=dict)
    ready: dict[str, Position] = field(default_factory=dict)
    skips: bool = False
    """Events were left out whose number is not reckoned yet."""
    left_out: bool = False
    """Events were left out at some time: an older copy of the destination may not have counted them."""
    uncounted: bool = False
    """It is such a copy, perhaps."""
    written_off: bool = False
    """The raw log need not be kept for it: it takes what is left when it comes back."""
    saved_ns: int = 0
    changed: bool = False

    @property
    def unreckoned(self) -> bool:
        """Whether its counters may lack events that were left out."""
        return self.skips or self.uncounted

    def load(self) -> None:
        """Read the file if there is one. Misconfigured: it is of another pipeline or format."""
        if not self.disk.exists(self.path):
            return
        try:
            state = msgspec.json.decode(read_whole(self.disk, self.path), type=State)
        except msgspec.DecodeError as error:
            raise self.strange(str(error)) from error
        if state.format != FORMAT or state.pipeline != self.pipeline:
            raise self.strange(f"format {state.format} of pipeline {state.pipeline}")
        self.vectors = {
            partition: vector
            for text, partitions in state.vectors.items()
            for vector in (Vector.decode(bytes.fromhex(text)),)
            for partition in partitions
        }
        self.ready = {name: Position(*at) for name, at in state.ready.items()}
        self.skips, self.written_off = state.skips, state.written_off
        self.left_out, self.uncounted = state.left_out, state.uncounted

    def strange(self, what: str) -> Misconfigured:
        """The error for a file that is not ours."""
        return Misconfigured(
            f"{self.path} is not the state of pipeline {self.pipeline}: {what}",
            code="deliver_state",
            help="move it away if the destination itself is right: its own position rows decide",
        )

    def note(self, vectors: Mapping[int, Vector], ready: Mapping[str, Position]) -> None:
        """Where the destination stands now."""
        self.changed = self.changed or dict(vectors) != self.vectors or dict(ready) != self.ready
        self.vectors, self.ready = dict(vectors), dict(ready)

    def begin_skipping(self, now_ns: int) -> None:
        """Events are left out from here on; durable on return."""
        self.skips = self.left_out = self.changed = True
        self.save(now_ns, 0.0)

    def count_again(self) -> None:
        """It stands where it stood once: what it had left out there is perhaps not counted in it."""
        self.uncounted = self.uncounted or self.left_out
        self.changed = True

    def adopted(self, *, skips: bool, counted: bool) -> None:
        """An operator decided where it goes on. ``counted``: its counters were made anew."""
        self.uncounted = not counted and (self.skips or self.left_out)
        self.skips, self.left_out = skips, self.left_out or skips
        self.written_off, self.changed = False, True

    def write_off(self, now_ns: int) -> None:
        """The raw log need not be kept for it; durable on return."""
        self.written_off = self.changed = True
        self.save(now_ns, 0.0)

    def reckoned(self) -> None:
        """It stands on the chain, and what it left out is counted."""
        self.skips, self.uncounted, self.written_off, self.changed = False, False, False, True

    def save(self, now_ns: int, interval_s: float) -> None:
        """Write what changed, unless it was written less than ``interval_s`` ago."""
        if not self.changed or (self.saved_ns and now_ns - self.saved_ns < interval_s * 1e9):
            return
        groups: dict[str, list[int]] = {}
        for partition, vector in sorted(self.vectors.items()):
            groups.setdefault(vector.encode().hex(), []).append(partition)
        state = State(
            FORMAT,
            self.pipeline,
            groups,
            {name: (at.log, at.seq) for name, at in self.ready.items()},
            self.skips,
            self.written_off,
            self.left_out,
            self.uncounted,
        )
        write_whole(self.disk, self.path, msgspec.json.encode(state))
        self.saved_ns, self.changed = now_ns, False
