"""``headwater where RECEIPT``: how far the events of one request have come. A pure function of vectors.

In a cluster the request's home knows whether it is durable, and the owners, together, how far it is processed and
delivered: every partition must have an owner who says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headwater.event.position import Receipt, Vector
from headwater.kit.disk import Disk
from headwater.log import files
from headwater.ops.standing import Delivered, Processed, least


def acknowledged(disk: Disk, raw: str, receipt: Receipt) -> bool:
    """Whether the log holds everything of the request, durably."""
    folder = f"{raw}/{receipt.writer:016x}"
    end = files.read_end(disk, folder, receipt.log) if disk.exists(folder) else None
    if end is not None:
        return receipt.seq <= end.seq
    path = files.watermark_path(folder, receipt.log)
    if not disk.exists(path):
        return False
    cell = disk.cell(path)
    try:
        return receipt.seq <= cell.get()
    finally:
        cell.close()


def where(
    receipt: Receipt,
    durable: bool | None,
    processed: Processed,
    destinations: Mapping[str, Delivered],
    partitions: int = 0,
) -> dict[str, Any]:
    """Which stops the request has passed. Each answer is true for good once it is true. ``durable``: None where its
    home cannot be asked; then who has read that far in its log knows, and otherwise nobody. ``partitions``: how many
    there are, where some may not be spoken for."""
    if durable is None and any(reads(receipt, v) for v in processed.vectors.values()):
        durable = True
    arrived = {name: passed(receipt, one.vectors, partitions) for name, one in destinations.items()}
    there = passed(receipt, processed.vectors, partitions) or any(arrived.values())
    return {
        "receipt": str(receipt),
        "acknowledged": durable,
        "processed": bool(durable) and there,
        "destinations": {name: bool(durable) and one for name, one in arrived.items()},
    }


def passed(receipt: Receipt, vectors: Mapping[int, Vector], partitions: int = 0) -> bool:
    """Whether every partition has passed the request."""
    return len(vectors) >= max(partitions, 1) and receipt.covered_by(least(dict(vectors)))


def reads(receipt: Receipt, vector: Vector) -> bool:
    """Whether somebody stands behind the request in its very log, which only what is durable lets them."""
    at = vector[receipt.writer]
    return at.log == receipt.log and at.seq >= receipt.seq
