"""A leader's memory between its decisions: whom it suspects, who asked to come in, which links are cut.

It is told a ``Scene`` each time, and answers with a ``Decision``. Nothing of this memory has to survive: a new leader
finds out again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from headwater.cluster import leading
from headwater.cluster.actions import Send
from headwater.cluster.hearing import DEAD, Hearing
from headwater.cluster.history import History
from headwater.cluster.leading import Pair
from headwater.cluster.messages import Bye, Heartbeat
from headwater.cluster.probing import Probing
from headwater.cluster.table import Member, NodeRecord, Table

TIMEOUT = "heartbeat timeout"


@dataclass(frozen=True, slots=True)
class Scene:
    """What a node knows now."""

    now_ns: int
    me: NodeRecord
    table: Table
    said: Mapping[str, Heartbeat]
    """What those said last whom this node hears."""
    hearing: Hearing
    history: History

    def members_heard(self) -> list[str]:
        """Members that this node hears, and itself, whatever their incarnation."""
        return [node for node in self.table.members if node in self.said or node == self.me.node]

    def records(self) -> dict[str, NodeRecord]:
        """Of everybody heard, and of this node."""
        return {node: beat.record for node, beat in self.said.items()} | {self.me.node: self.me}


@dataclass(slots=True)
class Decision:
    """What comes of it: the members from now on (None: as before), and questions to others."""

    members: dict[str, Member] | None = None
    why: dict[str, str] = field(default_factory=dict)
    sends: list[Send] = field(default_factory=list)
    resign: bool = False


class Leader:
    """One node's memory of leading, or of wanting to."""

    def __init__(self, heartbeat_ns: int) -> None:
        self.heartbeat_ns = heartbeat_ns
        self.probing = Probing(heartbeat_ns)
        self.left: dict[str, int] = {}
        """Who said goodbye, with which incarnation."""
        self.unwanted: dict[str, str] = {}
        """Whom an operator wants out, and why."""
        self.forgetting: set[str] = set()
        """Who is gone for good, as an operator said just now."""
        self.apart: dict[Pair, int] = {}
        """Since when one member is known to miss another."""
        self.parted: dict[str, str] = {}
        """Who lost its place for a cut link: to whom the link was."""
        self.quiet_ns = 0
        """No joins, moves or changes before this: so that those who come at once come in one table."""
        self.settled = False
        """Whether everybody owns what it shall own in the end."""

    def decide(self, scene: Scene) -> Decision:
        """Who goes and who comes. Deaths at once; everything else at most twice per H."""
        decision = Decision()
        gone = self.gone(scene, decision)
        if decision.resign:
            return decision
        calm = scene.now_ns >= self.quiet_ns
        joining = self.joining(scene, decision) if calm or gone else {}
        said = scene.records() if calm or gone else {}
        members = leading.next_members(scene.table, gone.keys(), joining, said)
        if members != scene.table.members:
            self.quiet_ns = scene.now_ns + self.heartbeat_ns // 2
            decision.members, decision.why = members, gone
        elif self.forgetting:
            decision.members = members
        elif calm and not self.settled:
            self.quiet_ns = scene.now_ns + self.heartbeat_ns // 2
            decision.members = members
        return decision

    def gone(self, scene: Scene, decision: Decision) -> dict[str, str]:
        """Members that lose their place now, and why."""
        gone: dict[str, str] = {}
        for node, member in scene.table.members.items():
            if node == scene.me.node:
                continue
            if self.left.get(node, -1) >= member.incarnation:
                gone[node] = "left"
            elif node in self.unwanted:
                gone[node] = self.unwanted[node]
            elif scene.hearing.misses(node, scene.now_ns) and self.dead(node, scene, decision):
                gone[node] = TIMEOUT
        lost = self.cut_off(scene, gone)
        if lost == scene.me.node:
            decision.resign = True
        elif lost:
            gone[lost] = "link cut"
        self.unwanted.clear()
        return gone

    def dead(self, node: str, scene: Scene, decision: Decision) -> bool:
        """Whether a second member misses it as well. Where there is no other to ask, the lease decides."""
        witnesses = [other for other in scene.members_heard() if other not in (node, scene.me.node)]
        if not witnesses:
            return True
        if set(self.probing.missed_by(node, scene.now_ns)) & set(witnesses):
            self.probing.settle(node)
            return True
        decision.sends += self.probing.ask(node, witnesses, scene.now_ns)
        return False

    def cut_off(self, scene: Scene, gone: Mapping[str, str]) -> str:
        """One member that loses its place because a link has been cut for 3H, though others hear both ends; or none."""
        missed = {
            n for n in scene.table.members if n != scene.me.node and scene.hearing.misses(n, scene.now_ns)
        }
        pairs = leading.pairs_apart(scene.table, scene.said, scene.me.node, missed)
        self.apart = {pair: self.apart.get(pair, scene.now_ns) for pair in pairs}
        long_ns = scene.now_ns - DEAD * self.heartbeat_ns
        for pair in sorted(pair for pair, since in self.apart.items() if since <= long_ns):
            if not gone.keys() & set(pair):
                lost = leading.loser(pair, pairs, scene.table)
                if lost != scene.me.node:
                    self.parted[lost] = pair[0] if lost == pair[1] else pair[1]
                return lost
        return ""

    def joining(self, scene: Scene, decision: Decision) -> dict[str, NodeRecord]:
        """Nodes that get a place now: they ask, are heard, were not evicted as who they are, and waited long enough."""
        records = scene.records()
        return {node: record for node, record in records.items() if self.may_join(record, scene, decision)}

    def may_join(self, record: NodeRecord, scene: Scene, decision: Decision) -> bool:
        node, member = record.node, scene.table.members.get(record.node)
        if record.state != "joining" or (member is not None and member.incarnation >= record.incarnation):
            return False
        if self.left.get(node, -1) >= record.incarnation:
            return False
        evicted = scene.history.evicted.get(node, -1)
        if record.incarnation <= evicted:
            reason = "this incarnation was evicted before it knew that it was a member"
            bye = Bye(about=node, incarnation=evicted, kind="superseded", reason=reason)
            decision.sends.append(Send((node,), bye))
            return False
        if scene.now_ns < scene.history.may_return_ns(node, scene.now_ns):
            return False
        if record.protocol < scene.table.enabled_version:
            reason = (
                f"speaks version {record.protocol}, the cluster {scene.table.enabled_version}: upgrade it"
            )
            bye = Bye(about=node, incarnation=record.incarnation, kind="refused", reason=reason)
            decision.sends.append(Send((node,), bye))
            return False
        return self.link_mended(node, scene, decision)

    def link_mended(self, node: str, scene: Scene, decision: Decision) -> bool:
        """Who was dropped for a cut link comes back when the other end hears it again, or is no member any more."""
        other = self.parted.get(node, "")
        if other == scene.me.node:  # heard: else it would not be asked about
            other = ""
        if other and other in scene.table.members and not self.probing.heard_by(node, scene.now_ns):
            decision.sends += self.probing.ask(node, [other], scene.now_ns)
            return False
        self.parted.pop(node, None)
        self.probing.settle(node)
        return True
