"""Following the logs of all writers from one vector on: this node's own, and mirrors of other nodes' (decision 0007).

A *mirror* is a folder of ordinary log folders, one per writer of another node, and for each such node a file
``<node id>.cut`` with the moment T of its newest complete cut. A node's logs are taken together up to one moment: T is
read first, the watermarks afterwards, so no cut holds an event without those that the same node acknowledged before
it received it (INV-ORD-1), wherever the cut is made.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable

from headwater.event.position import Vector, WriterId
from headwater.kit.disk import Disk, read_whole
from headwater.log import cut
from headwater.log.block import Secret
from headwater.log.cut import Closed, Cut, home_of
from headwater.log.read import LogReader

CUT = struct.Struct("<QQQ")
"""Start of the node, boot time (ns), node time (ns)."""
CUT_NAME = re.compile(r"^([0-9a-f]{16})\.cut$")


def folder_of(disk: Disk, raw: str, mirror: str | None, writer: WriterId) -> str:
    """Where a writer's logs lie: with us, or in the mirror."""
    own = f"{raw}/{writer:016x}"
    return own if mirror is None or disk.exists(own) else f"{mirror}/{writer:016x}"


def moments(disk: Disk, mirror: str) -> dict[int, Closed]:
    """Up to which moment each home's logs in a mirror may be taken; homes without a whole cut are left out."""
    found: dict[int, Closed] = {}
    for name in disk.listdir(mirror):
        if matched := CUT_NAME.match(name):
            start, boot_ns, _ = CUT.unpack(read_whole(disk, f"{mirror}/{name}"))
            found[int(matched[1], 16)] = (start, boot_ns)
    return found


class Follower:
    """The logs of all writers, up to ``until`` where it is given."""

    def __init__(
        self,
        disk: Disk,
        raw: str,
        secret: Secret,
        now: Callable[[], Closed],
        *,
        until: Vector | None = None,
        mirror: str | None = None,
    ) -> None:
        self.disk = disk
        self.raw = raw
        self.secret = secret
        self.now = now
        """(start, boot ns) of this node."""
        self.until = until
        self.mirror = mirror
        self.readers: dict[WriterId, LogReader] = {}

    def take(self, at: Vector, node_time_ns: Callable[[int], int], bytes_max: int) -> Cut | None:
        """The next cut from ``at`` on, about ``bytes_max`` bytes; None where nothing more is durable.

        ``node_time_ns``: boot time (ns) of this node → the clock entry of the cut.
        """
        now = self.now()  # before the watermarks are read: INV-ORD-1 stands on this order
        homes = self.look(at)
        return cut.take(self.readers, at, now, node_time_ns(now[1]), bytes_max, homes)

    def look(self, at: Vector) -> dict[int, Closed]:
        """Find writers that are new; the moments of the other homes, read before their watermarks."""
        homes: dict[int, Closed] = {}
        if self.mirror is not None:
            homes = moments(self.disk, self.mirror)
            cut.discover(
                self.disk,
                self.mirror,
                self.readers,
                at,
                self.until,
                secret=self.secret,
                wanted=lambda writer: home_of(writer) in homes,
            )
        cut.discover(self.disk, self.raw, self.readers, at, self.until, secret=self.secret)
        return homes

    def close(self) -> None:
        """Release the files."""
        for reader in self.readers.values():
            reader.close()
        self.readers = {}
