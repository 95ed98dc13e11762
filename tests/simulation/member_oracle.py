"""What must hold for the members of a cluster at every step, judged from outside: by what was really delivered."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headwater.cluster.leader import TIMEOUT
from headwater.cluster.table import Order, Table, View

if TYPE_CHECKING:
    from tests.simulation.member_world import Node, World

SLACK = 1.3
"""Of a tick, a pause shorter than what counts as standing still, and the way of a message; in heartbeats."""


class Violation(AssertionError):
    """An invariant does not hold."""


class Oracle:
    def __init__(self, world: World) -> None:
        self.world = world
        self.tables: dict[Order, Table] = {}
        self.newest: dict[tuple[str, int], Table] = {}
        """(node, life) → the table seen last."""
        self.kept: dict[str, Order] = {}
        self.void: set[tuple[str, int]] = set()
        """(node, incarnation): it saw a table without itself."""
        self.named: dict[tuple[str, int], Order] = {}
        """(node, incarnation) → the least table that names it and that it had."""
        self.evictions: list[tuple[int, str, str]] = []
        """(when, whom, why)."""

    def look(self, node: Node) -> None:
        """After each step of a node."""
        table = node.membership.table
        before = self.newest.get((node.id, node.life))
        if table is before:
            return
        if before is not None and not table.order > before.order:
            raise Violation(f"INV-CLU-1: {node.id} went from {before.order} to {table.order}")
        if before is None and table.order < self.kept.get(node.id, (0, 0, "")):
            raise Violation(f"INV-CLU-1: {node.id} started with {table.order}, and had {self.kept[node.id]}")
        self.newest[node.id, node.life] = table
        self.kept[node.id] = table.order
        first = self.tables.get(table.order)
        if first is None:
            self.tables[table.order] = table
            if before is not None and table.epoch:
                self.made(node, before, table)
        elif first is not table and first != table:
            raise Violation(f"INV-CLU-1: two tables at {table.order}")
        self.member(node, table)

    def member(self, node: Node, table: Table) -> None:
        """Whoever was named by a table that it had, and has a greater one that does not name it, is not that incarnation
        any more. (One that was admitted and evicted while it stood still has done nothing: whoever admits it again, not
        knowing, does no harm. Seed 1264.)"""
        mine = table.members.get(node.id)
        if mine is not None:
            life = (node.id, mine.incarnation)
            self.named[life] = min(table.order, self.named.get(life, table.order))
        for (who, incarnation), order in self.named.items():
            if who == node.id and order < table.order and (mine is None or mine.incarnation != incarnation):
                self.void.add((who, incarnation))

    def shown(self, node: Node, view: View) -> None:
        if not view.viable:
            return
        incarnation = node.membership.me.incarnation
        if (node.id, incarnation) in self.void:
            raise Violation(f"{node.id} acts as {incarnation}, which was evicted")
        member = view.table.members.get(node.id)
        if member is None or member.incarnation != incarnation:
            raise Violation(f"INV-OWN-2: {node.id} acts under a table that does not name it")

    def made(self, node: Node, before: Table, table: Table) -> None:
        """A new table, by its leader."""
        if table.leader != node.id:
            raise Violation(f"{node.id} has a table of {table.leader} that nobody made")
        if table.epoch <= node.epoch_heard:
            raise Violation(
                f"epoch {table.epoch} is not above {node.epoch_heard}, which {node.id} was told of"
            )
        now, h = self.world.now_ns, self.world.rules.heartbeat_ns
        if self.world.has_store and now > node.lease_real_ns:
            raise Violation(f"{node.id} decides without a lease")
        fresh = (
            2 if now - node.resumed_ns > 3 * h else 3 + SLACK
        )  # what it heard just before it was stopped counts
        seen = {one for one, at in node.delivered.items() if now - at <= fresh * h} | {node.id}
        if 2 * len(seen & before.members.keys()) < len(before.members):
            raise Violation(
                f"{node.id} decides and sees {len(seen & before.members.keys())} of {len(before.members)}"
            )
        self.check_shares(table)
        self.check_moves(before, table)
        for gone in before.members.keys() - table.members.keys():
            self.evicted(node, before, gone, node.membership.why_gone.get(gone, ""))

    def evicted(self, leader: Node, before: Table, gone: str, why: str) -> None:
        now, h = self.world.now_ns, self.world.rules.heartbeat_ns
        self.evictions.append((now, gone, why))
        if why != TIMEOUT:
            return
        others = [self.world.by_id[one] for one in before.members if one not in (gone, leader.id)]
        heard = [one for one in others if now - leader.delivered.get(one.id, -100 * h) <= 3 * h]
        if heard and not any(self.missed(one, gone) for one in heard):
            raise Violation(f"{leader.id} evicted {gone} for silence, and all others hear it")

    def missed(self, witness: Node, gone: str) -> bool:
        """Whether it was suspect to the witness within the last H, as long as an answer counts."""
        now, h = self.world.now_ns, self.world.rules.heartbeat_ns
        silent = now - witness.delivered.get(gone, -100 * h)
        return self.long(silent) or now - witness.missed.get(gone, -100 * h) <= SLACK * h

    def long(self, silence_ns: int) -> bool:
        """Whether a witness may have called it suspect."""
        return silence_ns >= (2 - SLACK) * self.world.rules.heartbeat_ns

    def check_shares(self, table: Table) -> None:
        for partition, (owner, standby) in enumerate(zip(table.owner, table.standby, strict=True)):
            if owner == standby != "":
                raise Violation(f"partition {partition}: {owner} is owner and standby")

    def check_moves(self, before: Table, table: Table) -> None:
        """State moves before partitions do, and a partition without owner goes where its state is."""
        moved = 0
        for p, (was, now) in enumerate(zip(before.owner, table.owner, strict=bool(before.owner))):
            stood = before.standby[p]
            if was == now or not was:
                continue
            if was in table.members:
                moved += 1
                if now != stood or p not in self.world.by_id[now].ready_once:
                    raise Violation(
                        f"partition {p} moved from {was}, which lives, to {now} without its state"
                    )
            elif stood in table.members and table.members[stood].state == "active" and now != stood:
                raise Violation(f"partition {p} went to {now}, its state is at {stood}")
        if moved > max(1, len(table.owner) // 8):
            raise Violation(f"{moved} partitions moved at once")
