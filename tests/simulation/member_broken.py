"""Memberships with one mistake each; the oracle must find every one of them (test_membership.py)."""

from __future__ import annotations

from collections.abc import Mapping

from headwater.cluster.actions import Action
from headwater.cluster.leader import Decision, Leader, Scene
from headwater.cluster.membership import Membership
from headwater.cluster.messages import Message, WantTable
from headwater.cluster.table import NO_TABLE, Table


class AdoptsSmaller(Membership):
    """Whatever table comes last."""

    def adopt(self, table: Table, why: Mapping[str, str], now_ns: int) -> list[Action]:
        if table.order < self.table.order:
            self.table = NO_TABLE
        return super().adopt(table, why, now_ns)


class LeadsWithoutMajority(Membership):
    """Whoever has the lease decides."""

    def sees_enough(self, now_ns: int, *, half: bool) -> bool:
        return self.settled

    def sees_enough_on_time(self, scene: Scene, *, half: bool) -> bool:
        return True


class ShrinksToItsMinority(Membership):
    """Members that are late already are still counted when one of them is evicted."""

    def sees_enough_on_time(self, scene: Scene, *, half: bool) -> bool:
        return True


class AsksNobody(Leader):
    """What the leader misses is dead."""

    def dead(self, node: str, scene: Scene, decision: Decision) -> bool:
        return True


class EvictsAlone(Membership):
    """No second witness."""

    def __init__(self, *args: object, **words: object) -> None:
        super().__init__(*args, **words)  # type: ignore[arg-type]
        self.leader = AsksNobody(self.rules.heartbeat_ns)


class GoesOn(Membership):
    """A member is a member for ever."""

    was = 0

    def admitted(self) -> bool:
        if super().admitted():
            self.was = self.me.incarnation
        return self.was == self.me.incarnation


class KeepsIncarnation(Membership):
    """Who was evicted asks again as who it was."""

    def rejoin(self, above: int, reason: str, now_ns: int) -> list[Action]:
        return super().rejoin(self.me.incarnation - 1, reason, now_ns)


class CountsItsOwnEpochs(Membership):
    """The next epoch is above the leader's own, whatever others have."""

    def behind(self, now_ns: int) -> bool:
        return False

    def decide(self, now_ns: int) -> list[Action]:
        self.greatest_epoch = self.table.epoch
        return super().decide(now_ns)


class TrustsItsLease(Membership):
    """The lease holds until the store says otherwise."""

    def lease(self, until_ns: int) -> None:
        super().lease(until_ns + 3600 * 1_000_000_000 if until_ns else 0)


class KeepsTablesToItself(Membership):
    """Who missed a table does not get it from anybody but its leader."""

    def received(self, sender: str, message: Message, now_ns: int) -> list[Action]:
        return [] if isinstance(message, WantTable) else super().received(sender, message, now_ns)
