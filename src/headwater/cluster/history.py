"""What happened to the members, as one node saw it: for operators, and for the back-off of nodes that come and go.

Read off the tables that a node adopts, so that every node knows, whoever leads: who was evicted k times within ten
minutes may come back 1, 2, 4 … 60 s after the last time (F6). Bounded: ``activity_max`` entries.
"""

from __future__ import annotations

from collections import deque

import msgspec

from headwater.cluster.table import Table

SECOND_NS = 1_000_000_000
FLAPPING_NS = 600 * SECOND_NS
BACK_OFF_MAX_S = 60


class Activity(msgspec.Struct, frozen=True, kw_only=True):
    """One entry."""

    at_ns: int
    """By this node's monotonic clock."""
    event: str
    """joined, left, evicted, restarted, draining, active, leads, refused, rejoins, stood_still"""
    node: str
    incarnation: int
    reason: str
    epoch: int


class History:
    """The last entries, and who was evicted when."""

    def __init__(self, activity_max: int) -> None:
        self.entries: deque[Activity] = deque(maxlen=activity_max)
        self.evicted_ns: dict[str, list[int]] = {}
        self.evicted: dict[str, int] = {}
        """Node → its greatest incarnation that was evicted: that one never comes back."""

    def changed(self, before: Table, after: Table, why: dict[str, str], now_ns: int) -> list[Activity]:
        """The entries that make ``after`` of ``before``."""
        made: list[Activity] = []

        def add(event: str, node: str, incarnation: int, reason: str = "") -> None:
            made.append(self.add(event, node, incarnation, reason, after.epoch, now_ns))

        for node, member in before.members.items():
            if node not in after.members:
                reason = why.get(node, "")
                gone = reason == "left" or (not reason and member.state == "draining")
                add("left" if gone else "evicted", node, member.incarnation, reason)
                if not gone:
                    self.evict(node, member.incarnation, now_ns)
        for node, member in after.members.items():
            former = before.members.get(node)
            if former is None:
                add("joined", node, member.incarnation)
            elif former.incarnation != member.incarnation:
                add("restarted", node, member.incarnation)
            elif former.state != member.state:
                add(member.state, node, member.incarnation)
        if (after.leader, after.leader_incarnation) != (before.leader, before.leader_incarnation):
            add("leads", after.leader, after.leader_incarnation)
        return made

    def add(self, event: str, node: str, incarnation: int, reason: str, epoch: int, now_ns: int) -> Activity:
        entry = Activity(
            at_ns=now_ns, event=event, node=node, incarnation=incarnation, reason=reason, epoch=epoch
        )
        self.entries.append(entry)
        return entry

    def evict(self, node: str, incarnation: int, now_ns: int) -> None:
        times = [at for at in self.evicted_ns.get(node, []) if now_ns - at < FLAPPING_NS]
        self.evicted_ns[node] = [*times, now_ns][-16:]
        self.evicted[node] = max(incarnation, self.evicted.get(node, 0))

    def may_return_ns(self, node: str, now_ns: int) -> int:
        """From when on an evicted node may be admitted again."""
        times = [at for at in self.evicted_ns.get(node, []) if now_ns - at < FLAPPING_NS]
        if not times:
            return 0
        return times[-1] + min(BACK_OFF_MAX_S, 1 << (len(times) - 1)) * SECOND_NS
