"""A data folder with logs, as a node would leave it, on a real disk."""

from __future__ import annotations

from pathlib import Path

from headwater.event.position import Position, WriterId
from headwater.kit.clock import SystemClock
from headwater.kit.disk import SystemDisk
from headwater.kit.rng import SeededRng
from headwater.kit.threads import inline
from headwater.log import files, recover, retain
from headwater.log.read import LogReader
from headwater.log.write import BlockWriter
from headwater.node.folder import Folder, make_folder, open_folder

DISK, CLOCK = SystemDisk(), SystemClock()
SEGMENT_BYTES = 4 * 4096
EVERYTHING = (1 << 62, 1 << 62)


class Logged:
    """A data folder with one collect worker, whose log is ``log``; a block is one event and a page."""

    def __init__(self, data: Path) -> None:
        data.mkdir(parents=True)
        self.folder: Folder = make_folder(str(data), DISK, SeededRng(1))
        self.folder.know_log_id(9)
        self.data = str(data)
        self.part = f"raw/{self.folder.writer(0):016x}"
        self.writer = self.open(9)

    def open(self, log: int) -> BlockWriter:
        """A new log of the worker."""
        return BlockWriter(
            DISK, CLOCK, self.folder.raw(0), self.folder.writer(0), log, start=1, offset_ns=0,
            segment_bytes=SEGMENT_BYTES, submit=inline, secret=self.folder.secret,
        )  # fmt: skip

    def write(self, count: int) -> None:
        """So many blocks more."""
        for number in range(count):
            self.writer.write(b"payload %d" % number, records=1, events=1)

    def end(self) -> None:
        """The worker ends, and its log is recovered."""
        self.writer.close()
        recover.recover_all(DISK, self.folder.raw(0), self.folder.secret, recover.no_streams)

    def retire(self, below: int, spares_max: int = 9) -> None:
        """Give back what lies below a number of the log."""
        retain.retire(
            DISK, self.folder.raw(0), Position(9, below), wanted=lambda *_: False,
            segment_bytes=SEGMENT_BYTES, spares_max=spares_max,
        )  # fmt: skip

    def segments(self) -> list[int]:
        """First numbers of the segments that are there."""
        return [segment.first for segment in files.segments(DISK, self.folder.raw(0))]


def numbers(data: str) -> list[int]:
    """The numbers of the events that readers of a folder get once it has started; -1 for a damaged stretch."""
    folder = open_folder(data, DISK)
    found = []
    for name in DISK.listdir(f"{data}/raw"):
        path = f"{data}/raw/{name}"
        recover.recover_all(DISK, path, folder.secret, recover.no_streams)
        segments = files.segments(DISK, path)
        at = Position(segments[0].log, segments[0].first)
        reader = LogReader(DISK, path, WriterId(int(name, 16)), at, secret=folder.secret)
        reader.fill(1 << 30)
        found += [
            block.header.first_seq if block.payload is not None else -1 for block in reader.take(EVERYTHING)
        ]
        reader.close()
    return found
