"""What deliverers may deliver: commits whose ids and counters a standby has taken in (docs/decisions/0007-cluster.md).

If a destination were ahead of the standby, the death of this node could leave rows there whose ids nobody knows: only
its own disk. A client that sends those events again at another node would have them twice. So a commit waits until each
standby of this processor that is connected has taken it in; memory is enough against one death. It waits ``WAIT_S`` at
most: a standby that hangs delays delivery, and never stops it.

The lane process tells it in ``run/backed/<n>.log`` and ``.seq``, two mapped u64: the position in the ready log of
processor n. The log is written between two writes of the number, so that a reader never sees a number of another log.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

from headwater.cluster.table import View
from headwater.destinations.port import ChainReader
from headwater.event.commit import Commit
from headwater.event.position import Position
from headwater.kit.clock import Clock
from headwater.kit.disk import Cell, Disk

FOLDER = "backed"
"""Below ``run/``."""
EVERYTHING = Position((1 << 64) - 1, 0)
"""Where nobody is waited for."""
WAIT_S = 20.0
"""Longer than an owner that is cut off from its standby remains one by its own view (12 s where one link is cut)."""


def taken_by_all(
    view: View | None, taken: Mapping[str, Mapping[int, Position]], workers: int
) -> list[Position]:
    """Of each processor, up to where all standbys of its partitions that are connected have taken its commits."""
    found = [EVERYTHING] * workers
    if view is None:
        return found
    for partition in view.table.owned_by(view.me):
        number = partition % workers
        at = taken.get(view.table.standby[partition], {}).get(number, EVERYTHING)
        found[number] = min(found[number], at)
    return found


def cells_of(disk: Disk, run: str, number: int) -> tuple[Cell, Cell]:
    """Those of one processor; whoever comes first makes them, and they say that nothing is backed yet."""
    disk.mkdir(f"{run}/{FOLDER}")
    log, seq = (disk.cell(f"{run}/{FOLDER}/{number}.{name}", write=True) for name in ("log", "seq"))
    return log, seq


class Teller:
    """The lane's end."""

    def __init__(self, disk: Disk, run: str, workers: int) -> None:
        self.workers = workers
        self.cells = [cells_of(disk, run, number) for number in range(workers)]
        self.told: list[Position | None] = [None] * workers

    def tell(self, positions: list[Position]) -> None:
        """Where each processor stands now."""
        for number, at in enumerate(positions):
            if at == self.told[number]:
                continue
            log, seq = self.cells[number]
            seq.set(0)
            log.set(at.log)
            seq.set(at.seq)
            self.told[number] = at

    def close(self) -> None:
        """Let go."""
        for pair in self.cells:
            for cell in pair:
                cell.close()


class BackedReader:
    """A ready log whose commits are given when they are backed, or have waited for long enough. Memory: what one read
    of the log gives."""

    def __init__(self, reader: ChainReader, cells: tuple[Cell, Cell], clock: Clock) -> None:
        self.reader = reader
        self.log, self.seq = cells
        self.clock = clock
        self.held: deque[tuple[Commit, Position, int]] = deque()
        """With the time (boot, ns) at which each was read."""

    @property
    def waits(self) -> bool:
        """See ChainReader."""
        return bool(self.held)

    def read(self, bytes_max: int) -> list[tuple[Commit, Position]]:
        """See ChainReader."""
        if not self.held:
            now_ns = self.clock.boot_ns()
            self.held.extend((commit, after, now_ns) for commit, after in self.reader.read(bytes_max))
        given: list[tuple[Commit, Position]] = []
        upto = self.upto()
        late_ns = self.clock.boot_ns() - int(WAIT_S * 1e9)
        while self.held and (self.held[0][1] <= upto or self.held[0][2] <= late_ns):
            commit, after, _ = self.held.popleft()
            given.append((commit, after))
        return given

    def upto(self) -> Position:
        """What the lane says; nothing of a log of which it is saying something else just now."""
        log = self.log.get()
        seq = self.seq.get()
        return Position(log, seq if self.log.get() == log else 0)

    def close(self) -> None:
        """Release the files."""
        self.reader.close()
        self.log.close()
        self.seq.close()
