"""``run/view``: what the member process tells the other processes of its node; msgpack of a ``table.View``.

Written by the member process alone, replaced by rename, so that a reader sees the old or the new one, whole. It is not
synced: like all of ``run/`` it is worthless after a start. Readers ask once per turn; the file is read whole (3 KB with
64 partitions, 150 KB with 4,096) and decoded only when its bytes are others than last time.
"""

from __future__ import annotations

import errno

from headwater.cluster import table
from headwater.cluster.table import View
from headwater.kit.disk import Disk, read_whole
from headwater.kit.errors import Broken, Rejected


def view_path(data: str) -> str:
    """Where the view of a data folder lies."""
    return f"{data}/run/view"


def write(disk: Disk, path: str, view: View) -> None:
    """Readers see it from now on. OSError as the disk gives it; the old view stays then."""
    data, draft = table.encode(view), f"{path}.tmp"
    file = disk.open(draft, write=True, create=True)
    try:
        disk.truncate(file, 0)
        written = disk.pwrite(file, data, 0)
    finally:
        disk.close(file)
    if written != len(data):
        raise OSError(errno.EIO, f"short write: {written} of {len(data)} bytes", draft)
    disk.rename(draft, path)


class ViewReader:
    """The newest view, for a process that asks often."""

    def __init__(self, disk: Disk, path: str) -> None:
        self.disk = disk
        self.path = path
        self.data = b""
        self.view: View | None = None

    def read(self) -> View | None:
        """None: the member process has not said anything yet. The same object while nothing changed.

        Broken: the file holds something else; what was read before still stands in ``view``.
        """
        try:
            data = read_whole(self.disk, self.path)
        except FileNotFoundError:
            return None
        if data != self.data:
            self.view, self.data = self.decoded(data), data
        return self.view

    def decoded(self, data: bytes) -> View:
        try:
            return table.decode(data, View)
        except Rejected as error:
            raise Broken(
                f"{self.path}: {error.message}", code="bad_view", help="restart the node: it is written anew"
            ) from error
