"""Partitions of a processor that stand at one vector, and what they read: own logs, and a mirror of other nodes'."""

from __future__ import annotations

from collections.abc import Callable

from headwater.event.position import Vector
from headwater.log.cut import Cut
from headwater.log.follow import Follower
from headwater.process.run import Runner
from headwater.process.sources import Sources

MIRROR_INTERVAL_NS = 500_000_000
"""How often a mirror is asked for while there is none."""


class Group:
    """Partitions that stand at one vector, and what they read."""

    def __init__(
        self,
        name: str,
        partitions: list[int],
        vector: Vector,
        until: Vector | None,
        runner: Runner,
        sources: Sources,
        follow: Callable[[Vector | None, str | None], Follower],
    ) -> None:
        self.name = name
        self.partitions = partitions
        self.runner = runner
        self.vector = vector
        self.until = until
        self.sources = sources
        self.follow = follow
        self.follower: Follower | None = None
        self.tried_ns = 0
        self.minute = 0
        """When the newest event was received that it has taken; now, when it has taken all."""

    def take(self, now_ns: int, node_time_ns: Callable[[int], int], bytes_max: int) -> Cut | None:
        """The next cut; None where nothing more is there."""
        if self.follower is None or (
            self.follower.mirror is None and now_ns - self.tried_ns > MIRROR_INTERVAL_NS
        ):
            self.open(now_ns)
        assert self.follower is not None
        try:
            return self.follower.take(self.vector, node_time_ns, bytes_max)
        except FileNotFoundError:
            if self.follower.mirror is None or self.follower.disk.exists(self.follower.mirror):
                raise
            self.close()  # who kept the mirror began again: so do we, from where we stand
            return None

    def open(self, now_ns: int) -> None:
        """Read from the vector on: our own logs, and a mirror of the others where one can be had."""
        self.tried_ns = now_ns
        mirror = self.sources.open(self.name, self.partitions, self.vector, self.until)
        if self.follower is None or mirror is not None:
            self.close_files()
            self.follower = self.follow(self.until, mirror)

    def close_files(self) -> None:
        """Release the files."""
        if self.follower is not None:
            self.follower.close()
            self.follower = None

    def close(self) -> None:
        """Release the files, and the mirror."""
        had = self.follower is not None and self.follower.mirror is not None
        self.close_files()
        if had:
            self.sources.close(self.name)
