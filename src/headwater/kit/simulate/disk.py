"""A simulated disk and the processes that use it.

``SimDisk`` is the device with its file system: ``files.py`` says what bytes survive, ``names.py`` which names. A
process gets its own view (``disk.process("worker 0")``, a kit.disk.Disk) and dies alone or with the machine:

* ``view.kill()``: a process kill. Everything that it wrote stays in the cache, cells hold their last value.
* ``disk.crash()``: a machine crash. All views are dead; what was not synced survives as the seed draws it; a cell
  (an mmap that nobody syncs) holds any value that it ever had since it was last durable.

A dead view raises ``Dead``, a BaseException: code that handles errors must not be able to live on. ``view.die_at(n)``
kills at the n-th call from now, before, within (a part of the bytes) or after the call's effect.

Faults are given out with ``disk.fail(...)``, each once: EIO of a sync (then clean pages, see files.py), ENOSPC or EIO
of a write, short writes. ``capacity_bytes`` bounds the pages that files take. ``disk.lying``: sync answers that all is
well and nothing is durable. Every call is in ``trace`` (the last 4,000) and in ``digest`` (all).
"""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from xxhash import xxh3_64

from headwater.kit.simulate.clock import Time
from headwater.kit.simulate.files import PAGE_BYTES, File
from headwater.kit.simulate.names import FOLDER, Names
from headwater.kit.simulate.view import ProcessDisk

TRACE_LENGTH = 4000


@dataclass(slots=True)
class Fault:
    """The ``after``-th call (1 = the next) of this kind whose path ends with ``suffix`` fails."""

    call: str
    error: int
    after: int = 1
    suffix: str = ""
    part: float | None = None
    """Of a write: the share of the bytes that is written, without an error."""


@dataclass
class SimDisk:
    """One disk. Calls take drawn time (``time``), if there is one."""

    seed: int = 0
    time: Time | None = None
    capacity_bytes: int = 1 << 30
    lying: bool = False
    between: Callable[[ProcessDisk, str], None] | None = None
    """Called before each call of each process (view, call): other processes may take their turn here, or die."""
    names: Names = field(default_factory=Names)
    faults: list[Fault] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = random.Random(f"disk {self.seed}")
        self.views: list[ProcessDisk] = []
        self.trace: deque[str] = deque(maxlen=TRACE_LENGTH)
        self.hash = xxh3_64()
        self.met: Counter[str] = Counter()
        """What went wrong so far, by name: EIO, ENOSPC, short, killed, crash, dropped names."""
        self.calls = 0
        self.files = 0

    @property
    def digest(self) -> str:
        """Of everything that happened so far."""
        return str(self.hash.hexdigest())

    def process(self, name: str) -> ProcessDisk:
        """A new process."""
        view = ProcessDisk(self, name)
        self.views.append(view)
        return view

    def fail(
        self, call: str, error: int, *, after: int = 1, suffix: str = "", part: float | None = None
    ) -> None:
        """Give out a fault; ``call`` is a method of Disk, or ``cell.set`` has none."""
        self.faults.append(Fault(call, error, after, suffix, part))

    def crash(self) -> None:
        """The machine loses power now; every process dies."""
        for view in self.views:
            view.kill(quiet=True)
        self.views.clear()
        lost = self.names.crash(self.random)
        self.met["crash"] += 1
        self.met["dropped names"] += len(lost)
        kept: dict[int, File] = {}
        for path, file in sorted(self.names.live.items()):
            if file is not FOLDER and file.number not in kept:
                kept[file.number] = file
                before = bytes(file.cache)
                file.crash(self.random)
                if file.cache != before:
                    self.note(f"  {path}: {len(before)} → {len(file.cache)} bytes, content changed")
        self.note(f"machine crash; names lost: {', '.join(lost) or 'none'}")

    def copy(self) -> dict[str, bytes | None]:
        """A backup of what readers see: path to bytes, None for folders."""
        return {
            path: None if file is FOLDER else bytes(file.cache)
            for path, file in sorted(self.names.live.items())
        }

    def restore(self, backup: dict[str, bytes | None]) -> None:
        """Throw away everything and put a backup in its place, durable."""
        for view in self.views:
            view.kill(quiet=True)
        self.views.clear()
        self.names = Names()
        for path, content in backup.items():
            file = FOLDER if content is None else self.new_file()
            if content is not None:
                file.write(0, content)
                file.sync()
            self.names.live[path] = self.names.durable[path] = file
        self.note("restored from a backup")

    def new_file(self) -> File:
        self.files += 1
        return File(self.files)

    def used_bytes(self) -> int:
        """Pages of all files that a name or a descriptor leads to."""
        found = {id(file): file for file in self.names.live.values()}
        for view in self.views:
            found.update({id(d.file): d.file for d in view.descriptors.values()})
        return sum(len(file.pages) for file in found.values()) * PAGE_BYTES

    def note(self, text: str) -> None:
        """A line of the trace."""
        self.trace.append(text)
        self.hash.update(text.encode())

    def spend(self, microseconds_max: int) -> None:
        """A call takes its time."""
        if self.time is not None:
            self.time.advance_ns(1000 + self.random.randrange(1000 * microseconds_max))

    def fault(self, call: str, path: str) -> Fault | None:
        """The fault that this call meets, if any; each is met once."""
        for fault in self.faults:
            if fault.call == call and path.endswith(fault.suffix):
                fault.after -= 1
                if fault.after == 0:
                    self.faults.remove(fault)
                    return fault
        return None
