"""Signs of life of the processes, in shared memory: ``run/alive/<role>``, eight bytes, boot time of the last one.

A report (config/report.py) is a sign of life too, but a full disk takes reports away, and a node whose disk is full
must not be taken for dead. The supervisor makes the cell and sets it to 0 before a process starts; the process stores
the time whenever it could report.
"""

from __future__ import annotations

from headwater.kit.disk import Cell, Disk

FOLDER = "run/alive"


def own_cell(disk: Disk, data: str, role: str) -> Cell | None:
    """The cell of a process; None where the disk gave none."""
    try:
        return disk.cell(f"{data}/{FOLDER}/{role}", write=True)
    except OSError:
        return None


class Heartbeats:
    """All of a node's, as the supervisor sees them."""

    def __init__(self, disk: Disk, data: str) -> None:
        self.disk = disk
        self.data = data
        self.cells: dict[str, Cell] = {}
        disk.mkdir(f"{data}/{FOLDER}")

    def expect(self, role: str) -> None:
        """A process of this role is about to start; what a former one said does not count."""
        cell = self.cells.get(role) or own_cell(self.disk, self.data, role)
        if cell is not None:
            cell.set(0)
            self.cells[role] = cell

    def silent_s(self, role: str, began_ns: int, now_ns: int) -> float:
        """How long a process that was started at ``began_ns`` has not been heard; 0 where it cannot be known."""
        cell = self.cells.get(role)
        return 0.0 if cell is None else (now_ns - max(cell.get(), began_ns)) / 1e9
