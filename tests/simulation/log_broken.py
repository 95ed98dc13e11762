"""Broken parts of a log, one mistake each; the oracle must find every one of them (test_log.py)."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, cast
from unittest import mock

from headwater.event.position import Position, Vector
from headwater.kit.disk import Disk
from headwater.log import block, compress, cut, files, recover
from headwater.log.block import Secret
from headwater.log.cut import Cut
from headwater.log.files import End
from headwater.log.read import LogReader
from headwater.log.recover import Recovery, raw_streams
from headwater.log.write import BlockWriter
from headwater.node.compressing import Compressing

FOREVER = (1 << 62, 1 << 62)


class Through:
    """A disk that passes everything on; the broken ones change one call."""

    def __init__(self, disk: Any) -> None:
        self.disk = disk

    def __getattr__(self, name: str) -> Any:
        return getattr(self.disk, name)

    def path(self, file: int) -> str:
        path: str = self.disk.descriptors[file].path
        return path


class NoSync(Through):
    """Segments are never synced."""

    def sync(self, file: int) -> None:
        if not self.path(file).endswith(".seg"):
            self.disk.sync(file)


class NoFolderSync(Through):
    """The names of new segments are never synced."""

    def sync_dir(self, path: str) -> None:
        pass


class NoParentSync(Through):
    """The name of a writer's own folder is never synced."""

    def sync_dir(self, path: str) -> None:
        if not path.endswith("raw"):
            self.disk.sync_dir(path)


class NoDraftSync(Through):
    """Compressed segments are never synced."""

    def sync(self, file: int) -> None:
        if not self.path(file).endswith(files.DRAFT):
            self.disk.sync(file)


class SyncIgnored(Through):
    """An error of a sync is ignored."""

    def sync(self, file: int) -> None:
        with suppress(OSError):
            self.disk.sync(file)


class SyncTwice(Through):
    """A failed sync is tried again, and believed."""

    def sync(self, file: int) -> None:
        try:
            self.disk.sync(file)
        except OSError:
            self.disk.sync(file)


class NothingDirect(Through):
    """What is meant to be read past the cache is read from the cache."""

    def open(self, path: str, *, direct: bool = False, **rest: bool) -> int:
        file: int = self.disk.open(path, **rest)
        return file


class EarlyWatermark(BlockWriter):
    """The watermark is stored before the sync."""

    def write(self, *parts: Any, records: int, events: int, flags: int = 0) -> Any:
        writer, disk = self, self.disk

        class Early(Through):
            def sync(self, file: int) -> None:
                assert writer.watermark is not None
                writer.watermark.set(writer.next_seq + events)
                self.disk.sync(file)

        self.disk = Early(disk)
        try:
            return super().write(*parts, records=records, events=events, flags=flags)
        finally:
            self.disk = disk


class GoesOnInOldLog(BlockWriter):
    """After a restart it appends to the log of its predecessor."""

    def __init__(self, disk: Any, clock: Any, folder: str, writer: Any, log_id: int, **rest: Any) -> None:
        old = [
            s
            for s in files.segments(disk, folder)
            if (end := files.read_end(disk, folder, s.log)) and end.seq
        ]
        super().__init__(disk, clock, folder, writer, old[-1].log if old else log_id, **rest)
        if old:
            end = files.read_end(disk, folder, self.log_id)
            assert end is not None
            self.file = disk.open(old[-1].path, write=True)
            self.offset, self.next_seq = disk.size(self.file), end.seq
            self.watermark = disk.cell(files.watermark_path(folder, self.log_id), write=True)


class ReadsBeyondWatermark(LogReader):
    """Takes every whole block that the cache shows."""

    def _durable(self) -> int:
        durable = super()._durable()
        own = [s for s in files.segments(self.disk, self.folder) if s.log == self._read.log]
        if self._end is not None or not own:
            return durable
        reading = Recovery(self.disk, self._read.log, own[-1].first, self.secret, raw_streams)
        reading.read(own[-1])
        return max(durable, reading.seq)


class LeavesEarly(LogReader):
    """Goes to the next log as soon as there is one."""

    def _next_log(self) -> bool:
        known, self._end = self._end, End(log=self._read.log, seq=0)
        if super()._next_log():
            return True
        self._end = known
        return False


