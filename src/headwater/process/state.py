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

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec
import numpy as np
import pyarrow as pa

from headwater.event.commit import COUNTERS, Commit
from headwater.event.position import EMPTY, ZERO, Position, Vector
from headwater.identity.store import FactStore
from headwater.identity.table import facts_in
from headwater.kit.disk import Disk, read_whole, write_whole
from headwater.kit.errors import Broken
from headwater.process import idruns
from headwater.process.dead import DeadLetters
from headwater.process.dedupe import ENTRY_BYTES, Ids, decode_ids
from headwater.process.idruns import MACHINE, RUN_BYTES, About, Runs

IN = COUNTERS.index("in")
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

    def only(self, partitions: Collection[int]) -> Fold:
        """What it says of these partitions, and nothing of the processor: no ready position, no configuration."""
        counters: Counters = {}
        for stream, totals in self.counters.items():
            if mine := {p: list(counts) for p, counts in totals.items() if p in partitions}:
                counters[stream] = mine
        return Fold(vectors={p: v for p, v in self.vectors.items() if p in partitions}, counters=counters)

    def events_in(self, partition: int) -> int:
        """How many events of a partition it has counted."""
        return sum(totals[partition][IN] for totals in self.counters.values() if partition in totals)

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
    """State of these partitions out of several folds: of each partition, the furthest one counts."""
    merged = Fold()
    for partition in owned:
        best = furthest(folds, partition)
        merged.vectors[partition] = best.vectors.get(partition, EMPTY)
        for stream, totals in best.counters.items():
            if partition in totals:
                merged.counters.setdefault(stream, {})[partition] = list(totals[partition])
    return merged


def furthest(folds: Sequence[Fold], partition: int) -> Fold:
    """The fold that stands furthest with a partition, whatever their order.

    Vectors of one partition lie on one chain, unless two nodes were its owners at a time: of several that none is
    above, the one that has counted most events is taken, then the one with the greater bytes. Any of them is right,
    as a state at a vector; the others' events are run again where they lie above it (protocol.md INV-OWN-1).
    """
    at = [fold.vectors.get(partition, EMPTY) for fold in folds]
    top = [n for n, vector in enumerate(at) if not any(vector <= other != vector for other in at)]
    best = max(top, key=lambda n: (folds[n].events_in(partition), at[n].encode(), -n), default=None)
    return Fold() if best is None else folds[best]


def load(disk: Disk, folder: str) -> Fold:
    """The fold as it was last saved; an empty one where none was."""
    if not disk.exists(f"{folder}/fold"):
        return Fold()
    return decode(read_whole(disk, f"{folder}/fold"), folder)


def decode(data: bytes, folder: str) -> Fold:
    """The fold that was saved in a folder; Broken where it cannot be read."""
    try:
        saved = msgspec.msgpack.decode(data, type=Saved)
        known = {data: Vector.decode(data) for data in {*saved.vectors.values()}}
    except (msgspec.MsgspecError, UnicodeDecodeError, Broken) as error:
        raise Broken(
            f"{folder}/fold cannot be read: {error}",
            code="state_unreadable",
            help="the file system has damaged it; restore the data folder from a backup",
        ) from error
    if saved.format != 1:
        raise Broken(f"state of format {saved.format} in {folder}; this version reads 1", code="state_format")
    vectors = {p: known[v] for p, v in saved.vectors.items()}
    former = {number: Position(*at) for number, at in saved.former.items()}
    return Fold(Position(*saved.ready), vectors, saved.counters, former, saved.config_epoch)


def save(disk: Disk, folder: str, fold: Fold) -> None:
    """Replace the saved fold; durable on return."""
    known = {id(v): v.encode() for v in {id(v): v for v in fold.vectors.values()}.values()}
    vectors = {p: known[id(v)] for p, v in fold.vectors.items()}
    saved = Saved(fold.ready, vectors, fold.counters, dict(fold.former), fold.config_epoch)
    write_whole(disk, f"{folder}/fold", msgspec.msgpack.encode(saved))


FACTS = "facts"
"""The folder of the store of facts, below that of the state."""


