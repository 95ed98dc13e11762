"""Private runs: commits of a stretch that the chain no longer holds, made again from the raw log (protocol.md §5).

A destination that stands off the chain (new, restored, too late) gets its rows from here, piece by piece, until it
stands on the chain. What it gets is what the chain gave, since a run depends on the *set* of events below its origin
only (INV-STATE): the ids received at most the window before the stretch are read from the log first, so a copy of an
event that the destination has is dropped again. Nothing of this is state of the node: it is made anew when it is cut
short.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from headwater.event.commit import Commit
from headwater.event.position import Position, Vector, WriterId
from headwater.kit.clock import Clock
from headwater.kit.disk import Disk
from headwater.kit.errors import Unavailable
from headwater.log import cut, files, retain
from headwater.log.block import Secret
from headwater.log.read import LogReader
from headwater.log.ready import EVERYTHING
from headwater.process.dedupe import MINUTE_NS, Seen
from headwater.process.run import Runner
from headwater.process.worker import EXPIRE_MINUTES, sections_of


class PrivateRun:
    """[origin, until) for some partitions. ``advance`` does a piece of work at a time."""

    def __init__(
        self,
        disk: Disk,
        raw: str,
        secret: Secret,
        clock: Clock,
        runner: Runner,
        seen: Seen,
        *,
        partitions: Sequence[int],
        origin: Vector,
        until: Vector,
        now: Callable[[], tuple[int, int]],
        bytes_max: int,
        config_epoch: int,
    ) -> None:
        self.disk = disk
        self.raw = raw
        self.secret = secret
        self.clock = clock
        self.runner = runner
        self.seen = seen
        self.partitions = tuple(partitions)
        self.at = origin
        self.until = until
        self.now = now
        self.bytes_max = bytes_max
        self.config_epoch = config_epoch
        self.readers: dict[WriterId, LogReader] = {}
        self.seeds: list[LogReader] | None = None
        """What is still to be read of the ids below the stretch; None: not looked yet."""
        self.incomplete = False
        """The log no longer holds all ids of the window: a late copy of an event could be there twice."""
        self.missing = sum(
            gone(disk, f"{raw}/{writer:016x}", origin[writer], end) for writer, end in until.items()
        )
        """Events of the stretch that the log no longer holds."""
        self.expired_minute = 0

    @property
    def ended(self) -> bool:
        """Whether it has come to ``until``."""
        return self.at == self.until

    def advance(self) -> Commit | None:
        """The next commit, at most about ``bytes_max`` raw bytes; None while ids are read, and at the end."""
        if self.ended:
            return None
        now = self.now()
        cut.discover(self.disk, self.raw, self.readers, self.at, self.until, secret=self.secret)
        if self.seeds is None:
            self.seeds = self._seeds()
        if self.seeds:
            self._seed(self.seeds)
            return None
        found = cut.take(self.readers, self.at, now, self.until.clock, self.bytes_max)
        if found is None:
            if self.at.join(self.until).entries != self.at.entries:
                raise Unavailable("the raw log does not reach as far as its commits", code="raw_short")
            return self._commit(Commit(self.partitions, self.at, self.until, self.config_epoch, 0, {}, {}))
        output = self.runner.run(found.blocks, self.seen, self.clock.boot_ns() / 1e9)
        self._expire(max((b.header.node_time_ns for b in found.blocks), default=0) // MINUTE_NS)
        return self._commit(
            Commit(
                self.partitions,
                self.at,
                found.target,
                self.config_epoch,
                output.events,
                output.changes,
                sections_of(output),
            )
        )

    def close(self) -> None:
        """Release the files."""
        for reader in [*self.readers.values(), *(self.seeds or ())]:
            reader.close()

    def _commit(self, commit: Commit) -> Commit:
        self.at = commit.target
        return commit

    def _expire(self, minute: int) -> None:
        if minute > self.expired_minute + EXPIRE_MINUTES:
            self.expired_minute = minute
            self.seen.expire(minute)

    # -- the ids below

    def _seeds(self) -> list[LogReader]:
        """Readers over what was received in the window before the first event of the stretch."""
        first_ns = []
        for reader in self.readers.values():
            reader.fill(1)
            first_ns += [b.header.node_time_ns for b in reader.ahead if b.payload is not None][:1]
        if not first_ns:
            return []
        edge_ns = min(first_ns) - self.seen.window_minutes * MINUTE_NS - MINUTE_NS
        found = [self._seed_of(writer, end, edge_ns) for writer, end in self.at.items()]
        return [reader for reader in found if reader is not None]

    def _seed_of(self, writer: WriterId, end: Position, edge_ns: int) -> LogReader | None:
        folder = f"{self.raw}/{writer:016x}"
        below = [s for s in files.segments(self.disk, folder) if Position(s.log, s.first) < end]
        begins = [retain.node_time_ns(self.disk, segment) for segment in below]
        inside = [n for n, ns in enumerate(begins) if ns <= edge_ns]
        if not inside and gone(self.disk, folder, Position(0, 0), end):
            self.incomplete = True
        if not below:
            return None
        first = below[inside[-1] if inside else 0]
        return LogReader(self.disk, folder, writer, Position(first.log, first.first), end, secret=self.secret)

    def _seed(self, seeds: list[LogReader]) -> None:
        """One piece of the ids."""
        reader = seeds[0]
        reader.fill(self.bytes_max)
        blocks = reader.take(EVERYTHING)
        if not blocks:
            seeds.pop(0).close()
            return
        ids = self.runner.ids(blocks)
        if ids is not None:
            self.seen.remember(ids)


def gone(disk: Disk, folder: str, at: Position, until: Position) -> int:
    """Events of one writer in [at, until) that no segment holds any more: retention goes from the oldest on."""
    segments = files.segments(disk, folder)
    missing = 0
    for log in files.logs(disk, folder):
        if not at.log <= log <= until.log:
            continue
        end = files.read_end(disk, folder, log)
        last = until.seq if log == until.log else end.seq if end else 0
        first = at.seq if log == at.log else 0
        held = [segment.first for segment in segments if segment.log == log]
        missing += max(0, min(held[0] if held else last, last) - first)
    return missing
