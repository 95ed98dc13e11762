"""Answers of one connection, in the order of its requests.

An answer that waits for the disk is a promise: the log keeps or breaks promises in the order in which they were made.
An answer that need not wait still waits for those before it. Without pipelining there is at most one, and nothing
is queued. A client that is gone takes its answers with it, never a commit: no write raises.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from headwater.collect import replies
from headwater.collect.door import Door
from headwater.kit.errors import HeadwaterError


class Answers:
    """What a connection owes its client."""

    __slots__ = ("door", "dress", "later", "phase", "promised", "promised_lines", "transport")

    def __init__(self, door: Door) -> None:
        self.door = door
        self.transport: asyncio.Transport | None = None
        """None before the connection is made and after it is lost."""
        self.phase = 0
        """What the next bytes are (protocol.py); 0 where a request may begin."""
        self.promised: bytes | None = None
        self.promised_lines = ""
        self.later: deque[tuple[bytes, str | None]] | None = None
        """Answers behind the promised one; with header lines for their refusal where they are promises too."""
        self.dress: Callable[[bytes], bytes] | None = None
        """Adds what the answer to the request in hand says about the connection."""

    def pause(self) -> None:
        """Read no more for now: too many answers are owed."""
        raise NotImplementedError

    def settle(self) -> None:
        """Answers have gone: go on reading, or end."""
        raise NotImplementedError

    def answer(self, reply: bytes) -> None:
        """Send now, or after the answers that are owed."""
        if self.dress is not None:
            reply = self.dress(reply)
        if self.promised is None:
            self.write(reply)
        else:
            self.queue(reply, None)

    def promise(self, reply: bytes, lines: str) -> None:
        """Send when the log has released this connection once more."""
        if self.dress is not None:
            reply = self.dress(reply)
        if self.promised is None:
            self.promised = reply
            self.promised_lines = lines
        else:
            self.queue(reply, lines)

    def queue(self, reply: bytes, lines: str | None) -> None:
        if self.later is None:
            self.later = deque()
        self.later.append((reply, lines))
        if self.behind():
            self.pause()

    def released(self, error: HeadwaterError | None) -> None:
        """The block that holds the oldest promised request is durable, or the log says ``error``."""
        reply = self.promised
        self.promised = None
        if reply is None:
            return
        if error is not None:
            reply = replies.unavailable(error, self.promised_lines)
            self.door.stats.refuse(error.code)
        self.write(reply)
        if self.later is not None or self.phase:
            self.advance()

    def advance(self) -> None:
        """Send what need not wait any more, up to the next promise; then go on reading, or end."""
        later = self.later
        while later:
            reply, lines = later.popleft()
            if lines is not None:
                self.promised = reply
                self.promised_lines = lines
                break
            self.write(reply)
        if not later:
            self.later = None
        self.settle()

    def write(self, reply: bytes) -> None:
        """To the socket; a client that is gone is no error."""
        if self.transport is None:
            self.door.stats.lost_answers += 1
            return
        try:
            self.transport.write(reply)
        except (RuntimeError, OSError):
            self.door.stats.lost_answers += 1

    def behind(self) -> bool:
        """Whether so many answers are owed that no more requests are read."""
        return self.later is not None and len(self.later) >= self.door.settings.pipeline_max
