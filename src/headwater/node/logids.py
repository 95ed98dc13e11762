"""Which log ids are known, wherever they stand: new ones must be above all of them (INV-LOG-3, INV-LOG-5).

``headwater.json`` names the last id that was handed out. Where a data folder was put together from copies of several
ages, something else in it may know a later one; a log with an id below it would be taken for read or delivered.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from headwater.destinations import remember
from headwater.event.position import Vector
from headwater.kit.disk import Disk, read_whole
from headwater.kit.errors import HeadwaterError
from headwater.log import files
from headwater.node.folder import read_identity


class Saved(msgspec.Struct, frozen=True):
    """What is asked here of process/state.Saved, which would bring Arrow into the supervisor."""

    ready: tuple[int, int]
    vectors: dict[int, bytes]


def greatest(data: str, disk: Disk) -> int:
    """The greatest log id in the logs, in the processors' state, and in what deliverers remember; 0 where none is."""
    known = [0]
    for part in ("raw", "ready"):
        for name in disk.listdir(f"{data}/{part}"):
            known += files.logs(disk, f"{data}/{part}/{name}")
    for name in disk.listdir(f"{data}/state"):
        folder = f"{data}/state/{name}"
        known.append(remember.last_log(disk, f"{folder}/state.json"))
        known.append(processed(disk, folder))
    return max(known)


def processed(disk: Disk, folder: str) -> int:
    """The greatest log id in a processor's state; 0 where it cannot be read: that is its processor's to say."""
    try:
        saved = msgspec.msgpack.decode(read_whole(disk, f"{folder}/fold"), type=Saved)
        vectors = [Vector.decode(vector) for vector in set(saved.vectors.values())]
    except (FileNotFoundError, msgspec.MsgspecError, HeadwaterError):
        return 0
    return max([saved.ready[0], *(at.log for vector in vectors for at in vector.values())])


def unknown_to(data: str, disk: Disk) -> Callable[[Vector], bool]:
    """Whether a vector names a log of this folder that was never handed out in it."""

    def unknown(vector: Vector) -> bool:
        identity = read_identity(data, disk)
        own, last = int(identity.folder_id, 16), int(identity.log_id, 16)
        return any(at.log > last for writer, at in vector.items() if writer & ~0xFFFF == own)

    return unknown
