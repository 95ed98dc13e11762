"""The state of another node's processor, kept in a folder of the form of ``state/<n>`` (process/state.py).

Ids are appended to the runs as they come, and the fold is replaced behind them: so at any moment, and after any crash,
the fold names the vector of each partition, and the ids below it are there. What lies above is there too, after a crash
or in the middle of a base, and is known by its commit; readers leave it out (``parts_below``). A base therefore needs
no folder of its own: its ids stand beside the old ones, and count when the fold that it brings is saved.

A delta that does not begin where its partitions stand is refused; whoever feeds the sink begins again from what it says
that it holds (``known``).

Memory: the fold, and chunks of at most ``PENDING_BYTES`` beside the one that is taken. Disk: the ids of the window, up
to two times after a new base, and one run (16 MiB) more.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping

from headwater.event.commit import Commit
from headwater.event.position import EMPTY, ZERO, Position, Vector
from headwater.kit.disk import Disk
from headwater.kit.errors import Broken
from headwater.node.standby import entries
from headwater.node.standby.entries import Base, Delta, Entry, Known, Seen
from headwater.process import idruns, state, takeover
from headwater.process.idruns import About, Chunk, Runs
from headwater.process.state import Fold

PENDING_BYTES = 1024 * 1024
FORGET_MINUTES = 5
"""So far beyond the window ids are kept, and so often they are looked through."""


class Sink:
    """One folder; of the processes that write it there is one at a time."""

    def __init__(self, disk: Disk, folder: str, *, window_minutes: int) -> None:
        self.disk = disk
        self.folder = folder
        self.window_minutes = window_minutes
        self.runs = Runs(disk, folder)
        self.trouble = ""
        """Why what was there before is of no use."""
        self.fold = self._loaded()
        self.synced: Mapping[int, Vector] = dict(self.fold.vectors)
        """Per partition the vector of the state that is on disk."""
        self.recent = deque(takeover.load_recent(disk, folder), maxlen=takeover.RECENT_MAX)
        """The last commits, so that they can be taken back (``takeover.rewound``)."""
        self.changed = False
        self.pending: list[bytes] = []
        self.pending_bytes = 0
        self.newest_minute = idruns.newest_minute(folder, disk)
        self.forgotten_minute = 0
        self.before_base: list[str] | None = None
        """The runs that were there before the base that is coming."""
        self.replaced: list[str] = []
        """Runs that the last base has replaced."""

    def known(self, partitions: Iterable[int]) -> Known:
        """What it holds of these partitions, for whoever goes on feeding it."""
        return Known(entries.standing(self.fold.vectors, partitions), self.fold.ready)

    def take(self, entry: Entry) -> None:
        """Take one entry in; durable with the next ``save``.

        Broken: it does not go on where the folder stands, or is damaged. OSError as the disk gives it. After either
        this sink is of no use any more; a new one finds what was saved.
        """
        match entry:
            case Seen():
                self._seen(entry)
            case Base():
                self._base(entry)
            case Delta():
                self._delta(entry)

    def save(self) -> bool:
        """Make durable what was taken; whether that was anything."""
        self._flush()
        if not self.changed:
            return False
        takeover.save_recent(self.disk, self.folder, self.recent)
        state.save(self.disk, self.folder, self.fold)
        self.synced = dict(self.fold.vectors)
        self.changed = False
        self._forget()
        return True

    def close(self) -> None:
        """Release the files."""
        self.runs.close()

    def _loaded(self) -> Fold:
        try:
            return state.load(self.disk, self.folder)
        except Broken as error:
            self.trouble = error.message
            return Fold()

    def _seen(self, entry: Seen) -> None:
        chunk, _ = named(entry.chunk)
        if self.before_base is None:
            self._flush()
            self.runs.close()
            self.before_base = idruns.paths(self.folder, self.disk)
        self._append(chunk, entry.chunk)

    def _base(self, entry: Base) -> None:
        vectors = entries.vectors(entry.standing)
        self._flush()
        covers_all = vectors.keys() >= self.fold.vectors.keys()
        fold = self.fold.with_partitions(Fold(vectors=vectors, counters=entry.counters), list(vectors))
        fold.ready, fold.config_epoch = Position(*entry.ready), entry.config_epoch
        self.fold, self.changed = fold, True
        if covers_all and self.before_base is not None:
            self.replaced = self.before_base
        self.before_base = None

    def _delta(self, entry: Delta) -> None:
        chunk, about = named(entry.chunk)
        standing = {id(v): v for v in (self.fold.vectors.get(p, EMPTY) for p in about.partitions)}
        for known in standing.values():
            if known != about.origin:
                raise Broken(
                    f"{self.folder} stands at {known!r}, a delta begins at {about.origin!r}",
                    code="standby_gap",
                )
        self._append(chunk, entry.chunk)
        commit = Commit(
            about.partitions, about.origin, about.target, entry.config_epoch, 0, entry.changes, {}
        )
        self.fold.apply(commit, Position(*entry.ready))
        told = takeover.Recent(about.partitions, about.origin.encode(), about.target.encode(), entry.changes)
        self.recent.append(told)
        self.changed = True

    def _append(self, chunk: Chunk, data: bytes) -> None:
        self.pending.append(data)
        self.pending_bytes += len(data)
        self.newest_minute = max(self.newest_minute, chunk.minute)
        if self.pending_bytes > PENDING_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self.pending:
            self.runs.append(b"".join(self.pending))
            self.pending, self.pending_bytes = [], 0

    def _forget(self) -> None:
        """Remove runs that no window reaches any more, and, minutes after a base, those that it has replaced: somebody
        who takes over may be reading them."""
        edge = self.newest_minute - self.window_minutes - FORGET_MINUTES
        if self.newest_minute < self.forgotten_minute + FORGET_MINUTES:
            return
        self.forgotten_minute = self.newest_minute
        for path in idruns.paths(self.folder, self.disk)[:-1]:
            last = max((chunk.minute for chunk in idruns.chunks(path, self.disk)), default=0)
            if path in self.replaced or last < edge:
                self.disk.unlink(path)
        self.replaced = []


def named(data: bytes) -> tuple[Chunk, About]:
    """A chunk that says whose ids it holds; Broken where it is none."""
    chunk = idruns.checked(data)
    if chunk.about is None:
        raise Broken("a chunk of ids that does not say whose they are", code="standby_format")
    return chunk, chunk.about


def nothing() -> Known:
    """What a standby holds that has no folder yet."""
    return Known([], ZERO)
