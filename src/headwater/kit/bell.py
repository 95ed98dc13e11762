"""Waking another process of this node at once: a named pipe on which one rings and the other listens.

A bell carries no message: what has changed stands in shared memory or in a file, and whoever is woken looks there. So
rings that come while one is pending are one, and a ring that nobody hears is lost without harm, when the listener also
looks by itself now and then. Ringing costs one system call and never waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable

PENDING_BYTES = 65_536
"""What a pipe holds at most."""


class Bell:
    """The listening side."""

    def __init__(self, path: str, loop: asyncio.AbstractEventLoop, heard: Callable[[], None]) -> None:
        """``heard`` is called in the loop, once for all rings since it was called last."""
        with contextlib.suppress(FileExistsError):
            os.mkfifo(path, 0o600)
        self.loop = loop
        self.heard = heard
        self.file = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        """For writing too, so that it has no end while nobody else has it open."""
        loop.add_reader(self.file, self.listen)

    def listen(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self.file, PENDING_BYTES)
        self.heard()

    def close(self) -> None:
        """Listen no more."""
        self.loop.remove_reader(self.file)
        os.close(self.file)


class Ringer:
    """The other side; from any thread."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.file = -1

    def ring(self) -> None:
        """Wake whoever listens; nothing where nobody does."""
        try:
            if self.file < 0:
                self.file = os.open(self.path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            os.write(self.file, b"\0")
        except BlockingIOError:
            pass  # it has rung already
        except OSError:  # no pipe yet, or nobody listens: the next ring opens it anew
            self.close()

    def close(self) -> None:
        """Release the file."""
        if self.file >= 0:
            os.close(self.file)
            self.file = -1
