"""What one processor tells its standby, read from the files that it writes anyway; it notices nothing of it.

Three files are read beside their writer, and their order makes it right:

* ``fold`` is replaced whole. What it says is the state at its vectors, and its ready position is that of the last
  commit in it;
* the runs of ids are written *before* the fold, so all ids below its vectors are there, and others too. Chunks name
  their commit; only those below the vectors are told (``parts_below``): an id from above makes its event a duplicate of
  itself (INV-STATE, protocol-why.md P1). Runs that are given back meanwhile hold nothing of the window;
* the ready log is read below its watermark, as destinations read it, from the fold's position on.

A partition is told of by a *base* once, and from there on by each commit that begins where the last one ended. Where
that breaks (the ready log has given back what a standby that was away would need, or holds damage; the partition came
back from another node at another vector), it gets a base again, by itself, as soon as a saved fold says another vector
than the one told last. Commits that lie below what was told are passed over, so reading may begin anywhere earlier.

Memory: one reading of the ready log (a commit, or 4 MiB) and the vectors. Cost (2 cores of a shared machine, 2026-11):
0.3 µs of CPU per event here and 0.05 in the sink with commits of 5,000 events, 2.5 and 2.5 with commits of 50; half of
it is reading the ready log with its rows. 22 bytes per event on the way, and 100 to 1,000 per commit (its
vectors: the more partitions and writers, the more).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from headwater.event.commit import Commit
from headwater.event.position import EMPTY, Position, Vector, WriterId
from headwater.kit.disk import Disk, read_whole
from headwater.kit.errors import HeadwaterError
from headwater.log.block import Secret
from headwater.log.ready import ReadyReader
from headwater.node.standby import entries
from headwater.node.standby.entries import Base, Delta, Seen, Whole
from headwater.process import idruns, state
from headwater.process.idruns import About
from headwater.process.state import Fold, ids_in, of_partitions, parts_below

READ_BYTES = 1
"""Of the ready log at once: as little as it gives, a commit or a block of them."""
MARGIN_MINUTES = 5
"""Beyond the window, as a processor keeps its own."""


class Source:
    """One processor's state for one standby."""

    def __init__(
        self,
        disk: Disk,
        data: str,
        number: int,
        partitions: Collection[int],
        *,
        secret: Secret,
        window_minutes: int,
        after: Mapping[int, Vector] | None = None,
        ready: Position | None = None,
    ) -> None:
        """``after`` and ``ready``: what the standby holds already, and from where on in the ready log it was told."""
        self.disk = disk
        self.folder = f"{data}/state/{number}"
        self.ready = f"{data}/ready/{number}"
        self.writer = WriterId(number)
        self.partitions = frozenset(partitions)
        self.secret = secret
        self.window_minutes = window_minutes
        self.told = {p: v for p, v in (after or {}).items() if p in self.partitions}
        self.lost: set[int] = set()
        """Whose commits do not go on where they were told to end."""
        self.at = ready
        """Behind the last commit that was read."""
        self.saved = b""
        self.fold = Fold()
        self.reader: ReadyReader | None = None
        self.running: Iterator[bytes] = iter(())

    def pull(self, bytes_max: int) -> list[bytes]:
        """The next entries, encoded, about ``bytes_max`` of them; none where nothing is new.

        Broken, OSError: the files cannot be read now; the next call tries again, and goes on after what was given.
        """
        found: list[bytes] = []
        size = 0
        begun = False
        while size < bytes_max:
            try:
                entry = next(self.running, None)
            except (HeadwaterError, OSError):
                self.close()
                if not found:
                    raise
                break
            if entry is None:
                if begun:
                    break
                self.running, begun = self._entries(), True
                continue
            found.append(entry)
            size += len(entry)
        return found

    def whole(self) -> Whole:
        """What is told of what the saved fold has, after a ``pull`` that found nothing more."""
        vectors = {p: at for p, at in self.fold.vectors.items() if p in self.partitions - self.lost}
        told = [p for p, at in vectors.items() if at <= self.told.get(p, EMPTY)]
        return Whole(sorted(told), sorted(p for p in told if vectors[p] == EMPTY))

    def close(self) -> None:
        """Release the files."""
        self.running = iter(())
        if self.reader is not None:
            self.reader.close()
            self.reader = None

    def _entries(self) -> Iterator[bytes]:
        """All that is new now."""
        while self._look():
            if self.reader is None:
                fresh = self.at is None
                self._read_from(self.fold.ready if self.at is None else self.at)
                if fresh and (needed := self._told_wrongly()):
                    yield from self._base(needed)
            yield from self._deltas()
            needed = self._told_wrongly()
            if not needed:
                return
            yield from self._base(needed)

    def _look(self) -> bool:
        """Read the newest saved fold; False where the processor has not made its folders yet."""
        if not (self.disk.exists(f"{self.folder}/fold") and self.disk.exists(self.ready)):
            return False
        saved = read_whole(self.disk, f"{self.folder}/fold")
        if saved != self.saved:
            self.fold, self.saved = state.decode(saved, self.folder), saved
        return True

    def _told_wrongly(self) -> list[int]:
        """The partitions of which the saved fold must be told as a base. To be asked when all that is durable of the
        ready log has been read *after* the fold: then the fold is at or behind what was told, if both are one chain."""
        wrong = []
        below: dict[tuple[int, int], bool] = {}  # most partitions share their vectors with others
        for partition in sorted(self.partitions & self.fold.vectors.keys()):
            saved, told = self.fold.vectors[partition], self.told.get(partition, EMPTY)
            pair = id(saved), id(told)
            if pair not in below:
                below[pair] = saved <= told
            if not below[pair] or (partition in self.lost and saved != told):
                wrong.append(partition)
        return wrong

    def _read_from(self, at: Position) -> None:
        if self.reader is not None:
            self.reader.close()
        self.reader = ReadyReader(self.disk, self.ready, self.writer, at, secret=self.secret)
        self.at = at

    def _base(self, partitions: list[int]) -> Iterator[bytes]:
        """The saved state of these partitions: ids first, in pieces."""
        fold = self.fold
        vectors = {p: fold.vectors[p] for p in partitions}
        yield from self._seen(fold, vectors)
        assert self.at is not None
        if fold.ready < self.at:
            self._read_from(fold.ready)
        told = Base(
            entries.standing(vectors, partitions), fold.only(vectors).counters, self.at, fold.config_epoch
        )
        self.told |= vectors
        self.lost -= vectors.keys()
        yield entries.encode(told)

    def _seen(self, fold: Fold, vectors: Mapping[int, Vector]) -> Iterator[bytes]:
        """The ids of the window below the vectors, commit by commit.

        Those of older releases that do not say whose they are come last, as those of an empty commit at the end: so
        they are ids below the vector, and claim nothing of which others there are (idruns.Row).
        """
        newest = idruns.newest_minute(self.folder, self.disk)
        minute = newest - self.window_minutes - MARGIN_MINUTES
        nameless = False
        for part in parts_below(self.folder, fold, vectors, minute, self.disk):
            if part.about is None:
                nameless = True
            else:
                yield entries.encode(Seen(idruns.encode(part.ids, part.about)))
        if not nameless:
            return
        for part in parts_below(self.folder, fold, vectors, minute, self.disk):
            if part.about is None:
                for encoded, partitions in entries.standing(vectors, vectors):
                    at = Vector.decode(encoded)
                    about = About(tuple(partitions), at, at)
                    yield entries.encode(Seen(idruns.encode(of_partitions(part.ids, partitions), about)))

    def _deltas(self) -> Iterator[bytes]:
        while self.reader is not None and (found := self.reader.read(READ_BYTES)):
            for commit, after in found:
                delta = self._delta(commit, after)
                self.at = after
                if delta is not None:
                    yield entries.encode(delta)

    def _delta(self, commit: Commit, after: Position) -> Delta | None:
        """What a commit adds to the partitions that stand at its origin."""
        partitions = self._going_on(commit)
        if not partitions:
            return None
        ids = ids_in(commit)
        changes = commit.changes
        if len(partitions) < len(commit.partitions):
            ids = of_partitions(ids, partitions)
            changes = restricted(changes, partitions)
        self.told |= dict.fromkeys(partitions, commit.target)
        chunk = idruns.encode(ids, About(partitions, commit.origin, commit.target))
        return Delta(chunk, changes, after, commit.config_epoch)

    def _going_on(self, commit: Commit) -> tuple[int, ...]:
        """The partitions followed that were told to stand where a commit begins. Those that it neither goes on with nor
        lies below are lost."""
        going = []
        verdicts: dict[int, tuple[bool, bool]] = {}  # most partitions share their vectors with others
        for partition in commit.partitions:
            if partition not in self.partitions or partition in self.lost:
                continue
            told = self.told.get(partition, EMPTY)
            if id(told) not in verdicts:
                verdicts[id(told)] = told == commit.origin, commit.target <= told
            begins_there, passed = verdicts[id(told)]
            if begins_there:
                going.append(partition)
            elif not passed:
                self.lost.add(partition)
        return tuple(going)


def restricted(changes: entries.Counters, partitions: Collection[int]) -> entries.Counters:
    """What is counted of these partitions."""
    found: entries.Counters = {}
    for stream, counts in changes.items():
        if mine := {p: counts[p] for p in partitions if p in counts}:
            found[stream] = mine
    return found
