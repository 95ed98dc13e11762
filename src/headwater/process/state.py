"""The fold of a processor's commits on disk (protocol.md §4 INV-PROC-3): a cache that makes restarts quick.

``state/<n>/fold`` holds the vector of each partition, the cumulative counters and the ready position up to which
commits are folded, replaced whole; ``ids/`` holds runs of ids seen; ``dead.sqlite`` the dead letters. A fold is written
behind the commits, each second: first the runs and the dead letters (both may be repeated harmlessly), then the file
with the ready position. After a crash the commits behind that position are folded again. (Facts and sessions will
need LMDB; three numbers per partition do not.)

A processor that no longer runs (`process.workers` was lowered) leaves its folder and its ready log. Those that own
its partitions now take all of it over when they start: vectors and counters, ids seen, and number 0 its dead letters.
The same file that makes this durable says so (``former``), so that both may be removed (node/former.py).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np
import pyarrow as pa

from headwater.event.commit import COUNTERS, Commit
from headwater.event.position import EMPTY, ZERO, Position, Vector
from headwater.kit.disk import Disk, read_whole, write_whole
from headwater.kit.errors import Broken
from headwater.process import idruns
from headwater.process.dead import DeadLetters
from headwater.process.dedupe import Ids, decode_ids
from headwater.process.idruns import About

RUN_BYTES = 16 * 1024 * 1024
Counters = dict[str, dict[int, list[int]]]
NO_IDS = (np.zeros(0, np.uint64), np.zeros(0, np.uint64), np.zeros(0, np.uint32), np.zeros(0, np.uint16))


class Saved(msgspec.Struct, frozen=True):
    """What the file holds: per partition and stream, never per event."""

    ready: tuple[int, int]
    vectors: dict[int, bytes]
    counters: Counters
    former: dict[int, tuple[int, int]] = {}
    config_epoch: int = 0
    format: int = 1


@dataclass(slots=True)
class Fold:
    """State in memory: where each partition stands and what was counted."""

    ready: Position = ZERO
    vectors: dict[int, Vector] = field(default_factory=dict)
    counters: Counters = field(default_factory=dict)
    former: dict[int, Position] = field(default_factory=dict)
    """Processors that no longer run, and the end of their ready log: what they left of these partitions is here."""
    config_epoch: int = 0
    """Of the last commit."""

    def apply(self, commit: Commit, after: Position) -> None:
        """Take one commit in."""
        for partition in commit.partitions:
            self.vectors[partition] = commit.target
        for stream, changes in commit.changes.items():
            totals = self.counters.setdefault(stream, {})
            for partition, added in changes.items():
                old = totals.get(partition) or [0] * len(COUNTERS)
                totals[partition] = [a + b for a, b in zip(old, added, strict=True)]
        self.ready, self.config_epoch = after, commit.config_epoch

    def with_partitions(self, other: Fold, partitions: Sequence[int]) -> Fold:
        """This fold, with these partitions as ``other`` has them.

        The others stay as they were: a processor that takes them over may read this fold later than now.
        """
        vectors = {**self.vectors, **{p: other.vectors[p] for p in partitions}}
        counters: Counters = {}
        for stream in {*self.counters, *other.counters}:
            kept = {p: c for p, c in self.counters.get(stream, {}).items() if p not in set(partitions)}
            counters[stream] = kept | other.counters.get(stream, {})
        return Fold(self.ready, vectors, counters, dict(self.former), self.config_epoch)


def merge(folds: Sequence[Fold], owned: Sequence[int]) -> Fold:
    """State of these partitions out of several processors' folds: of each partition, the furthest one counts."""
    merged = Fold()
    for partition in owned:
        best = Fold()
        for fold in folds:  # vectors of one partition lie on one chain
            if best.vectors.get(partition, EMPTY) <= fold.vectors.get(partition, EMPTY):
                best = fold
        merged.vectors[partition] = best.vectors.get(partition, EMPTY)
        for stream, totals in best.counters.items():
            if partition in totals:
                merged.counters.setdefault(stream, {})[partition] = list(totals[partition])
    return merged


def load(disk: Disk, folder: str) -> Fold:
    """The fold as it was last saved; an empty one where none was."""
    if not disk.exists(f"{folder}/fold"):
        return Fold()
    try:
        saved = msgspec.msgpack.decode(read_whole(disk, f"{folder}/fold"), type=Saved)
    except msgspec.MsgspecError as error:
        raise Broken(
            f"{folder}/fold cannot be read: {error}",
            code="state_unreadable",
            help="the file system has damaged it; restore the data folder from a backup",
        ) from error
    if saved.format != 1:
        raise Broken(f"state of format {saved.format} in {folder}; this version reads 1", code="state_format")
    vectors = {p: Vector.decode(v) for p, v in saved.vectors.items()}
    former = {number: Position(*at) for number, at in saved.former.items()}
    return Fold(Position(*saved.ready), vectors, saved.counters, former, saved.config_epoch)


