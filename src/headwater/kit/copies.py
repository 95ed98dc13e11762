"""Copies of files: as the file system does them best, and of SQLite as SQLite does them.

``copy_file`` shares the bytes where the file system can (XFS, Btrfs: at once, and no room is taken), else the kernel
copies them. The caller sees to it that nobody writes meanwhile; what it finds to have changed is refused.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import sqlite3
from collections.abc import Callable

from headwater.kit.errors import Unavailable

CLONE = 0x40049409
"""FICLONE of linux/fs.h."""
CHUNK_BYTES = 8 * 1024 * 1024
NOT_HERE = (errno.EXDEV, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP)
"""How a file system says that it cannot copy by itself."""


def copy_file(source: str, target: str, *, between: Callable[[], None] = lambda: None) -> None:
    """A new file with the same bytes, readable by its owner only; not synced.

    ``between`` is called after each piece, and may raise. Unavailable: the source was changed meanwhile.
    FileExistsError: the target is there. Other OSErrors as the machine gives them.
    """
    with contextlib.ExitStack() as files:
        reading = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
        files.callback(os.close, reading)
        writing = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        files.callback(os.close, writing)
        before = os.fstat(reading)
        if not cloned(reading, writing):
            left = before.st_size
            while left:
                count = copy_piece(reading, writing, min(left, CHUNK_BYTES))
                if not count:
                    break
                left -= count
                between()
        after = os.fstat(reading)
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            raise Unavailable(f"{source} was changed while it was copied", code="copy_changed")


def cloned(reading: int, writing: int) -> bool:
    """Let both share their bytes; False where the file system cannot."""
    try:
        fcntl.ioctl(writing, CLONE, reading)
    except OSError:
        return False
    return True


def copy_piece(reading: int, writing: int, length: int) -> int:
    """Copy up to ``length`` bytes from where both stand; how many, 0 at the end."""
    try:
        return os.copy_file_range(reading, writing, length)
    except OSError as error:
        if error.errno not in NOT_HERE:
            raise
    data = os.read(reading, length)
    view = memoryview(data)
    while view:
        view = view[os.write(writing, view) :]
    return len(data)


def copy_sqlite(source: str, target: str) -> None:
    """A new file with what SQLite holds at one moment, also while others write. Unavailable: it cannot be read."""
    os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    try:
        with (
            contextlib.closing(sqlite3.connect(source, timeout=30)) as reading,
            contextlib.closing(sqlite3.connect(target)) as writing,
        ):
            reading.backup(writing)
    except sqlite3.Error as error:
        raise Unavailable(f"{source} cannot be read: {error}", code="sqlite_unreadable") from error
