"""The control page: the few numbers that the supervisor tells all processes of its node, in shared memory.

``run/control`` is one page of aligned u64 cells, little endian, written by the supervisor alone and read by all; a
store of one cell is never seen torn, and no two cells have to be read together.

::

    0 magic "HWCTRL1\\0" | 8 version | 16 offset_ns (signed) | 24 start | 32 draining | 40 generation
    | 48 raw_room_bytes | 56 alive_boot_ns | 64 held: kind (8 bits), nodes seen (24), nodes needed (32)

It is made anew, under a new inode, at each start of a node: a process that outlived its supervisor goes on seeing its
own start's page, in which ``alive_boot_ns`` no longer moves.
"""

from __future__ import annotations

import mmap
import os
from typing import NamedTuple, Self

from headwater.kit.errors import Misconfigured

PAGE_BYTES = 4096
MAGIC = int.from_bytes(b"HWCTRL1\0", "little")
VERSION = 1
CELL_MAGIC, CELL_VERSION, CELL_OFFSET, CELL_START = range(4)
CELL_DRAINING, CELL_GENERATION, CELL_ROOM, CELL_ALIVE, CELL_HELD = range(4, 9)
U64 = 2**64
UNLIMITED = 2**63
HELD_NOT, HELD_JOINING, HELD_TOO_FEW, HELD_NO_MAJORITY, HELD_SILENT = range(5)
SEEN_MAX, NEEDED_MAX = 2**24 - 1, 2**32 - 1


class Held(NamedTuple):
    """Why a node of a cluster takes no events for now."""

    kind: int
    seen: int = 0
    """Nodes that this one hears, itself included."""
    needed: int = 0

    @property
    def text(self) -> str:
        """In words; empty where events are taken."""
        if self.kind == HELD_TOO_FEW:
            return f"not enough nodes: {self.seen} of at least {self.needed} see each other"
        if self.kind == HELD_NO_MAJORITY:
            return f"cut off: hears {self.seen} of the cluster's members, needs {self.needed}"
        words = {
            HELD_JOINING: "has not joined the cluster yet",
            HELD_SILENT: "the member process gives no sign of life",
        }
        return words.get(self.kind, "" if self.kind == HELD_NOT else "the cluster asks to wait")

    @property
    def cell(self) -> int:
        """As one number, since no two cells are read together."""
        return self.kind | min(self.seen, SEEN_MAX) << 8 | min(self.needed, NEEDED_MAX) << 32

    @classmethod
    def of(cls, cell: int) -> Held:
        return cls(cell & 0xFF, cell >> 8 & SEEN_MAX, cell >> 32)


NOT_HELD = Held(HELD_NOT)


class ControlPage:
    """The page, as the supervisor writes it (``create``) and the others see it (``attach``)."""

    def __init__(self, memory: mmap.mmap) -> None:
        self.memory = memory
        self.cells = memoryview(memory).cast("Q")

    @classmethod
    def create(cls, path: str, *, offset_ns: int, start: int) -> Self:
        """A new page at ``path``; a former one stays with those who have it open."""
        draft = f"{path}.new"
        file = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o640)
        try:
            os.ftruncate(file, PAGE_BYTES)
            page = cls(mmap.mmap(file, PAGE_BYTES))
        finally:
            os.close(file)
        page.fill(offset_ns, start)
        os.rename(draft, path)
        return page

    @classmethod
    def attach(cls, path: str) -> Self:
        """The page of the running start, read only. Misconfigured where there is none of this version."""
        try:
            file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise Misconfigured(
                f"no control page at {path}", code="no_control", help="the node is not running"
            ) from None
        try:
            page = cls(mmap.mmap(file, PAGE_BYTES, access=mmap.ACCESS_READ))
        except ValueError:
            raise Misconfigured(f"{path} is not a control page", code="control_format") from None
        finally:
            os.close(file)
        if (page.cells[CELL_MAGIC], page.cells[CELL_VERSION]) != (MAGIC, VERSION):
            raise Misconfigured(f"{path} is not a control page of version {VERSION}", code="control_format")
        return page

    @classmethod
    def in_memory(cls, *, offset_ns: int = 0, start: int = 1) -> Self:
        """A page of this process alone, for tests and simulations."""
        page = cls(mmap.mmap(-1, PAGE_BYTES))
        page.fill(offset_ns, start)
        return page

    def fill(self, offset_ns: int, start: int) -> None:
        self.cells[CELL_VERSION] = VERSION
        self.set_offset_ns(offset_ns)
        self.cells[CELL_START] = start
        self.cells[CELL_ROOM] = UNLIMITED
        self.cells[CELL_MAGIC] = MAGIC

    def close(self) -> None:
        self.cells.release()
        self.memory.close()

    @property
    def offset_ns(self) -> int:
        """Node time = CLOCK_BOOTTIME + this (protocol.md §17.5). Slewed by the supervisor, never stepped."""
        value = int(self.cells[CELL_OFFSET])
        return value - U64 if value >= U64 // 2 else value

    @property
    def start(self) -> int:
        """The how-manieth start of this data folder is running; stands in the header of each block."""
        return int(self.cells[CELL_START])

    @property
    def draining(self) -> bool:
        """The node is about to stop: /ping and /ready answer 503, everything else is still served."""
        return bool(self.cells[CELL_DRAINING])

    @property
    def generation(self) -> int:
        """Grows when run/config.json was replaced by a reload."""
        return int(self.cells[CELL_GENERATION])

    @property
    def raw_room_bytes(self) -> int:
        """What *each* collect worker may still add to the raw log; a worker without room for a segment answers 503."""
        return int(self.cells[CELL_ROOM])

    @property
    def alive_boot_ns(self) -> int:
        """Boot time of the supervisor's last tick."""
        return int(self.cells[CELL_ALIVE])

    @property
    def held(self) -> Held:
        """Why no events are taken though the node could: too few nodes of the cluster see each other."""
        return Held.of(int(self.cells[CELL_HELD]))

    def set_held(self, value: Held) -> None:
        self.cells[CELL_HELD] = value.cell

    def set_offset_ns(self, value: int) -> None:
        self.cells[CELL_OFFSET] = value % U64

    def set_draining(self) -> None:
        self.cells[CELL_DRAINING] = 1

    def set_generation(self, value: int) -> None:
        self.cells[CELL_GENERATION] = value

    def set_raw_room_bytes(self, value: int) -> None:
        self.cells[CELL_ROOM] = max(0, value)

    def set_alive_boot_ns(self, value: int) -> None:
        self.cells[CELL_ALIVE] = value
