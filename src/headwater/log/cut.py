"""Cuts: what is processed together, over all writers of a node (protocol.md §3, INV-ORD-1).

The caller reads the time T *first*; the watermarks are read afterwards; only blocks closed at or before T are taken.
So, if e1 was acknowledged before e2 was received, no cut holds e2 without e1: e1's block was closed before its
acknowledgement, hence before e2's, and its watermark was stored by then. A backlog that does not fit lowers T to the
last block that fits of the writer that was cut short; blocks are ordered by (start of the node, boot time of closing).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from headwater.event.position import Vector, WriterId
from headwater.kit.disk import Disk
from headwater.log.block import Secret
from headwater.log.read import Block, LogReader

WRITER = re.compile(r"^[0-9a-f]{16}$")
HOME_MASK = 0xFFFF_FFFF_FFFF_0000
Closed = tuple[int, int]
"""A moment of one node: (start, boot ns)."""
NOWHERE: Mapping[int, Closed] = {}


def home_of(writer: int) -> int:
    """The node that a writer belongs to, as the number of its data folder."""
    return writer & HOME_MASK


@dataclass(frozen=True, slots=True)
class Cut:
    """The events in [origin, target)."""

    origin: Vector
    target: Vector
    blocks: list[Block]
    node_time_ns: int


def discover(
    disk: Disk,
    raw: str,
    readers: dict[WriterId, LogReader],
    at: Vector,
    until: Vector | None = None,
    *,
    secret: Secret,
    wanted: Callable[[WriterId], bool] = lambda writer: True,
) -> None:
    """Add a reader for each writer folder that has none yet; called for every cut, after T was read.

    ``until`` bounds the reading: nothing at or above it is read.
    """
    for name in disk.listdir(raw):
        if not WRITER.match(name):
            continue
        writer = WriterId(int(name, 16))
        if writer not in readers and wanted(writer):
            stop = until[writer] if until is not None else None
            readers[writer] = LogReader(disk, f"{raw}/{name}", writer, at[writer], stop, secret=secret)


def take(
    readers: Mapping[WriterId, LogReader],
    origin: Vector,
    now: Closed,
    node_time_ns: int,
    bytes_max: int,
    homes: Mapping[int, Closed] = NOWHERE,
) -> Cut | None:
    """The next cut of about ``bytes_max`` bytes; None when nothing is durable beyond ``origin``.

    ``now`` was read before this call, as were the moments of ``homes``: other nodes, whose logs are bounded each by its
    own. The target's clock entry is the greater of the origin's and ``node_time_ns``.
    """
    bounds = {0: now, **homes}
    share = max(bytes_max // max(len(readers), 1), 1)
    of_home = {writer: home if (home := home_of(writer)) in homes else 0 for writer in readers}
    for writer, reader in readers.items():
        reader.fill(share)
        if reader.more and reader.ahead:
            home = of_home[writer]
            bounds[home] = min(bounds[home], reader.ahead[-1].header.closed)
    blocks: list[Block] = []
    for writer, reader in readers.items():
        blocks += reader.take(bounds[of_home[writer]])
    if not blocks:
        return None
    target = Vector({w: r.at for w, r in readers.items()}, max(origin.clock, node_time_ns)).join(origin)
    return Cut(origin, target, blocks, node_time_ns)
