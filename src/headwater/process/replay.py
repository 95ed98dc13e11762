"""The raw log read again for a replay: every event by itself, with today's configuration.

Unlike a private run (private.py) this drops no copies and keeps no ids: which copy of an id has the row is a question
that the destination has answered already, and its answer stands (destinations/redo.py). So a piece depends on nothing
below it, and a replay that was cut short goes on at any border of blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from headwater.event.piece import Piece, Range
from headwater.event.position import Vector
from headwater.kit.clock import Clock
from headwater.kit.disk import Disk
from headwater.kit.errors import Unavailable
from headwater.log.block import Secret
from headwater.log.follow import Follower
from headwater.log.read import Block
from headwater.process.run import Runner


class ReplayRun:
    """The events in [origin, until), for all partitions at once."""

    def __init__(
        self,
        disk: Disk,
        raw: str,
        secret: Secret,
        clock: Clock,
        runner: Runner,
        *,
        origin: Vector,
        until: Vector,
        now: Callable[[], tuple[int, int]],
        bytes_max: int,
    ) -> None:
        self.disk = disk
        self.raw = raw
        self.secret = secret
        self.clock = clock
        self.runner = runner
        self.at = origin
        self.until = until
        self.follower = Follower(disk, raw, secret, now, until=until)
        self.bytes_max = bytes_max

    @property
    def ended(self) -> bool:
        """Whether it has come to ``until``."""
        return self.at == self.until

    def advance(self) -> Piece | None:
        """The next piece, about ``bytes_max`` raw bytes; None at the end. Unavailable: the log ends before."""
        if self.ended:
            return None
        found = self.follower.take(self.at, lambda _: self.until.clock, self.bytes_max)
        if found is None:
            if self.at.join(self.until).entries != self.at.entries:
                raise Unavailable("the raw log does not reach as far as its commits", code="raw_short")
            self.at = self.until
            return Piece(self.until, (), None, None)
        rows, facts, dead = self.runner.each(found.blocks, self.clock.boot_ns() / 1e9)
        self.at = found.target
        unread = sum(block.header.events for block in found.blocks if block.payload is None)
        return Piece(found.target, ranges_of(found.blocks), rows, dead, facts, unread)

    def close(self) -> None:
        """Release the files."""
        self.follower.close()


def ranges_of(blocks: Sequence[Block]) -> tuple[Range, ...]:
    """The origins of the events in readable blocks; neighbours are put together."""
    found: list[Range] = []
    for block in sorted(blocks, key=lambda b: (b.writer, b.header.log_id, b.header.first_seq)):
        if block.payload is None:
            continue
        header = block.header
        if found and found[-1][::3] == (block.writer, header.first_seq) and found[-1].log == header.log_id:
            found[-1] = found[-1]._replace(end=header.next_seq)
        else:
            found.append(Range(block.writer, header.log_id, header.first_seq, header.next_seq))
    return tuple(found)