class StateStore:
    """One processor's folder; written by that processor alone."""

    def __init__(
        self, disk: Disk, folder: str, *, dead_letters_max: int, facts: FactStore | None = None
    ) -> None:
        self.facts = facts
        """What is known of anonymous ids; None: nothing is kept."""
        self.disk = disk
        self.folder = folder
        self.runs = Runs(disk, folder)
        self.dead = DeadLetters(f"{folder}/dead.sqlite", letters_max=dead_letters_max)
        self.pending_ids: list[bytes] = []
        self.taken_bytes = 0
        """Of those, what was taken over."""
        self.pending_dead: list[pa.Table] = []

    def add(self, commit: Commit) -> None:
        """Take over what a durable commit leaves behind; on disk with the next ``save``."""
        self.pending_ids.append(idruns.encode(ids_in(commit), idruns.about_of(commit)))
        self.add_dead(commit)

    def add_dead(self, commit: Commit) -> None:
        """Its dead letters alone."""
        if dead := commit.sections.get("dead"):
            self.pending_dead.append(pa.ipc.open_stream(dead).read_all())

    def add_facts(self, commit: Commit) -> None:
        """Its facts alone; those of a run that was made here just now are known already."""
        if self.facts is not None and (section := commit.sections.get("facts")):
            self.facts.add(facts_in(pa.ipc.open_stream(section).read_all()))

    def take_over(self, ids: Ids, about: About | None = None) -> None:
        """Keep ids that another processor has seen; durable with the next ``save`` at the latest.

        ``about``: the commit that they are of, as far as its partitions are taken over. Without it they count as seen
        whatever becomes of the partition later, also where it comes back from another node at a lower vector.
        """
        chunk = idruns.encode(ids, about)
        self.pending_ids.append(chunk)
        self.taken_bytes += len(chunk)
        if self.taken_bytes > RUN_BYTES:
            self._append_pending()

    def save(self, fold: Fold) -> None:
        """Make the fold durable."""
        self._append_pending()
        for table in self.pending_dead:
            self.dead.add(table)
        self.pending_dead = []
        if self.facts is not None:
            self.facts.save()
        save(self.disk, self.folder, fold)

    def close(self) -> None:
        """Release the files."""
        self.runs.close()
        self.dead.close()
        if self.facts is not None:
            self.facts.close()

    def forget_ids(self, raw_minute: int, window_minute: int, bytes_max: int) -> None:
        """Remove runs, oldest first: those received before what the raw log holds (``raw_minute``); and, where the runs
        take more than ``bytes_max``, those that no window reaches any more (``window_minute``)."""
        known = idruns.paths(self.folder, self.disk)
        size = sum(self.disk.about(path).size for path in known)
        for path in known[:-1]:
            last = max((chunk.minute for chunk in idruns.chunks(path, self.disk)), default=0)
            if last >= (window_minute if size > bytes_max else raw_minute):
                break
            size -= self.disk.about(path).size
            self.disk.unlink(path)

    def _append_pending(self) -> None:
        if self.pending_ids:
            self._append_ids(b"".join(self.pending_ids))
            self.pending_ids, self.taken_bytes = [], 0

    def _append_ids(self, data: bytes) -> None:
        self.runs.append(data)


def ids_in(commit: Commit) -> Ids:
    """The ids that a commit adds to those seen."""
    section = commit.sections.get("ids")
    return decode_ids(bytes(section))[0] if section else NO_IDS


class Part(NamedTuple):
    """Ids of one commit, as far as they are wanted of it."""

    ids: Ids
    about: About | None


def parts_below(
    folder: str,
    fold: Fold,
    base: Mapping[int, Vector],
    minute: int | None = None,
    disk: Disk = MACHINE,
) -> Iterator[Part]:
    """What a folder of state holds of the ids that the state at ``base`` has seen: its partitions, each at its vector.
    ``fold``: that of the folder; those received before ``minute`` are left out.

    The rule for whatever folder it is, be it that of the base or another one: a commit's ids count for those partitions
    whose base covers the commit. Runs are written before the fold, and a partition may have gone on elsewhere from a
    lower vector: ids from above it are of events that are run again, and would find themselves seen already
    (protocol-why.md P1). Ids that do not say whose they are lie at or below the vector of their own folder.
    """
    whole = {p for p, at in base.items() if p in fold.vectors and fold.vectors[p] <= at}
    for chunk in idruns.since(folder, minute, disk):
        partitions = whole if chunk.about is None else idruns.held(chunk.about, base, base)
        if partitions and (ids := idruns.read(chunk, disk)) is not None:
            yield restricted(Part(ids, chunk.about), tuple(partitions))


def held_parts(parts: Iterable[Part], base: Mapping[int, Vector]) -> Iterator[Part]:
    """By the same rule, what of these parts the state at ``base`` has seen; all of them say whose they are."""
    for part in parts:
        if part.about is not None and (partitions := idruns.held(part.about, base, base)):
            yield restricted(part, partitions)


def restricted(part: Part, partitions: tuple[int, ...]) -> Part:
    """What of a part belongs to these partitions."""
    if part.about is not None and len(partitions) == len(part.about.partitions):
        return part
    return Part(
        of_partitions(part.ids, partitions), part.about and part.about._replace(partitions=partitions)
    )


def batches(parts: Iterator[Part], bytes_max: int = idruns.READ_BYTES) -> Iterator[list[Part]]:
    """Several at a time, about ``bytes_max`` of them: what is remembered at once is remembered fast."""
    batch: list[Part] = []
    size = 0
    for part in parts:
        batch.append(part)
        size += len(part.ids[0]) * ENTRY_BYTES
        if size >= bytes_max:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def of_partitions(ids: Ids, owned: Collection[int]) -> Ids:
    """Those that belong to these partitions."""
    mine = np.zeros(1 << 16, bool)
    mine[list(owned)] = True
    high, low, minute, partition = ids
    keep = mine[partition]
    return high[keep], low[keep], minute[keep], partition[keep]
