"""``headwater where RECEIPT``: how far the events of one request have come. A pure function of vectors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headwater.event.position import Receipt
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
    receipt: Receipt, durable: bool, processed: Processed, destinations: Mapping[str, Delivered]
) -> dict[str, Any]:
    """Which stops the request has passed. Each answer is true for good once it is true."""
    arrived = {name: passed(receipt, one.vectors) for name, one in destinations.items()}
    return {
        "receipt": str(receipt),
        "acknowledged": durable,
        "processed": durable and (passed(receipt, processed.vectors) or any(arrived.values())),
        "destinations": {name: durable and there for name, there in arrived.items()},
    }


def passed(receipt: Receipt, vectors: Mapping[int, Any]) -> bool:
    """Whether every partition has passed the request."""
    return bool(vectors) and receipt.covered_by(least(dict(vectors)))