class StateStore:
    """One processor's folder; written by that processor alone."""

    def __init__(self, disk: Disk, folder: str, *, dead_letters_max: int) -> None:
        self.disk = disk
        self.folder = folder
        os.makedirs(f"{folder}/ids", mode=0o750, exist_ok=True)
        self.dead = DeadLetters(f"{folder}/dead.sqlite", letters_max=dead_letters_max)
        self.run: int | None = None
        self.run_bytes = 0
        self.pending_ids: list[bytes] = []
        self.pending_dead: list[pa.Table] = []

    def add(self, commit: Commit) -> None:
        """Take over what a durable commit leaves behind; on disk with the next ``save``."""
        section = commit.sections.get("ids")
        ids = decode_ids(bytes(section))[0] if section else NO_IDS
        self.pending_ids.append(idruns.encode(ids, idruns.about_of(commit)))
        self.add_dead(commit)

    def add_dead(self, commit: Commit) -> None:
        """Its dead letters alone."""
        if dead := commit.sections.get("dead"):
            self.pending_dead.append(pa.ipc.open_stream(dead).read_all())

    def take_over(self, ids: Ids) -> None:
        """Keep ids that a former processor has seen; durable with the next ``save`` at the latest."""
        self.pending_ids.append(idruns.encode(ids, None))
        if sum(map(len, self.pending_ids)) > RUN_BYTES:
            self._append_pending()

    def save(self, fold: Fold) -> None:
        """Make the fold durable."""
        self._append_pending()
        for table in self.pending_dead:
            self.dead.add(table)
        self.pending_dead = []
        vectors = {p: v.encode() for p, v in fold.vectors.items()}
        saved = Saved(fold.ready, vectors, fold.counters, dict(fold.former), fold.config_epoch)
        write_whole(self.disk, f"{self.folder}/fold", msgspec.msgpack.encode(saved))

    def close(self) -> None:
        """Release the files."""
        if self.run is not None:
            os.close(self.run)
            self.run = None
        self.dead.close()

    def forget_ids(self, raw_minute: int, window_minute: int, bytes_max: int) -> None:
        """Remove runs, oldest first: those received before what the raw log holds (``raw_minute``); and, where the runs
        take more than ``bytes_max``, those that no window reaches any more (``window_minute``)."""
        known = idruns.paths(self.folder)
        size = sum(map(os.path.getsize, known))
        for path in known[:-1]:
            last = max((chunk.last_minute for chunk in idruns.chunks(path)), default=0)
            if last >= (window_minute if size > bytes_max else raw_minute):
                break
            size -= os.path.getsize(path)
            os.unlink(path)

    def _append_pending(self) -> None:
        if self.pending_ids:
            self._append_ids(b"".join(self.pending_ids))
            self.pending_ids = []

    def _append_ids(self, data: bytes) -> None:
        if self.run is None or self.run_bytes > RUN_BYTES:
            if self.run is not None:
                os.close(self.run)
            known = idruns.paths(self.folder)
            number = int(os.path.basename(known[-1]).split(".")[0], 16) + 1 if known else 0
            self.run = os.open(
                f"{self.folder}/ids/{number:016x}.run", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640
            )
            self.run_bytes = 0
            _sync_folder(f"{self.folder}/ids")
        view = memoryview(data)
        while view:
            view = view[os.write(self.run, view) :]
        self.run_bytes += len(data)
        os.fdatasync(self.run)


def ids_of(folder: str, fold: Fold, owned: Sequence[int], minute: int) -> Iterator[Ids]:
    """The ids of a folder that belong to these partitions and were received at ``minute`` or later.

    Runs are written before the fold. What they say of commits that the fold does not hold is left out: those commits
    are run again, and would find their own events seen already (protocol-why.md P1).
    """

    def held(about: About) -> bool:
        return all(about.target <= fold.vectors.get(p, EMPTY) for p in about.partitions)

    for ids in idruns.since(folder, minute, held):
        yield of_partitions(ids, owned)


def of_partitions(ids: Ids, owned: Sequence[int]) -> Ids:
    """Those that belong to these partitions."""
    mine = np.zeros(1 << 16, bool)
    mine[list(owned)] = True
    high, low, minute, partition = ids
    keep = mine[partition]
    return high[keep], low[keep], minute[keep], partition[keep]


def _sync_folder(path: str) -> None:
    file = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
