"""What one simulated file holds: for buffered readers, for direct readers, and after a machine crash.

Three images of each file:

* ``cache``: what buffered reads show; every write is in it at once;
* ``device``: what direct reads show (the kernel writes dirty pages back before it reads directly). It differs from
  ``cache`` only in pages that a failed sync has dropped: the kernel marks them clean although they never arrived
  (protocol-why.md L4), so buffered reads show the new bytes, direct reads the old ones, and a later sync of the file
  succeeds without writing them;
* ``durable``: what has certainly arrived; ``pending`` are the changes that lie between it and ``device``.

The kernel writes whole pages, at any moment it likes. So a crash keeps of each sector the state after some prefix of
the pending changes that touched it, drawn sector by sector (512 B) or page by page (4 KiB). Changes of the size are
journalled: a prefix of them survives, in order. Where the size survived and the bytes did not, there are zeros;
what was cut off never comes back.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

PAGE_BYTES = 4096
SECTOR_BYTES = 512


@dataclass(frozen=True, slots=True)
class Change:
    """A write of whole pages (as they stood after it), or a change of the size (no data)."""

    offset: int
    data: bytes
    size_before: int
    size_after: int


class File:
    """One inode. It lives as long as a name or an open descriptor leads to it."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.cache = bytearray()
        self.device = bytearray()
        self.durable = bytearray()
        self.pending: list[Change] = []
        self.pages: set[int] = set()
        self.links = 0
        self.descriptors = 0

    def pages_needed(self, offset: int, length: int) -> int:
        """How many pages a write would newly take from the disk."""
        if not length:
            return 0
        touched = range(offset // PAGE_BYTES, (offset + length - 1) // PAGE_BYTES + 1)
        return sum(1 for page in touched if page not in self.pages)

    def write(self, offset: int, data: bytes) -> None:
        """Into the cache; whole pages of the cache are on their way to the device from now on."""
        if not data:
            return
        before = len(self.cache)
        end = offset + len(data)
        resize(self.cache, max(before, end))
        resize(self.device, max(before, end))
        self.cache[offset:end] = data
        first = offset // PAGE_BYTES * PAGE_BYTES
        last = min(-(-end // PAGE_BYTES) * PAGE_BYTES, len(self.cache))
        pages = bytes(self.cache[first:last])
        self.device[first:last] = pages
        self.pages.update(range(first // PAGE_BYTES, -(-last // PAGE_BYTES)))
        self.pending.append(Change(first, pages, before, len(self.cache)))

    def truncate(self, length: int) -> None:
        """Cut off, or extend by zeros that take no room."""
        before = len(self.cache)
        if before == length:
            return
        resize(self.cache, length)
        resize(self.device, length)
        self.pages = {page for page in self.pages if page * PAGE_BYTES < length}
        self.pending.append(Change(0, b"", before, length))

    def sync(self) -> None:
        """All pending changes have arrived."""
        for change in self.pending:
            resize(self.durable, change.size_after)
            if change.data:
                end = min(change.offset + len(change.data), len(self.durable))
                self.durable[change.offset : end] = change.data[: end - change.offset]
        self.pending.clear()

    def sync_fails(self, rng: random.Random) -> None:
        """Some pending pages have arrived, the others are dropped and clean: no later sync writes them."""
        self.durable = self.torn(rng)
        self.device = bytearray(self.durable)
        self.pending.clear()
        if len(self.durable) != len(self.cache):
            resize(self.device, len(self.cache))
            self.pending.append(Change(0, b"", len(self.durable), len(self.cache)))

    def rot(self, at: int) -> None:
        """One byte changes, wherever it lies: in the cache, on its way, on the device."""
        for content in (self.cache, self.device, self.durable):
            flip(content, at)
        for number, change in enumerate(self.pending):
            data = bytearray(change.data)
            flip(data, at - change.offset)
            self.pending[number] = replace(change, data=bytes(data))

    def torn(self, rng: random.Random) -> bytearray:
        """One possible state of the bytes after a crash now."""
        content = bytearray(self.durable)
        if not self.pending:
            return content
        count = len(self.pending)
        granule = rng.choice((SECTOR_BYTES, PAGE_BYTES))
        mode = rng.choice(("none", "all", "mixed", "mixed", "mixed"))
        sizes = {"none": 0, "all": count}.get(mode, rng.randint(0, count))
        limits: dict[int, int] = {}
        for index, change in enumerate(self.pending):
            if index < sizes and change.size_before != change.size_after:
                resize(content, change.size_after)
            for start in range(change.offset, change.offset + len(change.data), granule):
                if start not in limits:
                    limits[start] = {"none": 0, "all": count}.get(mode, rng.randint(0, count))
                if index < limits[start] and start < len(content):
                    piece = change.data[start - change.offset : start - change.offset + granule]
                    piece = piece[: len(content) - start]
                    content[start : start + len(piece)] = piece
        return content

    def crash(self, rng: random.Random) -> None:
        """The machine is gone; what was drawn is all there is."""
        content = self.torn(rng)
        self.durable = content
        self.device = bytearray(content)
        self.cache = bytearray(content)
        self.pages = {page for page in self.pages if page * PAGE_BYTES < len(content)}
        self.pending.clear()
        self.descriptors = 0


def flip(content: bytearray, at: int) -> None:
    """Change the byte at ``at``, if there is one."""
    if 0 <= at < len(content):
        content[at] ^= 0x55


def resize(content: bytearray, length: int) -> None:
    """Cut, or fill up with zeros."""
    if length < len(content):
        del content[length:]
    else:
        content.extend(bytes(length - len(content)))
