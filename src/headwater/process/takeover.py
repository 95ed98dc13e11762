"""Whose state a processor goes on from when it starts, or when partitions come to it (protocol.md §7, decision 0007).

A partition that moves is a processor that is gone: what a processor finds in its data folder are *candidates*, each a
folder of the form of ``state/<n>``:

* ``state/<its own number>``;
* ``state/<n>`` and ``ready/<n>`` of other processors of this node, running or former;
* ``standby/<node>-<n>``: what this node, as a standby, was sent by a processor of another node (node/standby).

Of each partition the furthest state is the *base* (``state.merge``), when the commits behind the folders that have a
ready log are folded in. A candidate that says too little costs work, one that says too much costs rows: so ids count
below the base only (``state.parts_below``), wherever they stand, and keep the name of their commit where they become
the processor's own.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from headwater.event.position import EMPTY, Vector
from headwater.kit.disk import Disk, read_whole, write_whole
from headwater.kit.errors import HeadwaterError
from headwater.process.state import Fold, load

STANDBY = "standby"


class Candidate(NamedTuple):
    """A folder of state, and where its commits stand, if they are here."""

    folder: str
    number: int | None
    """The processor of this node whose ready log goes on behind its fold; None for another node's."""
    fold: Fold


@dataclass(frozen=True, slots=True)
class Found:
    """What there is to go on from."""

    candidates: list[Candidate]
    """The own folder first."""
    unreadable: list[str]
    """Standby folders that had to be passed over, and why; to be reported."""


def candidates(
    disk: Disk, data: str, owned: Collection[int], number: int, standby: Iterable[str] = ()
) -> Found:
    """The folders that may know where the ``owned`` partitions of processor ``number`` stand; ``standby``: those that
    were kept for other nodes.

    Broken: the state of a processor of this node cannot be read. A standby folder that cannot be read is passed over:
    its partitions go on from where the destinations stand, and their events are read from their homes again.
    """
    found = [Candidate(_state(data, n), n, load(disk, _state(data, n))) for n in _numbers(disk, data, number)]
    unreadable = []
    for folder in standby:
        if standby_of(os.path.basename(folder)) is None:
            continue
        try:
            fold = load(disk, folder).only(owned)
        except (HeadwaterError, OSError) as error:
            unreadable.append(str(error))
            continue
        if fold.vectors:
            found.append(Candidate(folder, None, fold))
    return Found(found, unreadable)


def standby_names(disk: Disk, data: str) -> list[str]:
    """The names below ``standby/`` that are folders of another node's processor: ``<node: 16 hex>-<number>``."""
    path = f"{data}/{STANDBY}"
    return [name for name in disk.listdir(path) if standby_of(name)] if disk.exists(path) else []


def standby_of(name: str) -> tuple[str, int] | None:
    """The node and the number of a processor in the name of a standby folder; None where it is none."""
    node, _, number = name.partition("-")
    if len(node) != 16 or node.strip("0123456789abcdef") or not (number.isascii() and number.isdigit()):
        return None
    return node, int(number)


def standby_folder(data: str, node: str, number: int) -> str:
    """Where the state of another node's processor is kept."""
    return f"{data}/{STANDBY}/{node}-{number}"


def _state(data: str, number: int) -> str:
    return f"{data}/state/{number}"


def _numbers(disk: Disk, data: str, own: int) -> list[int]:
    """The processors of this node that left something, ``own`` first."""
    names = {*disk.listdir(f"{data}/state"), *disk.listdir(f"{data}/ready")}
    return [own, *sorted({int(n) for n in names if n.isdigit()} - {own})]


class Recent(msgspec.Struct, frozen=True, array_like=True):
    """What a commit of the last moments changed, beside its ids; so that it can be taken back."""

    partitions: tuple[int, ...]
    origin: bytes
    target: bytes
    changes: dict[str, dict[int, list[int]]]


RECENT = "recent"
RECENT_MAX = 256
"""Commits; about a minute of them."""


def save_recent(disk: Disk, folder: str, recent: Iterable[Recent]) -> None:
    """Keep the last commits beside a standby's fold; written before the fold."""
    write_whole(disk, f"{folder}/{RECENT}", msgspec.msgpack.encode(list(recent)))


def load_recent(disk: Disk, folder: str) -> list[Recent]:
    """The last commits of a standby's fold, oldest first; none where they cannot be read: nothing is taken back."""
    try:
        return msgspec.msgpack.decode(read_whole(disk, f"{folder}/{RECENT}"), type=list[Recent])
    except (FileNotFoundError, msgspec.MsgspecError):
        return []


def rewound(fold: Fold, recent: Sequence[Recent], stood: Mapping[int, Vector]) -> Fold:
    """The state as it was where the destinations stand (``stood``), of the partitions of which that is known.

    The owner that is gone may have committed more than it delivered. From its state, the next one would begin behind
    what destinations lack, with events that perhaps only the dead node can give. From where they stand, it begins
    on their chain; what was committed beyond that is run again (protocol.md §7).
    """
    found = fold.only(fold.vectors)
    found.ready, found.config_epoch = fold.ready, fold.config_epoch
    by_target = {(p, one.target): one for one in recent for p in one.partitions}
    for partition, wanted in stood.items():
        at = fold.vectors.get(partition, EMPTY)
        if not wanted <= at:
            continue
        undone: list[Recent] = []
        while at != wanted and (last := by_target.get((partition, at.encode()))) is not None:
            undone.append(last)
            at = Vector.decode(last.origin)
        if at != wanted:
            continue
        found.vectors[partition] = at
        for one in undone:
            for stream, changes in one.changes.items():
                if partition in changes:
                    counts = found.counters[stream][partition]
                    found.counters[stream][partition] = [
                        a - b for a, b in zip(counts, changes[partition], strict=True)
                    ]
    return found
