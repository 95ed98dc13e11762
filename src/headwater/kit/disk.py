"""The disk, as an argument: the machine's here, a simulated one in kit/simulate.

What the callers rely on, and the simulation takes away where it may: bytes are durable only after ``sync``
of their file; a name is durable only after ``sync_dir`` of its folder; an error of ``sync`` says nothing about
which bytes are durable, and a second ``sync`` proves nothing (protocol-why.md L4).
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
from typing import NamedTuple, Protocol

ALIGNMENT = 4096


class Cell(Protocol):
    """One aligned u64 that several processes see; written whole."""

    def get(self) -> int: ...
    def set(self, value: int) -> None: ...
    def close(self) -> None: ...


class About(NamedTuple):
    """What a folder knows of a file."""

    size: int
    names: int
    """Hard links that lead to it."""


class Disk(Protocol):
    """The few calls that the product makes. Paths are text; errors are OSError, as the machine gives them."""

    def open(
        self,
        path: str,
        *,
        write: bool = False,
        create: bool = False,
        direct: bool = False,
        private: bool = False,
    ) -> int:
        """``private``: what is created can be read by its owner only."""
        ...

    def close(self, file: int) -> None: ...
    def pread(self, file: int, length: int, offset: int) -> bytes: ...
    def pwrite(self, file: int, data: bytes | memoryview, offset: int) -> int: ...
    def sync(self, file: int) -> None: ...
    def sync_dir(self, path: str) -> None: ...
    def size(self, file: int) -> int: ...

    def about(self, path: str) -> About:
        """Of a file, without opening it; zeros where it is gone."""
        ...

    def truncate(self, file: int, length: int) -> None: ...
    def rename(self, source: str, target: str) -> None: ...
    def unlink(self, path: str) -> None: ...
    def mkdir(self, path: str) -> None: ...
    def listdir(self, path: str) -> list[str]: ...
    def exists(self, path: str) -> bool: ...
    def free_bytes(self, path: str) -> int: ...

    def cell(self, path: str, *, write: bool = False) -> Cell:
        """Map a cell; ``write`` makes it when it is missing. FileNotFoundError: there is none, or not yet whole."""
        ...


class MappedCell:
    """A file of eight bytes in shared memory; a store of an aligned u64 is never seen torn."""

    def __init__(self, path: str, write: bool) -> None:
        flags = os.O_RDWR | os.O_CREAT if write else os.O_RDONLY
        file = os.open(path, flags | os.O_CLOEXEC, 0o640)
        try:
            if os.fstat(file).st_size < 8:
                if not write:
                    raise FileNotFoundError(errno.ENOENT, "the cell is still being made", path)
                os.pwrite(
                    file, bytes(8), 0
                )  # takes its room now: storing into a hole of a full disk is SIGBUS
            self.map = mmap.mmap(file, 8, access=mmap.ACCESS_WRITE if write else mmap.ACCESS_READ)
        finally:
            os.close(file)
        self.view = memoryview(self.map).cast("Q")

    def get(self) -> int:
        return int(self.view[0])

    def set(self, value: int) -> None:
        self.view[0] = value

    def close(self) -> None:
        self.view.release()
        self.map.close()


class SystemDisk:
    """The machine's disk."""

    def open(
        self,
        path: str,
        *,
        write: bool = False,
        create: bool = False,
        direct: bool = False,
        private: bool = False,
    ) -> int:
        flags = os.O_CLOEXEC | (os.O_RDWR if write else os.O_RDONLY) | (os.O_CREAT if create else 0)
        if direct:
            with contextlib.suppress(OSError):  # some file systems have no direct reading: the cache must do
                return os.open(path, flags | os.O_DIRECT, 0o640)
        return os.open(path, flags, 0o600 if private else 0o640)

    def close(self, file: int) -> None:
        os.close(file)

    def pread(self, file: int, length: int, offset: int) -> bytes:
        """Read up to ``length`` bytes. Works for direct files too, when both numbers are multiples of 4,096."""
        try:
            return os.pread(file, length, offset)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
        with mmap.mmap(-1, length) as buffer:  # direct reading wants aligned memory
            got = os.preadv(file, [buffer], offset)
            return buffer[:got]

    def pwrite(self, file: int, data: bytes | memoryview, offset: int) -> int:
        return os.pwrite(file, data, offset)

    def sync(self, file: int) -> None:
        os.fdatasync(file)

    def sync_dir(self, path: str) -> None:
        file = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(file)
        finally:
            os.close(file)

    def size(self, file: int) -> int:
        return os.fstat(file).st_size

    def about(self, path: str) -> About:
        try:
            found = os.stat(path)
        except FileNotFoundError:
            return About(0, 0)
        return About(found.st_size, found.st_nlink)

    def truncate(self, file: int, length: int) -> None:
        os.ftruncate(file, length)

    def rename(self, source: str, target: str) -> None:
        os.rename(source, target)

    def unlink(self, path: str) -> None:
        os.unlink(path)

    def mkdir(self, path: str) -> None:
        os.makedirs(path, mode=0o750, exist_ok=True)

    def listdir(self, path: str) -> list[str]:
        return sorted(os.listdir(path))

    def exists(self, path: str) -> bool:
        return os.path.exists(path)

    def free_bytes(self, path: str) -> int:
        state = os.statvfs(path)
        return state.f_bavail * state.f_frsize

    def cell(self, path: str, *, write: bool = False) -> Cell:
        return MappedCell(path, write)


def make_folder(disk: Disk, path: str) -> None:
    """A folder whose name is durable on return, whether it was there or not; its parents must be so already."""
    disk.mkdir(path)
    disk.sync_dir(os.path.dirname(path) or ".")


def make_folders(disk: Disk, path: str) -> None:
    """As ``make_folder``, with those above it that are missing. Where the folder above may not be read, its content
    cannot be synced: somebody else made it."""
    above = os.path.dirname(path)
    if above not in ("", path) and not disk.exists(above):
        make_folders(disk, above)
    disk.mkdir(path)
    with contextlib.suppress(PermissionError):
        disk.sync_dir(above or ".")


def write_whole(disk: Disk, path: str, data: bytes, *, private: bool = False) -> None:
    """Replace a small file so that after any crash it holds the old or the new bytes; durable on return.

    ``private``: readable by its owner only.
    """
    folder = os.path.dirname(path)
    draft = path + ".tmp"
    file = disk.open(draft, write=True, create=True, private=private)
    try:
        disk.truncate(file, 0)
        written = disk.pwrite(file, data, 0)
        if written != len(data):
            raise OSError(errno.EIO, f"short write: {written} of {len(data)} bytes", draft)
        disk.sync(file)
    finally:
        disk.close(file)
    disk.rename(draft, path)
    disk.sync_dir(folder)


def read_whole(disk: Disk, path: str) -> bytes:
    """A small file's bytes; FileNotFoundError as the disk gives it."""
    file = disk.open(path)
    try:
        return disk.pread(file, disk.size(file), 0)
    finally:
        disk.close(file)
