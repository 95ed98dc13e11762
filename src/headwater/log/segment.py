"""A segment to read from: the same bytes at the same offsets, whether its file is plain or compressed.

Everything that reads blocks reads them through this, so a block is believed for its own hash in either form, and where
a compressed file is damaged, blocks are missing exactly as they would be in a plain one. A segment changes its form
while others read (log/compress): whoever has the plain file open goes on with it, and opening finds the form that is
there.
"""

from __future__ import annotations

import errno
import os
from typing import Protocol

from headwater.kit.disk import Disk
from headwater.log import files
from headwater.log.block import Secret
from headwater.log.compressed import CompressedFile
from headwater.log.files import Segment


class SegmentFile(Protocol):
    """An open segment."""

    @property
    def disk_bytes(self) -> int:
        """What its file takes."""
        ...

    def pread(self, length: int, offset: int) -> bytes:
        """Up to ``length`` bytes, fewer at the end. Bytes that a damaged compressed file has lost are zeros."""
        ...

    def size(self) -> int:
        """Where it ends now, in offsets of ``pread``."""
        ...

    def close(self) -> None: ...


class PlainFile:
    """A segment as it was written."""

    def __init__(self, disk: Disk, file: int) -> None:
        self.disk = disk
        self.file = file

    @property
    def disk_bytes(self) -> int:
        return self.size()

    def pread(self, length: int, offset: int) -> bytes:
        return self.disk.pread(self.file, length, offset)

    def size(self) -> int:
        return self.disk.size(self.file)

    def close(self) -> None:
        self.disk.close(self.file)


def open_segment(disk: Disk, found: Segment, secret: Secret, *, direct: bool = False) -> SegmentFile:
    """Open a segment in the form that it has now; the plain one where there are both. ``direct``: past the cache.

    FileNotFoundError: there is neither.
    """
    plain, compressed = files.forms(found)
    try:
        return PlainFile(disk, disk.open(plain, direct=direct))
    except FileNotFoundError:
        pass
    try:
        file = disk.open(compressed, direct=direct)
    except FileNotFoundError:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), found.path) from None
    try:
        return CompressedFile(disk, file, found.log, found.first, secret)
    except BaseException:
        disk.close(file)
        raise
