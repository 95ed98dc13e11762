"""Who owns which partition, and who stands by: minimal moves from the shares before (H5, protocol.md §9).

A node's *quota* is its weight's share of the partitions; nobody ends up a whole partition or more away from it. Whoever
holds partitions keeps them. What nobody holds (its owner left, drains, or there is none yet) goes to its standby, which
has its state, as long as that one is below its quota, then to whoever lacks most. Only then partitions are taken from
those above their quota. So a leave moves the leaver's partitions alone, and a join moves what the joiner gets.

A standby is never the owner; one in another zone comes before one in the same. Where there is only one node, there is
none. Standbys are shared out by weight as well, and those of one owner over many nodes, so that its death is carried by
many. Draining members and weight 0 own nothing and stand by for nothing.

The same arguments give the same shares, and sharing out twice changes nothing more. 4,096 partitions over 1,000 nodes
take well under a second.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from headwater.cluster.table import Member

NOBODY = -1
Numbers = NDArray[np.int64]
OTHER_ZONE_FIRST = 1 << 55
LOAD_FIRST = 1 << 13
"""Above any count of pairs (4,096)."""


class Shares(NamedTuple):
    """Node id per partition, "" where there is nobody."""

    owner: list[str]
    standby: list[str]


def fresh(partitions: int) -> Shares:
    """Nobody has anything."""
    return Shares([""] * partitions, [""] * partitions)


def assign(former: Shares, members: Mapping[str, Member]) -> Shares:
    """Owner and standby of every partition among ``members``."""
    nodes = sorted(node for node, member in members.items() if member.state == "active" and member.weight)
    partitions = len(former.owner)
    if not nodes:
        return fresh(partitions)
    weights = np.array([members[node].weight for node in nodes], np.int64)
    zones = numbered([members[node].zone for node in nodes])
    held, stood = indexes(former.owner, nodes), indexes(former.standby, nodes)
    owner = owners(held, stood, weights)
    standby = standbys(owner, held, stood, Load(weights, partitions), zones)
    return Shares(names(owner, nodes), names(standby, nodes))


def paced(
    former: Shares, ideal: Shares, members: Mapping[str, Member], ready: Mapping[str, Set[int]], most: int
) -> Shares:
    """What of ``ideal`` may be now. ``ready``: of each node the partitions whose state it has as their standby.

    A partition whose owner lives moves only to a standby that has its state, and at most ``most`` at once (H6); until
    then who shall own it is its standby, and gets the state. One without owner goes to its standby, whoever else
    has less: what is only there must not be made again by somebody who knows nothing.
    """
    owner, standby = list(ideal.owner), list(ideal.standby)
    moved = 0
    for partition, shall in enumerate(ideal.owner):
        was, stood = former.owner[partition], former.standby[partition]
        if was == shall:
            continue
        if was in members:
            if stood == shall and partition in ready.get(shall, ()) and moved < most:
                moved += 1
                continue
            owner[partition], standby[partition] = was, shall
        elif stood in members and stood != shall and members[stood].state == "active":
            owner[partition], standby[partition] = stood, shall
    return Shares(owner, standby)


class Load:
    """How much each node has against its quota, in units of 1/(sum of weights), so that all is exact."""

    def __init__(self, weights: Numbers, partitions: int) -> None:
        self.unit = int(weights.sum())
        self.above = -weights * partitions
        """What a node has above its quota; negative: what it lacks."""

    def give(self, node: int) -> None:
        self.above[node] += self.unit

    def take(self, node: int) -> None:
        self.above[node] -= self.unit

    def poorest(self) -> int:
        """Who lacks most; the least id among equals."""
        return int(self.above.argmin())

    def richest(self) -> int:
        return int(self.above.argmax())

    def uneven(self) -> bool:
        """Whether somebody is a whole partition or more away from the quota."""
        return bool(self.above.min() <= -self.unit or self.above.max() >= self.unit)


def owners(held: Numbers, stood: Numbers, weights: Numbers) -> Numbers:
    """Keep, then give what is free, then even out."""
    load, owner = Load(weights, len(held)), held.copy()
    for node in held[held != NOBODY]:
        load.give(int(node))
    for partition in np.flatnonzero(held == NOBODY):
        node = int(stood[partition])
        if node != NOBODY and load.above[node] <= -load.unit:
            owner[partition] = node
            load.give(node)
    for partition in np.flatnonzero(owner == NOBODY):
        poorest = load.poorest()
        owner[partition] = poorest
        load.give(poorest)
    while load.uneven():
        rich, poor = load.richest(), load.poorest()
        owner[best_to_move(owner == rich, stood == poor)] = poor
        load.take(rich)
        load.give(poor)
    return owner


def best_to_move(has: NDArray[np.bool_], stands_by: NDArray[np.bool_]) -> int:
    """A partition whose next owner has its state already, else the last one."""
    both = np.flatnonzero(has & stands_by)
    return int(both[0] if len(both) else np.flatnonzero(has)[-1])


def standbys(owner: Numbers, held: Numbers, stood: Numbers, load: Load, zones: Numbers) -> Numbers:
    """Keep who may stay, then the former owner of what moved (it has the state), then whoever has least."""
    count = len(zones)
    if count == 1:
        return np.full(len(owner), NOBODY, np.int64)
    elsewhere = np.array([bool((zones != zone).any()) for zone in zones])

    def may_stand(node: int, of: int) -> bool:
        return node not in (NOBODY, of) and (zones[node] != zones[of] or not elsewhere[of])

    standby = np.full(len(owner), NOBODY, np.int64)
    pairs = np.zeros((count, count), np.int64)
    for partition, of in enumerate(owner.tolist()):
        for node in (int(stood[partition]), int(held[partition])):
            if may_stand(node, of):
                standby[partition] = node
                load.give(node)
                pairs[of, node] += 1
                break
    for partition in np.flatnonzero(standby == NOBODY).tolist():
        of = int(owner[partition])
        rank = load.above * LOAD_FIRST + pairs[of] + (zones == zones[of]) * OTHER_ZONE_FIRST
        rank[of] = np.iinfo(np.int64).max
        least = int(rank.argmin())
        standby[partition] = least
        load.give(least)
        pairs[of, least] += 1
    even_out(owner, standby, load, zones)
    return standby


def even_out(owner: Numbers, standby: Numbers, load: Load, zones: Numbers) -> None:
    """Whoever is a whole partition or more below the quota gets some of those above it, as zones and owners allow."""
    for node in np.argsort(load.above, kind="stable"):
        while load.above[node] <= -load.unit:
            worse = (zones[node] == zones[owner]) & (zones[standby] != zones[owner])
            above = np.where((owner == node) | worse, 0, load.above[standby])
            partition = int(above.argmax())
            if above[partition] <= 0:
                break
            load.take(int(standby[partition]))
            load.give(int(node))
            standby[partition] = node


def numbered(texts: Sequence[str]) -> Numbers:
    """Equal texts get equal numbers."""
    order = {text: number for number, text in enumerate(sorted(set(texts)))}
    return np.array([order[text] for text in texts], np.int64)


def indexes(held: Sequence[str], nodes: Sequence[str]) -> Numbers:
    """Nodes as their places in ``nodes``; NOBODY for those who are not in it."""
    place = {node: number for number, node in enumerate(nodes)}
    return np.array([place.get(node, NOBODY) for node in held], np.int64)


def names(places: Numbers, nodes: Sequence[str]) -> list[str]:
    return [nodes[place] if place != NOBODY else "" for place in places.tolist()]
