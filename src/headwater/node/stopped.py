"""What files tell of a node that does not run: for commands that look at a data folder as it lies there."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from headwater.destinations.remember import State
from headwater.event.position import Vector
from headwater.kit.disk import Disk, read_whole
from headwater.kit.errors import HeadwaterError
from headwater.node.dead_letters import NodeDeadLetters
from headwater.node.folder import read_identity
from headwater.ops import known
from headwater.ops.known import Known, Place


def known_of(disk: Disk, data: str, message_ids: Sequence[str], places: Sequence[Place]) -> Known:
    """What is known of events besides the raw log. Positions are those that were saved last: at most a second old when
    the node was killed."""
    letters = NodeDeadLetters(disk, data).find(message_ids, places)
    partitions = read_identity(data, disk).partitions
    return known.of_files(letters, processed(disk, data), remembered(disk, data), partitions)


def processed(disk: Disk, data: str) -> dict[int, Vector]:
    """Where each partition stood."""
    from headwater.process import state

    vectors: dict[int, Vector] = {}
    for name in disk.listdir(f"{data}/state") if disk.exists(f"{data}/state") else ():
        if name.isdigit():
            for partition, vector in state.load(disk, f"{data}/state/{name}").vectors.items():
                if vectors.get(partition, Vector()) <= vector:
                    vectors[partition] = vector
    return vectors


def remembered(disk: Disk, data: str) -> dict[str, dict[int, Vector]]:
    """Where each destination stood when its deliverer saw it last."""
    found: dict[str, dict[int, Vector]] = {}
    for name in disk.listdir(f"{data}/state") if disk.exists(f"{data}/state") else ():
        path = f"{data}/state/{name}/state.json"
        if name.startswith("deliver-") and disk.exists(path):
            found[name.removeprefix("deliver-")] = vectors_of(disk, path)
    return found


def vectors_of(disk: Disk, path: str) -> dict[int, Vector]:
    """The vectors of one file; none where it cannot be read: its deliverer will say so."""
    try:
        state = msgspec.json.decode(read_whole(disk, path), type=State)
        return {
            p: v
            for text, ps in state.vectors.items()
            for v in (Vector.decode(bytes.fromhex(text)),)
            for p in ps
        }
    except (ValueError, HeadwaterError):
        return {}
