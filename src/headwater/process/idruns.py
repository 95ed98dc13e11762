"""Runs of ids on disk: ``state/<n>/ids/<number>.run``, append-only (protocol.md §17.11).

A run is a row of chunks. One chunk is what one commit added to the ids seen, and says which commit that was::

    magic HWI2, entries u32, first minute u32, last minute u32, about_bytes u32, hash of the ids u64 | hash u64
    about: msgpack (partitions, origin, target), empty for ids taken over from a former processor
    the ids: high u64[], low u64[], minute u32[], partition u16[]

Both hashes are xxh3_64; the second is that of the fields before it and of ``about``. A run ends where it is torn; what
was lost so is appended again, since no saved fold covers it, and the row of commits goes on in the next run. Chunks of
version 1 (no ``about``) are read.

They serve three: a processor that starts reads those of its window; a private run reads the ids below its origin, which
the raw log would tell ten times more dearly; another node's standby is given them (node/standby). Since a
chunk names its commit, a reader knows whether they are complete (``below``), and which of them lie below a vector
(``held``): ids that are missing could double a row, ids from above could lose one.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import msgspec
import numpy as np
from xxhash import xxh3_64_intdigest

from headwater.event.commit import Commit
from headwater.event.position import EMPTY, Vector
from headwater.kit.disk import Disk, SystemDisk, make_folders
from headwater.kit.errors import Broken
from headwater.process.dedupe import CHUNK, ENTRY_BYTES, MAGIC, MINUTE_NS, Ids, arrays_of, bytes_of

FIELDS = struct.Struct("<4sIIIIQ")
HASH = struct.Struct("<Q")
HEADER_BYTES = FIELDS.size + HASH.size
FIELDS_MAGIC = b"HWI2"
ABOUT_BYTES_MAX = 1024 * 1024
"""4,096 partitions and some thousand writers."""
READ_BYTES = 8 * 1024 * 1024
RUN_BYTES = 16 * 1024 * 1024
"""From here on a new run is begun; runs are removed whole."""
MACHINE: Disk = SystemDisk()
"""Whose runs are read where nobody says otherwise; it holds nothing."""


class About(NamedTuple):
    """Whose ids they are: all that the commit [origin, target) of these partitions added."""

    partitions: tuple[int, ...]
    origin: Vector
    target: Vector


@dataclass(frozen=True, slots=True)
class Chunk:
    """Where the ids of a chunk stand; they are not read yet, nor their hash verified."""

    path: str
    offset: int
    entries: int
    first_minute: int
    last_minute: int
    digest: int
    about: About | None

    @property
    def minute(self) -> int:
        """When its newest id was received, by the home or the owner, whose clock is further behind: one that is ahead
        by a day says nothing of what the others still need."""
        if self.about is None or not self.about.target.clock:
            return self.last_minute
        return min(self.last_minute, self.about.target.clock // MINUTE_NS)


def encode(ids: Ids, about: About | None) -> bytes:
    """One chunk."""
    head = b""
    if about is not None:
        head = msgspec.msgpack.encode((about.partitions, about.origin.encode(), about.target.encode()))
    data = bytes_of(ids)
    first, last = (int(ids[2].min()), int(ids[2].max())) if len(ids[2]) else (0, 0)
    fields = FIELDS.pack(FIELDS_MAGIC, len(ids[0]), first, last, len(head), xxh3_64_intdigest(data))
    return b"".join((fields, HASH.pack(xxh3_64_intdigest(fields + head)), head, data))


def about_of(commit: Commit) -> About:
    """What a chunk says of its commit."""
    return About(tuple(commit.partitions), commit.origin, commit.target)


def held(about: About, vectors: Mapping[int, Vector], wanted: Collection[int]) -> tuple[int, ...]:
    """The partitions among those ``wanted`` whose state at these vectors holds all that this commit added.

    Ids of a commit that reaches beyond the vector belong to events that are still to be run, and would make each of
    them a duplicate of itself (protocol-why.md P1).
    """
    return tuple(p for p in about.partitions if p in wanted and about.target <= vectors.get(p, EMPTY))


def paths(folder: str, disk: Disk = MACHINE) -> list[str]:
    """The runs below a folder of state, oldest first."""
    path = f"{folder}/ids"
    if not disk.exists(path):
        return []
    return [f"{path}/{name}" for name in sorted(disk.listdir(path)) if name.endswith(".run")]


def chunks(path: str, disk: Disk = MACHINE) -> Iterator[Chunk]:
    """The chunks of a run by their headers, as far as it is whole by size; none where it is gone by now: its processor
    gives runs back beside those who read them."""
    try:
        file = disk.open(path)
    except FileNotFoundError:
        return
    try:
        size = disk.size(file)
        at = 0
        while at < size:
            found = _chunk(disk, file, path, at)
            if found is None:
                return
            at = found.offset + found.entries * ENTRY_BYTES
            if at > size:
                return
            yield found
    finally:
        disk.close(file)


def _chunk(disk: Disk, file: int, path: str, at: int) -> Chunk | None:
    head = disk.pread(file, HEADER_BYTES, at)
    if head[:4] == MAGIC and len(head) >= CHUNK.size:
        _, entries, first, last, digest = CHUNK.unpack_from(head)
        return Chunk(path, at + CHUNK.size, entries, first, last, digest, None)
    if head[:4] != FIELDS_MAGIC or len(head) < HEADER_BYTES:
        return None
    about_bytes = FIELDS.unpack_from(head)[4]
    if about_bytes > ABOUT_BYTES_MAX:
        return None
    return parsed(head + disk.pread(file, about_bytes, at + HEADER_BYTES), path, at)


def parsed(head: bytes, path: str = "", at: int = 0) -> Chunk | None:
    """What a chunk says before its ids; None where that is damaged."""
    if head[:4] != FIELDS_MAGIC or len(head) < HEADER_BYTES:
        return None
    _, entries, first, last, about_bytes, digest = FIELDS.unpack_from(head)
    about = head[HEADER_BYTES : HEADER_BYTES + about_bytes]
    if HASH.unpack_from(head, FIELDS.size)[0] != xxh3_64_intdigest(head[: FIELDS.size] + about):
        return None
    return Chunk(path, at + HEADER_BYTES + about_bytes, entries, first, last, digest, _about(about))


def checked(data: bytes) -> Chunk:
    """The one chunk that these bytes are; Broken where they are anything else."""
    try:
        found = parsed(data)
    except (msgspec.MsgspecError, Broken) as error:
        raise Broken(f"a chunk of ids says nonsense of its commit: {error}", code="ids_torn") from error
    if (
        found is not None
        and len(data) == found.offset + found.entries * ENTRY_BYTES
        and xxh3_64_intdigest(memoryview(data)[found.offset :]) == found.digest
    ):
        return found
    raise Broken("a chunk of ids is damaged", code="ids_torn")


def _about(data: bytes) -> About | None:
    if not data:
        return None
    partitions, origin, target = msgspec.msgpack.decode(data, type=tuple[tuple[int, ...], bytes, bytes])
    return About(partitions, Vector.decode(origin), Vector.decode(target))


def read(chunk: Chunk, disk: Disk = MACHINE) -> Ids | None:
    """The ids of a chunk; None where it is damaged, or gone."""
    length = chunk.entries * ENTRY_BYTES
    try:
        file = disk.open(chunk.path)
    except FileNotFoundError:
        return None
    try:
        data = disk.pread(file, length, chunk.offset)
    finally:
        disk.close(file)
    if len(data) != length or xxh3_64_intdigest(data) != chunk.digest:
        return None
    return arrays_of(data, chunk.entries)


class Runs:
    """The runs below one folder of state, for the one process that writes them."""

    def __init__(self, disk: Disk, folder: str) -> None:
        self.disk = disk
        self.folder = folder
        make_folders(disk, f"{folder}/ids")
        self.file: int | None = None
        self.bytes = 0

    def append(self, data: bytes) -> None:
        """Chunks, durable on return. OSError as the disk gives it: then nothing, or a part that readers pass over, is
        there, and the next ones go into another run."""
        if self.file is None or self.bytes > RUN_BYTES:
            self.close()
            self._begin()
        assert self.file is not None
        try:
            view = memoryview(data)
            while view:
                written = self.disk.pwrite(self.file, view, self.bytes)
                self.bytes += written
                view = view[written:]
            self.disk.sync(self.file)
        except OSError:  # nobody knows what of it is there
            self.close()
            raise

    def close(self) -> None:
        """Release the file; what is appended next begins a run."""
        if self.file is not None:
            self.disk.close(self.file)
            self.file = None

    def _begin(self) -> None:
        known = paths(self.folder, self.disk)
        number = int(os.path.basename(known[-1]).split(".")[0], 16) + 1 if known else 0
        self.file = self.disk.open(f"{self.folder}/ids/{number:016x}.run", write=True, create=True)
        self.bytes = 0
        self.disk.sync_dir(f"{self.folder}/ids")


def pieces(found: Iterable[Chunk], bytes_max: int = READ_BYTES, disk: Disk = MACHINE) -> Iterator[Ids | None]:
    """The ids of many chunks, about ``bytes_max`` at a time; None for a piece with damage in it."""
    held: list[Ids] = []
    size = 0
    for chunk in found:
        ids = read(chunk, disk)
        if ids is None:
            yield None
            continue
        held.append(ids)
        size += chunk.entries * ENTRY_BYTES
        if size >= bytes_max:
            yield joined(held)
            held, size = [], 0
    if held:
        yield joined(held)


def joined(found: Sequence[Ids]) -> Ids:
    """Several as one."""
    high, low, minute, partition = map(np.concatenate, zip(*found, strict=True))
    return high, low, minute, partition


def since(folder: str, minute: int | None = None, disk: Disk = MACHINE) -> Iterator[Chunk]:
    """The chunks of a folder of state that hold an id received at ``minute`` or later, or say whose they are and hold
    none at all: they keep the row of commits without a gap."""
    for path in paths(folder, disk):
        for chunk in chunks(path, disk):
            if minute is None or chunk.last_minute >= minute or not chunk.entries:
                yield chunk


def newest_minute(folder: str, disk: Disk = MACHINE) -> int:
    """The latest minute of receipt in a folder; 0 where there is none."""
    found = (chunk.minute for path in paths(folder, disk) for chunk in chunks(path, disk))
    return max(found, default=0)


class Below(NamedTuple):
    """The ids of some partitions below a vector, as far as the runs know them without a gap."""

    upto: Vector
    """All ids below it are in ``chunks``, back to the minute that was asked for; the rest stands in the raw log."""
    chunks: list[Chunk]


def below(
    folders: Iterable[str],
    partitions: Sequence[int],
    at: Vector,
    edge_minute: int,
    disk: Disk = MACHINE,
) -> Below | None:
    """What the runs hold of the ids below ``at`` that were received at ``edge_minute`` or later; None where they do
    not reach back so far, or have a gap.

    Commits of one partition follow one another, so a row without a gap from one that began before the edge up to one
    that ends at or below ``at`` holds them all. A commit that reaches beyond ``at`` holds ids from above it, so it is
    left out, and what of it lies below must be read elsewhere.
    """
    rows = {partition: Row() for partition in partitions}
    for folder in folders:
        for path in paths(folder, disk):
            for chunk in chunks(path, disk):
                if chunk.about is None or not chunk.about.target <= at:
                    continue
                for partition in chunk.about.partitions:
                    if partition in rows:
                        rows[partition].add(chunk, chunk.about)
    if not all(row.reaches(edge_minute) for row in rows.values()):
        return None
    upto = at
    found: dict[tuple[str, int], Chunk] = {}
    for row in rows.values():
        upto = upto.meet(row.end)
        found |= {(c.path, c.offset): c for c in row.chunks if c.last_minute >= edge_minute}
    return Below(upto, list(found.values()))


class Row:
    """Commits of one partition that follow one another."""

    def __init__(self) -> None:
        self.chunks: list[Chunk] = []
        self.begin = EMPTY
        self.end = EMPTY

    def add(self, chunk: Chunk, about: About) -> None:
        """The next in the order of writing. A gap begins a new row: what stood before it says nothing any more."""
        if self.chunks and about.target <= self.end:
            return  # written again after a crash
        if not self.chunks or not about.origin <= self.end:
            self.chunks, self.begin = [], about.origin
        self.chunks.append(chunk)
        self.end = about.target

    def reaches(self, minute: int) -> bool:
        """Whether no id received at ``minute`` or later stands before this row: what a cut took was closed, hence
        received, at or before the time of the cut, which is the clock of its target."""
        return bool(self.chunks) and self.begin.clock // MINUTE_NS < minute
