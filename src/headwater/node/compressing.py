"""Which raw segments are compressed, and when: what the upkeep process does.

A raw segment is compressed once nothing more is written into it (another one of its log follows, or the log has its
end), every processor has committed all of it, and its first block is older than ``log.compress_after_s``: what
processing reads, it reads plain, out of the cache. Oldest first, one at a time, in steps of about one frame. A segment
that cannot be compressed is passed over until the next start.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from typing import NamedTuple

import msgspec

from headwater.event.position import Position, Vector, WriterId
from headwater.kit.disk import Disk
from headwater.log import compress, files, retain
from headwater.log.block import Secret
from headwater.log.compress import Outcome
from headwater.log.files import Segment
from headwater.log.segment import open_segment


class Compressed(msgspec.Struct, frozen=True, kw_only=True):
    """What the compressed segments take; part of the upkeep process's report."""

    segments: int = 0
    disk_bytes: int = 0
    plain_bytes: int = 0
    """What they would take without compression."""


class Sizes(NamedTuple):
    """Of one compressed segment."""

    disk_bytes: int
    plain_bytes: int


class Compressing:
    """One segment at a time: ``look`` chooses it, ``step`` goes on with it."""

    def __init__(
        self, disk: Disk, raw: str, secret: Secret, *, after_s: float, level: int, segment_bytes: int
    ) -> None:
        self.disk = disk
        self.raw = raw
        self.secret = secret
        self.after_s = after_s
        self.level = level
        self.segment_bytes = segment_bytes
        self.current: Segment | None = None
        self.steps: Generator[None, None, Outcome] | None = None
        self.passed: set[str] = set()
        """Paths of those that cannot be compressed."""
        self.sizes: dict[str, Sizes] = {}
        for folder in self.folders().values():
            compress.remove_draft(disk, folder)

    def folders(self) -> Mapping[WriterId, str]:
        """Of each writer."""
        return {WriterId(int(name, 16)): f"{self.raw}/{name}" for name in self.disk.listdir(self.raw)}

    def look(self, committed: Vector, now_ns: int) -> bool:
        """Choose the next segment, if there is one and room for its compressed form. ``now_ns`` is node time."""
        if self.disk.free_bytes(self.raw) < 2 * self.segment_bytes:
            return False
        for folder, segment, after in self._old_enough(committed, now_ns - int(self.after_s * 1e9)):
            self.current = segment
            self.steps = compress.compress(self.disk, folder, segment, after, self.secret, self.level)
            return True
        return False

    def step(self) -> tuple[Segment, Outcome] | None:
        """Go on a little; what became of the segment when it is done. OSError: it was given up."""
        assert self.current is not None and self.steps is not None
        try:
            next(self.steps)
            return None
        except StopIteration as done:
            if done.value is not Outcome.COMPRESSED:
                self.passed.add(self.current.path)
            found = self.current, done.value
            self.close()
            return found
        except FileNotFoundError:  # retired meanwhile
            self.close()
            return None
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        """Give up what has begun; no draft is left."""
        if self.steps is not None:
            self.steps.close()
        self.current, self.steps = None, None

    def measure(self) -> Compressed:
        """What is compressed now; each file is read once."""
        known, self.sizes = self.sizes, {}
        for folder in self.folders().values():
            for segment in files.segments(self.disk, folder):
                if segment.compressed:
                    self.sizes[segment.path] = known.get(segment.path) or self._sizes(segment)
        return Compressed(
            segments=len(self.sizes),
            disk_bytes=sum(one.disk_bytes for one in self.sizes.values()),
            plain_bytes=sum(one.plain_bytes for one in self.sizes.values()),
        )

    def _old_enough(self, committed: Vector, before_ns: int) -> Iterator[tuple[str, Segment, Position]]:
        for writer, folder in self.folders().items():
            for segment, after in compress.candidates(self.disk, folder, committed[writer]):
                if segment.path in self.passed:
                    continue
                if self._node_time_ns(segment) > before_ns:
                    break  # those behind it are younger
                yield folder, segment, after

    def _node_time_ns(self, segment: Segment) -> int:
        try:
            return retain.node_time_ns(self.disk, segment, self.secret)
        except FileNotFoundError:
            return 0

    def _sizes(self, segment: Segment) -> Sizes:
        try:
            file = open_segment(self.disk, segment, self.secret)
        except FileNotFoundError:
            return Sizes(0, 0)
        try:
            return Sizes(file.disk_bytes, file.size())
        finally:
            file.close()
