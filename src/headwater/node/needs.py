"""What the owners of partitions need of the raw logs, and what a home may give back of its own (INV-LANE-2).

An owner needs, of a partition, what it has not processed, what a destination may ask for again, and what its standby
would begin from. A home adds up what the owners of *all* partitions say, by the newest table that it knows: a partition
of which its owner has said nothing since that table makes nothing safe. Nobody ever needs more than they said before,
so an old word keeps too much, never too little.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from headwater.cluster.table import View
from headwater.config.report import Report
from headwater.event.position import EMPTY, Vector
from headwater.lane.wire import Need, Progress
from headwater.ops import standing
from headwater.ops.standing import Vectors


def own(
    reports: Mapping[str, Report], owned: Iterable[int], destinations: Iterable[str], standby: Vectors
) -> Vectors:
    """Of each own partition, what is still needed; left out where the processor or a destination has not said.

    ``standby``: where the state stands that its standby has; without an entry it would begin where destinations stand.
    """
    delivered = standing.delivered(reports)
    stands = [standing.processed(reports).vectors]
    stands += [delivered[name].needs if name in delivered else {} for name in destinations]
    found: Vectors = {}
    for partition in owned:
        if all(partition in vectors for vectors in stands):
            vectors = [vectors[partition] for vectors in (*stands, standby) if partition in vectors]
            found[partition] = meet(vectors)
    return found


def meet(vectors: Iterable[Vector]) -> Vector:
    """The greatest vector below all of these; EMPTY of none."""
    return standing.least(dict(enumerate(dict.fromkeys(vectors))))


def said(epoch: int, needs: Vectors, kept: Vectors) -> Progress:
    """As it travels: partitions with the same needs together. Both say something of the same partitions, or of none."""
    groups: dict[tuple[str, str], list[int]] = {}
    texts: dict[Vector, str] = {}
    for partition in sorted(needs.keys() & kept.keys()):
        pair = needs[partition], kept[partition]
        one, other = (texts.setdefault(vector, vector.encode().hex()) for vector in pair)
        groups.setdefault((one, other), []).append(partition)
    return Progress(
        epoch=epoch,
        groups=[Need(partitions=p, vector=one, kept=other) for (one, other), p in groups.items()],
    )


def safe(view: View | None, by_node: Mapping[str, Progress]) -> tuple[Vector, Vector]:
    """Below what nobody asks again (INV-LANE-2), and below what only destinations do that may be written off; both
    EMPTY while an owner has not spoken."""
    if view is None or not view.table.owner:
        return EMPTY, EMPTY
    needed: set[str] = set()
    kept: set[str] = set()
    groups = {node: by_partition(one, view.table.epoch) for node, one in by_node.items()}
    for partition, owner in enumerate(view.table.owner):
        need = groups.get(owner, {}).get(partition)
        if need is None:
            return EMPTY, EMPTY
        needed.add(need.vector)
        kept.add(need.kept)
    return meet(map(decoded, sorted(needed))), meet(map(decoded, sorted(kept)))


def by_partition(one: Progress, epoch: int) -> dict[int, Need]:
    """Of each partition what its owner said; nothing when it did so by an older table."""
    if one.epoch < epoch:
        return {}
    return {partition: need for need in one.groups for partition in need.partitions}


def decoded(text: str) -> Vector:
    return Vector.decode(bytes.fromhex(text))


def reported(reports: Mapping[str, Report]) -> dict[str, Progress]:
    """What the report of the lane process has: of each node, itself included, what it said last."""
    told = reports["lane-0"].detail.get("needs", {}) if "lane-0" in reports else {}
    return {node: msgspec.convert(one, Progress) for node, one in told.items()}


def told(by_node: Mapping[str, Progress]) -> dict[str, object]:
    """``reported``, for the report."""
    return {node: msgspec.to_builtins(one) for node, one in by_node.items()}