def recover_believing_stale(disk: Disk, folder: str, secret: Secret) -> Any:
    """Any whole block continues the log, whatever log it was written for."""
    right = block.read_header

    def read_any(data: Any, log_id: int) -> Any:
        log = int.from_bytes(data[16:24], "little") if len(data) >= block.HEADER_BYTES else log_id
        return right(data, log)

    with mock.patch.object(block, "read_header", read_any):
        return recover.recover_all(disk, folder, secret)


def recover_by_watermark(disk: Disk, folder: str, secret: Secret) -> Any:
    """The end of a log is what its watermark says, although nobody syncs that."""
    for log in files.logs(disk, folder):
        if files.read_end(disk, folder, log) is None:
            try:
                seq = disk.cell(files.watermark_path(folder, log)).get()
            except FileNotFoundError:
                seq = 0
            files.write_end(disk, folder, End(log=log, seq=seq))


def recover_without_watermark(disk: Disk, folder: str, secret: Secret) -> Any:
    """Takes whatever cannot be read at the end for a torn tail."""
    with mock.patch.object(files, "read_watermark", lambda *_: 0):
        return recover.recover_all(disk, folder, secret)


def recover_calling_everything_damage(disk: Disk, folder: str, secret: Secret) -> Any:
    """Takes what cannot be read behind the last good block for damage, although nobody was told that it is there."""
    with mock.patch.object(files, "read_watermark", lambda *_: right(*_) + 1):
        return recover.recover_all(disk, folder, secret)


right = files.read_watermark


def recover_everything_again(disk: Disk, folder: str, secret: Secret) -> Any:
    """Decides the end of every log at every start."""
    with mock.patch.object(files, "read_end", lambda *_: None):
        return recover.recover_all(disk, folder, secret)


def predictable_log_id(previous: int, wall_ns: int, draw: int) -> int:
    """Counts on from what the folder shows."""
    return previous + 1


def take_without_time(
    readers: Any, origin: Vector, now: Any, node_time_ns: int, bytes_max: int
) -> Cut | None:
    """Takes whatever the watermarks allow while they are read one after the other."""
    return cut.take(readers, origin, FOREVER, node_time_ns, bytes_max)


def take_first_writer_first(
    readers: Any, origin: Vector, now: Any, node_time_ns: int, bytes_max: int
) -> Cut | None:
    """Drains one worker before it looks at the next."""
    for writer, reader in readers.items():
        if found := cut.take({writer: reader}, origin, now, node_time_ns, bytes_max):
            return found
    return None


def take_whole_backlogs(
    readers: Any, origin: Vector, now: Any, node_time_ns: int, bytes_max: int
) -> Cut | None:
    """Does not lower the time of a cut to what fits into it."""
    blocks = []
    for reader in readers.values():
        reader.fill(max(bytes_max // len(readers), 1))
    for reader in readers.values():
        blocks += reader.take(now)
    if not blocks:
        return None
    return Cut(origin, Vector({w: r.at for w, r in readers.items()}).join(origin), blocks, node_time_ns)


def switch_without_folder_sync(disk: Disk, folder: str) -> int:
    """The plain segment goes before the name of the compressed one is durable."""
    return compress.switch(cast(Any, NoFolderSync(disk)), folder)


class CompressesWhatIsWritten(Compressing):
    """Takes the last segment of an open log, as far as its watermark says that it is durable."""

    def look(self, committed: Vector, now_ns: int) -> bool:
        for folder in self.folders().values():
            for segment in files.segments(self.disk, folder)[-1:]:
                seq = files.read_watermark(self.disk, folder, segment.log)
                if seq > segment.first and not segment.compressed:
                    self.current = segment
                    after = Position(segment.log, seq)
                    self.steps = compress.compress(self.disk, folder, segment, after, self.secret, 1)
                    return True
        return False


class CompressesUnchecked(Compressing):
    """Believes that what it has written can be read again."""

    def step(self) -> Any:
        with mock.patch.object(compress, "equal", believed):
            return super().step()


def believed(*_: Any) -> Any:
    yield
    return True
