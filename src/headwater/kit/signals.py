"""Signals as a queue, and processes that end with the one that started them.

A signal handler that does anything is a second thread of control; so it only puts the signal's number into a queue,
which the owner reads where it suits. SIGHUP, SIGINT and SIGTERM are taken; a second SIGINT is just another entry.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
from types import TracebackType
from typing import Self

TAKEN = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
PR_SET_PDEATHSIG = 1


class Signals:
    """The signals of this process, in order. Use as a context manager on the main thread, inside the loop."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[signal.Signals] = asyncio.Queue()
        self.loop: asyncio.AbstractEventLoop | None = None

    def __enter__(self) -> Self:
        self.loop = asyncio.get_running_loop()
        for number in TAKEN:
            self.loop.add_signal_handler(number, self.queue.put_nowait, number)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self.loop is not None
        for number in TAKEN:
            self.loop.remove_signal_handler(number)

    async def next(self, within_s: float | None = None) -> signal.Signals | None:
        """The next signal; None when none came ``within_s``."""
        try:
            async with asyncio.timeout(within_s):
                return await self.queue.get()
        except TimeoutError:
            return None


def end_with_parent(parent: int) -> None:
    """Be killed when process ``parent`` ends, however it ends; exits at once when it is gone already.

    The kernel sends the signal when the *thread* that forked ends, so the parent starts processes from its main
    thread. The check afterwards closes the gap between fork and prctl.
    """
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if not is_parent(parent):
        os._exit(1)


def is_parent(parent: int) -> bool:
    """Whether ``parent`` is still alive as this process's parent."""
    return os.getppid() == parent
