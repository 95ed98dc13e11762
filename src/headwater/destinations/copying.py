"""A consistent copy of a destination's file, made by the process that holds it.

Between two rounds of the deliverer nobody writes: file and write-ahead log are one state together. The log is folded
into the file first, so that as a rule the copy is one file, which can be put in the place of another. Delivery waits
for as long as the bytes are copied, and not at all where the file system shares them (kit/copies); what is committed
meanwhile waits in the ready log. Readers' queries go on.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from headwater.destinations.deliver import Deliverer
from headwater.destinations.duckdb.settings import WAL
from headwater.kit.copies import copy_file
from headwater.kit.errors import Rejected, Unavailable


def copy(deliverer: Deliverer, folder: str, between: Callable[[], None]) -> dict[str, object]:
    """Copy the file, and its write-ahead log, into a folder. The names, and how long delivery waited.

    Unavailable: the file is there and not open, so somebody else may be writing it. Rejected: it has no file.
    """
    from headwater.destinations.duckdb.file import DuckDbFile

    destination = deliverer.destination
    if not isinstance(destination, DuckDbFile):
        raise Rejected(f"destination {deliverer.name} keeps nothing in a file", code="copy_none")
    path = destination.path
    waited_ns = deliverer.clock.boot_ns()
    with deliverer.lock:
        began_ns = deliverer.clock.boot_ns()
        if destination.is_open:
            destination.checkpoint()
        names = [
            os.path.basename(one)
            for one in (path, path + WAL)
            if os.path.exists(one) and os.path.getsize(one)
        ]
        if names and not destination.is_open:
            raise Unavailable(
                f"destination {deliverer.name} is not open: `headwater status` says why",
                code="destination_closed",
            )
        for name in names:
            copy_file(f"{os.path.dirname(path)}/{name}", f"{folder}/{name}", between=between)
    now_ns = deliverer.clock.boot_ns()
    return {"files": names, "held_ms": (now_ns - began_ns) / 1e6, "waited_ms": (began_ns - waited_ns) / 1e6}
