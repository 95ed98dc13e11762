"""Private runs: commits of a stretch that the chain no longer holds, made again from the raw log (protocol.md §5).

A destination that stands off the chain (new, restored, too late) gets its rows from here, piece by piece, until it
stands on the chain. What it gets is what the chain gave, since a run depends on the *set* of events below its origin
only (INV-STATE): the ids received at most the window before the stretch are found first, so a copy of an event that
the destination has is dropped again. They stand in the runs of ids that the processors keep (process/idruns.py); what
those do not tell without a gap is read from the raw log, which is ten times dearer. Nothing of this is state of
the node: it is made anew when it is cut short.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from headwater.event.commit import Commit
from headwater.event.position import EMPTY, Position, Vector, WriterId
from headwater.kit.clock import Clock
from headwater.kit.disk import Disk
from headwater.kit.errors import Unavailable
from headwater.log import files, retain
from headwater.log.block import Secret
from headwater.log.follow import Follower, folder_of
from headwater.log.read import LogReader
from headwater.log.ready import EVERYTHING
from headwater.process import idruns
from headwater.process.dedupe import MINUTE_NS, Ids, Seen
from headwater.process.pace import HomeTimes
from headwater.process.run import Runner
from headwater.process.state import of_partitions
from headwater.process.worker import EXPIRE_MINUTES, sections_of

MIRROR_WAIT_S = 0.05


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
        id_folders: Sequence[str] = (),
        partitions: Sequence[int],
        origin: Vector,
        until: Vector,
        now: Callable[[], tuple[int, int]],
        bytes_max: int,
        config_epoch: int,
        mirror: str | None = None,
        complete: Callable[[], bool] = lambda: True,
    ) -> None:
        self.disk = disk
        self.raw = raw
        self.mirror = mirror
        """Other nodes' logs, from ``origin`` on."""
        self.complete = complete
        """Whether the mirror holds all that its nodes can give."""
        self.secret = secret
        self.clock = clock
        self.runner = runner
        self.seen = seen
        self.homes = HomeTimes(seen.window_minutes)
        self.partitions = tuple(partitions)
        self.at = origin
        self.until = until
        self.follower = Follower(disk, raw, secret, now, until=until, mirror=mirror)
        self.bytes_max = bytes_max
        self.config_epoch = config_epoch
        self.id_folders = id_folders
        """Folders of state, whose runs of ids are read."""
        self.ids: Iterator[Ids | None] | None = None
        """What is still to be read of the ids below the stretch, piece by piece; None: not looked yet."""
        self.ids_done = False
        self.incomplete = False
        """The log no longer holds all ids of the window: a late copy of an event could be there twice."""
        self.missing = self._gone(origin)
        """Events of the stretch that the log no longer holds."""
        self.left = self._left()
        """Events between here and ``until``; with those of other partitions."""
        self.expired_minute = 0

    @property
    def ended(self) -> bool:
        """Whether it has come to ``until``."""
        return self.at == self.until

    def advance(self) -> Commit | None:
        """The next commit, at most about ``bytes_max`` raw bytes; None while ids are read, and at the end."""
        if self.ended:
            return None
        if not self.ids_done:
            complete = self.complete()  # before it is looked at
            self.follower.look(self.at)
            if self.ids is None and not complete and not self._all_begin():
                self.clock.block(MIRROR_WAIT_S)
            else:
                self._remember_some()
            return None
        complete = self.complete()  # before it is read: what came since then is seen by the next call
        found = self.follower.take(self.at, lambda _: self.until.clock, self.bytes_max)
        if found is None and not complete:
            self.clock.block(MIRROR_WAIT_S)
            return None
        target = found.target if found is not None else self.until
        missing = self._gone(target)  # before what is behind us, so that nothing goes unseen between the two
        if self._gone(self.at) > self.missing:  # given back while it was read
            raise Unavailable("the raw log gave back what a destination lacks", code="raw_short")
        if found is None:
            if self.at.join(self.until).entries != self.at.entries:
                raise Unavailable("the raw log does not reach as far as its commits", code="raw_short")
            nothing = Commit(self.partitions, self.at, self.until, self.config_epoch, 0, {}, {})
            return self._commit(nothing, missing)
        output = self.runner.run(found.blocks, self.seen, self.clock.boot_ns() / 1e9)
        self._expire(self.homes.take(found.blocks, self.clock.boot_ns()))
        return self._commit(
            Commit(
                self.partitions,
                self.at,
                found.target,
                self.config_epoch,
                output.events,
                output.changes,
                sections_of(output),
            ),
            missing,
        )

    def close(self) -> None:
        """Release the files."""
        if self.ids is not None:
            self.ids.close()  # type: ignore[attr-defined]
        self.follower.close()

    def _commit(self, commit: Commit, missing: int) -> Commit:
        """``missing``: of what follows, as it was when the piece was read. What is given back since is seen by the next
        call; taken down here, it would be left out unseen."""
        self.at = commit.target
        self.missing, self.left = missing, self._left()
        return commit

    def _gone(self, at: Vector) -> int:
        return sum(
            gone(self.disk, self._folder(writer), at[writer], end) for writer, end in self.until.items()
        )

    def _left(self) -> int:
        return sum(
            between(self.disk, self._folder(writer), self.at[writer], end)
            for writer, end in self.until.items()
        )

    def _folder(self, writer: WriterId) -> str:
        return folder_of(self.disk, self.raw, self.mirror, writer)

    def _expire(self, minute: int) -> None:
        if minute > self.expired_minute + EXPIRE_MINUTES:
            self.expired_minute = minute
            self.seen.expire(minute)

    # -- the ids below

    def _all_begin(self) -> bool:
        """Whether of each writer the first block of the stretch is here: which ids are needed is told by the oldest."""
        return all(
            writer in self.follower.readers and first_block_ns(self.follower.readers[writer])
            for writer, end in self.until.items()
            if end != self.at[writer]
        )

    def _remember_some(self) -> None:
        """One piece of the ids below the stretch."""
        if self.ids is None:
            self.ids = self._ids_below()
        for ids in self.ids:
            if ids is not None:
                self.seen.remember(ids)
            return
        self.ids_done = True

    def _ids_below(self) -> Iterator[Ids | None]:
        """The ids received in the window before the first event of the stretch."""
        first_ns = [ns for reader in self.follower.readers.values() for ns in first_block_ns(reader)]
        if not first_ns:
            return
        edge_ns = min(first_ns) - self.seen.window_minutes * MINUTE_NS - MINUTE_NS
        known = idruns.below(self.id_folders, self.partitions, self.at, edge_ns // MINUTE_NS, self.disk)
        upto = EMPTY
        if known is not None:
            upto = known.upto
            for ids in idruns.pieces(known.chunks, disk=self.disk):
                if ids is None:
                    upto = EMPTY
                    break
                yield of_partitions(ids, self.partitions)
        for writer, end in self.at.items():
            yield from self._ids_in_raw(writer, upto[writer], end, edge_ns)

    def _ids_in_raw(
        self, writer: WriterId, begin: Position, end: Position, edge_ns: int
    ) -> Iterator[Ids | None]:
        """The ids of one writer in [begin, end) from the block on that stands at ``edge_ns``."""
        folder = self._folder(writer)
        if begin < end and not files.logs(self.disk, folder):
            self.incomplete = True  # its home cannot be asked now
        below = [s for s in files.segments(self.disk, folder) if Position(s.log, s.first) < end]
        begins = [retain.node_time_ns(self.disk, segment, self.secret) for segment in below]
        inside = [n for n, ns in enumerate(begins) if ns <= edge_ns]
        oldest = inside[-1] if inside else 0
        if not inside and gone(self.disk, folder, begin, end):
            self.incomplete = True
        if not below or begin >= end:
            return
        first = max(begin, Position(below[oldest].log, below[oldest].first))
        reader = LogReader(self.disk, folder, writer, first, end, secret=self.secret)
        try:
            while True:
                reader.fill(self.bytes_max)
                blocks = reader.take(EVERYTHING)
                if not blocks:
                    return
                yield self.runner.ids(blocks)
        finally:
            reader.close()


def first_block_ns(reader: LogReader) -> list[int]:
    """Node time (ns) of the first block ahead that can be read; nothing where there is none."""
    while True:
        if found := [block.header.node_time_ns for block in reader.ahead if block.payload is not None]:
            return found[:1]
        known = len(reader.ahead)
        reader.fill(reader.ahead_bytes + 1)
        if len(reader.ahead) == known:
            return []


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


def between(disk: Disk, folder: str, at: Position, until: Position) -> int:
    """Events of one writer in [at, until), as far as its files say where its logs end."""
    total = 0
    for log in files.logs(disk, folder):
        if at.log <= log <= until.log:
            end = files.read_end(disk, folder, log) if log != until.log else None
            last = until.seq if log == until.log else end.seq if end else 0
            total += max(0, last - (at.seq if log == at.log else 0))
    return total
