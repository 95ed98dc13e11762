"""When a folder below ``standby/`` has done its work, and its removal.

It is kept while this node is the standby of one of its partitions for the node that it is of. It has done its work when
the processors of this node have all of its partitions at or above its vectors, *on their disk*: then nobody asks for it
any more. Otherwise (the partitions went to somebody else, or the processors went on from another base) it is kept for
[24 h]: until the new standby has a base of its own this one is the only copy, and after that nobody reads it.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping

from headwater.cluster.table import View
from headwater.event.position import Vector
from headwater.kit.disk import Disk
from headwater.kit.errors import Broken
from headwater.process.state import Fold, load
from headwater.process.takeover import STANDBY, standby_names, standby_of

UNUSED_KEPT_NS = 24 * 3600 * 1_000_000_000
GONE = ".gone"


def retire(disk: Disk, data: str, view: View, unused_since: dict[str, int], now_ns: int) -> list[str]:
    """Remove what has done its work; the names. ``unused_since`` is kept from one call to the next."""
    finish(disk, data)
    names = standby_names(disk, data)
    for name in unused_since.keys() - names:
        del unused_since[name]
    own = own_vectors(disk, data)
    removed = []
    for name in names:
        vectors = saved(disk, f"{data}/{STANDBY}/{name}").vectors
        if in_use(view, name, vectors):
            unused_since.pop(name, None)
            continue
        since = unused_since.setdefault(name, now_ns)
        if now_ns - since > UNUSED_KEPT_NS or superseded(vectors, own):
            remove(disk, data, name)
            removed.append(name)
    return removed


def in_use(view: View, name: str, vectors: Mapping[int, Vector]) -> bool:
    """Whether it is followed, or will be as soon as its node is heard."""
    of = standby_of(name)
    followed = {p for p in view.table.standby_of(view.me) if of is not None and view.table.owner[p] == of[0]}
    return bool(followed) and (not vectors or not followed.isdisjoint(vectors))


def superseded(vectors: Mapping[int, Vector], own: Mapping[int, list[Vector]]) -> bool:
    """Whether the own processors have all of it."""
    return all(any(at <= mine for mine in own.get(p, ())) for p, at in vectors.items())


def own_vectors(disk: Disk, data: str) -> dict[int, list[Vector]]:
    """What the saved states of this node's processors say of each partition."""
    found: dict[int, list[Vector]] = {}
    for name in disk.listdir(f"{data}/state"):
        if name.isdigit():
            for partition, vector in saved(disk, f"{data}/state/{name}").vectors.items():
                found.setdefault(partition, []).append(vector)
    return found


def saved(disk: Disk, folder: str) -> Fold:
    """A fold; nothing where it cannot be read."""
    try:
        return load(disk, folder)
    except Broken:
        return Fold()


def remove(disk: Disk, data: str, name: str) -> None:
    """By one rename, so that nobody reads half of it."""
    path = f"{data}/{STANDBY}/{name}"
    disk.rename(path, f"{path}{GONE}")
    disk.sync_dir(f"{data}/{STANDBY}")
    shutil.rmtree(f"{path}{GONE}")


def finish(disk: Disk, data: str) -> None:
    """Remove what an earlier removal left when it was cut short."""
    path = f"{data}/{STANDBY}"
    for name in disk.listdir(path) if disk.exists(path) else []:
        if name.endswith(GONE):
            shutil.rmtree(f"{path}/{name}")
