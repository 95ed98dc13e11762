"""Nobody gives files back in the moment in which a backup notes which there are.

Who retires segments does it inside ``retiring``; who links them for a backup does that inside ``linking``, which takes
milliseconds: a file that has a second name cannot be lost any more, so nothing is held up while gigabytes are copied.
The lock is flock on the folder ``raw``: it leaves no file, and who dies lets go.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator

from headwater.kit.clock import Clock
from headwater.kit.errors import Unavailable

LINKING_WAIT_S = 30.0
POLL_S = 0.01


@contextlib.contextmanager
def retiring(data: str) -> Iterator[bool]:
    """False while a backup notes which files there are: give nothing back now, the next pass will."""
    with locked_folder(f"{data}/raw") as folder:
        yield taken(folder, fcntl.LOCK_SH)


@contextlib.contextmanager
def linking(data: str, clock: Clock) -> Iterator[None]:
    """Nothing is given back inside. Unavailable: a pass of retention has not ended within LINKING_WAIT_S."""
    with locked_folder(f"{data}/raw") as folder:
        until_ns = clock.boot_ns() + int(LINKING_WAIT_S * 1e9)
        while not taken(folder, fcntl.LOCK_EX):
            if clock.boot_ns() > until_ns:
                raise Unavailable("the node does not stop giving files back", code="retention_busy")
            clock.block(POLL_S)
        yield


@contextlib.contextmanager
def locked_folder(path: str) -> Iterator[int]:
    """A folder, opened; closing it lets go of its lock."""
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield folder
    finally:
        os.close(folder)


def taken(folder: int, kind: int) -> bool:
    """Take the lock of an opened folder; False where somebody else has it."""
    try:
        fcntl.flock(folder, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
