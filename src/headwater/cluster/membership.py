"""One node's part in the cluster, as a state machine: what came and what time it is go in, actions come out.

No input or output, no clock, no randomness: the same inputs give the same actions, so that thousands of histories can
be tried (tests/simulation/test_membership.py). Time is any monotonic clock of this node, in nanoseconds. Actions are
done in their order; ``tick`` is called at least eight times per heartbeat, also while nothing comes in.

What holds (protocol.md §9):

* a node adopts only greater tables, keeps the last one on disk and gives it to whoever asks (INV-CLU-1);
* only a holder of the lease that sees more than half of its table's members makes a new one, above every epoch that it
  ever heard of; nobody is evicted for silence that only the leader noticed;
* a node acts (``View.viable``) only under a table that names its present incarnation and while it hears more than half
  of it, and ``minimum_nodes``. The [3H] of §9 are inside of *hears*: the view falls 3H after the last sign of life;
* who was evicted comes back in the same process under a new incarnation, never under the old one; who stood still for
  3H believes nothing that it knew before until it has heard more than half of the members again.

None of it is needed for safety (INV-DST-1).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import msgspec

from headwater.cluster import leading
from headwater.cluster.actions import (
    Action,
    AskLease,
    DropLease,
    Happened,
    Keep,
    Kept,
    Publish,
    PutTable,
    Send,
    Show,
    Stop,
)
from headwater.cluster.hearing import DEAD, FORGET, LATE, Hearing
from headwater.cluster.history import History
from headwater.cluster.leader import Leader, Scene
from headwater.cluster.messages import (
    Bye,
    Drain,
    Evict,
    Forget,
    Heartbeat,
    Message,
    NewTable,
    Probe,
    ProbeAck,
    WantTable,
    bits,
    partitions_in,
)
from headwater.cluster.table import FORGETTING, NO_TABLE, NodeRecord, Table, View, greater

SECOND_NS = 1_000_000_000
EPOCH_LEAP_MAX = 1 << 32
"""A table so far above everything heard of is a lie or rot: believed, it would use up the epochs."""
BREAKERS_MAX = 3
"""How many of the members, those with the least ids, try to take the lease from a dead leader."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The numbers."""

    heartbeat_ns: int = 2 * SECOND_NS
    lease_renew_ns: int = 3 * SECOND_NS
    minimum_nodes: int = 1
    minority_leads: bool = False
    """The operator says that ``minimum_nodes`` members are enough to lead, though they be no majority."""
    partitions: int = 64
    configured: int = 0
    """Without a store: how many nodes the list of peers has, this one included."""
    activity_max: int = 50


class Membership:
    """See the module."""

    def __init__(self, me: NodeRecord, rules: Rules, now_ns: int, kept: Kept | None = None) -> None:
        self.rules = rules
        self.table = kept.table if kept else NO_TABLE
        least = kept.incarnation + 1 if kept else 0
        known = self.table.members.get(me.node)
        if known is not None:
            least = max(least, known.incarnation + 1)
        self.me = msgspec.structs.replace(me, incarnation=max(me.incarnation, least), state="joining")
        self.records: dict[str, NodeRecord] = dict(kept.records) if kept else {}
        """Everybody known of, with addresses: whom heartbeats go to."""
        self.records.pop(me.node, None)
        self.store_nodes: set[str] = set()
        self.met_nodes: set[str] = set()
        self.hearing = Hearing(rules.heartbeat_ns, now_ns)
        self.hearing.expect(set(self.table.members) - {me.node}, now_ns)
        self.history = History(rules.activity_max)
        self.leader = Leader(rules.heartbeat_ns)
        self.started_ns = self.last_tick_ns = now_ns
        self.greatest_epoch = self.table.epoch
        self.draining = self.leaving = self.stopped = False
        self.refused = ""
        """Why others do not let this node in."""
        self.refused_ns = 0
        """When they said so last."""
        self.settled = True
        """False after standing still, until more than half of the members were heard again."""
        self.lease_until_ns = 0
        self.asked_lease_ns = self.beat_ns = now_ns - 1_000 * SECOND_NS
        self.resigned_until_ns = 0
        self.store_heard = bool(rules.configured)
        self.store_table = NO_TABLE.order
        self.behind_since_ns: int | None = None
        self.deciding = False
        """Whether this node led at its last tick."""
        self.ready: frozenset[int] = frozenset()
        """The partitions whose state this node has as their standby."""
        self.missed: list[str] = []
        """Members that it missed then."""
        self.shown: View | None = None
        self.why_gone: dict[str, str] = {}
        self.begun = False

    # What comes in

    def received(self, sender: str, message: Message, now_ns: int) -> list[Action]:
        """A message of a peer that proved who it is (``sender``: its node id)."""
        if self.stopped or self.leaving:
            return []
        return self.stood_still(now_ns) + self.understood(sender, message, now_ns)

    def understood(self, sender: str, message: Message, now_ns: int) -> list[Action]:
        match message:
            case Heartbeat():
                return self.heard(sender, message, now_ns)
            case WantTable():
                if self.table.order > message.than:
                    return [Send((sender,), NewTable(table=self.table, why=self.why_gone))]
                return []
            case NewTable():
                return self.adopt(message.table, message.why, now_ns)
            case Probe():
                return [Send((sender,), self.answer(message.about, now_ns))]
            case ProbeAck():
                self.leader.probing.answered(sender, message, now_ns)
                return []
            case Bye():
                return self.goodbye(sender, message, now_ns)
            case Drain():
                return self.drain(now_ns, message.draining)
            case Evict():
                return self.evict(message.about, message.reason, now_ns)
            case Forget():
                return self.forget(message.about, now_ns)

    def heard(self, sender: str, beat: Heartbeat, now_ns: int) -> list[Action]:
        record = beat.record
        if record.node != sender:
            return []  # speaks for somebody else
        if record.node == self.me.node:
            return self.met_myself(record)
        if beat.table[0] > self.greatest_epoch + EPOCH_LEAP_MAX:
            return []
        if record.incarnation <= self.leader.left.get(sender, -1):
            return []  # was under way when its sender said goodbye
        verdict = self.hearing.heartbeat(beat, now_ns)
        if verdict in ("superseded", "cloned"):
            return [Send((sender,), self.turned_away(record, verdict))]
        self.records[sender] = record
        self.greatest_epoch = max(self.greatest_epoch, beat.table[0])
        if verdict == "new" or beat.table < self.table.order:
            return [Send((sender,), self.beat(now_ns))]
        return []

    def turned_away(self, record: NodeRecord, verdict: str) -> Bye:
        known = self.hearing.heard[record.node].beat.record
        place = known.member_address or known.name
        if verdict == "cloned":
            reason = f"node {record.node} lives at {place} already: is its data folder a copy?"
            return Bye(about=record.node, incarnation=known.incarnation, kind="cloned", reason=reason)
        reason = f"node {record.node} was started again at {place}"
        return Bye(about=record.node, incarnation=known.incarnation, kind="superseded", reason=reason)

    def met_myself(self, record: NodeRecord) -> list[Action]:
        """Another process says that it is this node. Whoever has a place in the table keeps it."""
        if not self.admitted() or record.member_address == self.me.member_address:
            return []
        reason = f"node {record.node} lives at {self.me.member_address} already: is its data folder a copy?"
        bye = Bye(about=record.node, incarnation=self.me.incarnation, kind="cloned", reason=reason)
        return [Send((record.node,), bye)]

    def met(self, node: str, now_ns: int) -> list[Action]:
        """There is a connection with this node now: it hears from us at once, and from then on."""
        if node == self.me.node or self.stopped or self.leaving:
            return []
        self.met_nodes.add(node)
        return [Send((node,), self.beat(now_ns))]

    def goodbye(self, sender: str, bye: Bye, now_ns: int) -> list[Action]:
        if bye.about == self.me.node:
            return self.told_to_go(bye, now_ns)
        if bye.about == sender and bye.kind == "left":
            self.leader.left[sender] = max(bye.incarnation, self.leader.left.get(sender, 0))
            self.hearing.forget(sender)
            self.records.pop(sender, None)
            self.met_nodes.discard(sender)
            return self.show(now_ns)
        return []

    def told_to_go(self, bye: Bye, now_ns: int) -> list[Action]:
        """Others know this node as somebody else."""
        if bye.kind == "superseded" and self.admitted() and bye.incarnation > self.me.incarnation:
            return self.stop(bye.reason)
        if bye.kind == "superseded" and not self.admitted() and bye.incarnation >= self.me.incarnation:
            actions = self.rejoin(bye.incarnation, bye.reason, now_ns)
            return [self.keep(), *actions]
        if bye.kind in ("cloned", "refused") and not self.admitted():
            self.refused_ns = now_ns
            if self.refused == bye.reason:
                return []
            self.refused = bye.reason
            return [self.happened("refused", bye.reason, now_ns), *self.show(now_ns)]
        return []

    def store_said(self, table: Table | None, records: Mapping[str, NodeRecord], now_ns: int) -> list[Action]:
        """What stands in the store. Who reads an older table there than its own puts its own, if it leads."""
        self.store_heard = True
        self.store_table = table.order if table else NO_TABLE.order
        self.store_nodes = set(records)
        for node, record in records.items():
            if node != self.me.node and not self.hearing.hears(node, now_ns):
                self.records[node] = record
        actions = self.adopt(table, {}, now_ns) if table else []
        if self.leads(now_ns) and self.store_table < self.table.order:
            actions.append(PutTable(self.table))
        return actions

    def lease(self, until_ns: int) -> None:
        """The store gave or renewed the lease, until then by this node's clock, counted from before it was asked.
        0: somebody else has it."""
        self.lease_until_ns = until_ns

    # What operators want

    def drain(self, now_ns: int, draining: bool = True) -> list[Action]:
        """Hand over what this node owns, and stay a member."""
        self.draining = draining
        self.me = msgspec.structs.replace(self.me, state=self.state())
        return [Publish(self.me), *self.beats(now_ns), *self.show(now_ns)]

    def leave(self, now_ns: int) -> list[Action]:
        """The end of this process: the others need not find out by silence."""
        self.leaving = True
        bye = Bye(about=self.me.node, incarnation=self.me.incarnation, kind="left", reason="stopped")
        return [Send(self.targets(), bye), DropLease(), *self.show(now_ns)]

    def evict(self, node: str, reason: str, now_ns: int) -> list[Action]:
        """Take a member out, alive or not; where this node does not lead, the leader is asked to."""
        if self.leads(now_ns):
            self.leader.unwanted[node] = reason or "evicted by an operator"
            return self.decide(now_ns)
        leading_now = self.leading_node(now_ns)
        return [Send((leading_now,), Evict(about=node, reason=reason))] if leading_now else []

    def forget(self, node: str, now_ns: int) -> list[Action]:
        """Nobody waits any more for what only this node has, which is no member; where this node does not lead, the
        leader is asked to. Nothing while not all members know what that means."""
        if self.table.enabled_version < FORGETTING or node in self.table.members:
            return []
        if self.leads(now_ns):
            self.leader.forgetting.add(node)
            return self.decide(now_ns)
        leading_now = self.leading_node(now_ns)
        return [Send((leading_now,), Forget(about=node))] if leading_now else []

    # Time

    def tick(self, now_ns: int) -> list[Action]:
        """Time passed."""
        if self.stopped or self.leaving:
            return []
        actions: list[Action] = [] if self.begun else self.begin()
        actions += self.stood_still(now_ns)
        actions += self.ask_newest(now_ns)
        self.settled = self.settled or self.caught_up(now_ns)
        actions += self.seek_lease(now_ns)
        self.deciding = self.may_decide(now_ns)
        if now_ns - self.beat_ns >= self.rules.heartbeat_ns:
            actions += self.beats(now_ns)
        if self.deciding:
            actions += self.decide(now_ns)
        return actions + self.show(now_ns)

    def ask_newest(self, now_ns: int) -> list[Action]:
        """Whoever has the greatest table is asked for it; by now its leader would have sent it, if it could."""
        said = self.hearing.fresh(now_ns)
        node = max(said, key=lambda one: (said[one].table, said[one].leads, one), default="")
        if not node or said[node].table <= self.table.order:
            return []
        return [Send((node,), WantTable(than=self.table.order))]

    def begin(self) -> list[Action]:
        self.begun = True
        return [self.keep(), Publish(self.me)]

    def stood_still(self, now_ns: int) -> list[Action]:
        """SIGSTOP, a sleeping machine, a thread that got no turn: nobody is silent because this node was. Whoever was
        silent itself for 3H may have been evicted."""
        gap = now_ns - self.last_tick_ns
        self.last_tick_ns = now_ns
        if gap < self.rules.heartbeat_ns // 2:
            return []
        if now_ns - self.beat_ns < DEAD * self.rules.heartbeat_ns:
            self.hearing.excuse(gap, now_ns)
            return []
        self.hearing.forget_all(now_ns)
        self.lease_until_ns, self.settled = 0, False
        return [self.happened("stood_still", f"{gap / 1e9:.1f} s", now_ns)]

    def caught_up(self, now_ns: int) -> bool:
        """After standing still: at least half was heard since, and nobody has a greater table."""
        seen, of = len(self.scene(now_ns).members_heard()), len(self.table.members)
        return leading.enough(seen, of, half=True) and not self.behind(now_ns)

    def beats(self, now_ns: int) -> list[Action]:
        self.beat_ns = now_ns
        self.forget_strangers(now_ns)
        others = self.table.members.keys() - {self.me.node}
        self.missed = sorted(node for node in others if self.hearing.misses(node, now_ns))
        to = self.targets()
        return [Send(to, self.beat(now_ns))] if to else []

    def beat(self, now_ns: int) -> Heartbeat:
        misses = [node for node in self.missed if node in self.table.members]
        return Heartbeat(
            record=self.me,
            table=self.table.order,
            misses=misses,
            leads=self.leads(now_ns),
            ready=bits(self.ready),
        )

    def targets(self) -> tuple[str, ...]:
        return tuple(
            sorted((self.records.keys() | self.table.members.keys() | self.met_nodes) - {self.me.node})
        )

    def forget_strangers(self, now_ns: int) -> None:
        """Those who are no members, are not in the store, and were not heard for long."""
        self.hearing.expect(set(self.table.members) - {self.me.node}, now_ns)
        known = self.table.members.keys() | self.hearing.heard.keys() | self.store_nodes
        if now_ns - self.started_ns > FORGET * self.rules.heartbeat_ns:
            self.met_nodes &= known
            self.records = {node: record for node, record in self.records.items() if node in known}

    def answer(self, about: str, now_ns: int) -> ProbeAck:
        if about == self.me.node:
            return ProbeAck(about=about, silent_ms=0)
        if about not in self.hearing.heard:
            return ProbeAck(about=about, silent_ms=None)
        silent_ns = max(0, self.hearing.silence_ns(about, now_ns))
        return ProbeAck(about=about, silent_ms=silent_ns // 1_000_000)

    # Leading

    def seek_lease(self, now_ns: int) -> list[Action]:
        """Ask for the lease, or renew it, where this node could lead; give it back where it could not."""
        holds = now_ns < self.lease_until_ns
        may = (
            self.sees_enough(now_ns, half=not self.rules.configured)
            and now_ns >= self.resigned_until_ns
            and (self.admitted() or now_ns >= self.history.may_return_ns(self.me.node, now_ns))
        )
        if self.rules.configured:
            wins = may and leading.static_lease(
                self.me.node, self.hearing.fresh(now_ns), self.rules.configured
            )
            self.lease_until_ns = now_ns + self.rules.heartbeat_ns if wins else 0
            return []
        if not may:
            self.lease_until_ns = 0
            return [DropLease()] if holds else []
        other = self.last_leader()
        due = now_ns - self.asked_lease_ns >= self.rules.lease_renew_ns
        if holds or not self.leading_node(now_ns):
            breaks, probes = self.breaks_lease(other, now_ns) if other and not holds else (False, [])
            quick = now_ns - self.asked_lease_ns >= self.rules.heartbeat_ns // 4
            if due or (breaks and quick):
                self.asked_lease_ns = now_ns
                return [*probes, AskLease(instead_of=other if breaks else "")]
            return [*probes]
        return []

    def breaks_lease(self, holder: str, now_ns: int) -> tuple[bool, list[Send]]:
        """Whether a leader is dead for more than half of the members and a second witness; questions to find out."""
        scene = self.scene(now_ns)
        if not self.hearing.misses(holder, now_ns) or not self.sees_enough_on_time(scene, half=False):
            return False, []
        heard = [node for node in scene.members_heard() if node != holder]
        if self.me.node not in sorted(heard)[:BREAKERS_MAX]:
            return False, []
        others = set(heard) - {self.me.node}
        if set(self.leader.probing.missed_by(holder, now_ns)) & others:
            return True, []
        return False, self.leader.probing.ask(holder, others, now_ns)

    def sees_enough(self, now_ns: int, *, half: bool) -> bool:
        """Whether this node hears enough of its table to lead."""
        if not self.settled:
            return False
        seen = len(self.scene(now_ns).members_heard())
        explicit = self.rules.minority_leads and seen >= self.rules.minimum_nodes
        return not self.table.members or explicit or leading.enough(seen, len(self.table.members), half=half)

    def sees_enough_on_time(self, scene: Scene, *, half: bool) -> bool:
        """As ``sees_enough``, of those who are not even late. Of a side of the network that was just cut off, one
        member is missed before the other: who counted the others still as seen would evict them one by one, each time
        from a smaller table, until its own few were more than half."""
        table, h_ns = self.table, self.rules.heartbeat_ns
        late = {node for node in table.members if self.hearing.silence_ns(node, scene.now_ns) >= LATE * h_ns}
        seen = [node for node in scene.members_heard() if node == self.me.node or node not in late]
        explicit = self.rules.minority_leads and len(seen) >= self.rules.minimum_nodes
        return not table.members or explicit or leading.enough(len(seen), len(table.members), half=half)

    def leads(self, now_ns: int) -> bool:
        """Whether this node decides: it could at its last tick, and its lease still runs."""
        return self.deciding and now_ns < self.lease_until_ns

    def may_decide(self, now_ns: int) -> bool:
        """Whether this node may decide now."""
        return (
            now_ns < self.lease_until_ns
            and self.store_heard
            and self.sees_enough(now_ns, half=not self.rules.configured)
            and not self.behind(now_ns)
            and (self.admitted() or now_ns - self.started_ns >= self.rules.heartbeat_ns // 2)
            and not self.is_turned_away(now_ns)
        )

    def is_turned_away(self, now_ns: int) -> bool:
        """Another node lives under this id, or others do not want this one: they say so at each heartbeat. A copied
        data folder holds a table that its own id leads; it must not lead by it."""
        return bool(self.refused) and now_ns - self.refused_ns < DEAD * self.rules.heartbeat_ns

    def behind(self, now_ns: int) -> bool:
        """Somebody heard has a greater table, and it is not here yet; after 3H it is not waited for any longer."""
        newest = max((beat.table for beat in self.hearing.fresh(now_ns).values()), default=NO_TABLE.order)
        if max(newest, self.store_table) <= self.table.order:
            self.behind_since_ns = None
            return False
        if self.behind_since_ns is None:
            self.behind_since_ns = now_ns
        return now_ns - self.behind_since_ns < DEAD * self.rules.heartbeat_ns

    def last_leader(self) -> str:
        """The other node that said last that it leads, or that made the table; "" for none."""
        saying = [node for node, known in self.hearing.heard.items() if known.beat.leads]
        if saying:
            return max(saying, key=lambda node: (self.hearing.heard[node].last_ns, node))
        return self.table.leader if self.table.leader != self.me.node else ""

    def leading_node(self, now_ns: int) -> str:
        """Another node that is heard and says that it leads; "" for none."""
        return min((node for node, beat in self.hearing.fresh(now_ns).items() if beat.leads), default="")

    def scene(self, now_ns: int) -> Scene:
        said = self.hearing.fresh(now_ns)
        return Scene(now_ns, self.me, self.table, said, self.hearing, self.history)

    def decide(self, now_ns: int) -> list[Action]:
        scene = self.scene(now_ns)
        if not self.sees_enough_on_time(scene, half=not self.rules.configured):
            return []
        decision = self.leader.decide(scene)
        actions: list[Action] = [*decision.sends]
        if decision.resign:
            self.resigned_until_ns = now_ns + 2 * DEAD * self.rules.heartbeat_ns
            self.lease_until_ns = 0
            return [*actions, DropLease()]
        if decision.members is None or not self.may_sign(decision.members):
            return actions
        ready = {node: partitions_in(beat.ready) for node, beat in scene.said.items()}
        ready[self.me.node] = self.ready
        shares, self.leader.settled = leading.next_shares(
            self.table, decision.members, ready, self.rules.partitions
        )
        forgotten = leading.next_forgotten(self.table, self.leader.forgetting, decision.members)
        self.leader.forgetting.clear()
        same = decision.members == self.table.members and forgotten == self.table.forgotten
        if same and shares == (self.table.owner, self.table.standby):
            return actions
        table = leading.next_table(
            self.table,
            decision.members,
            shares,
            self.me,
            epoch=max(self.greatest_epoch, self.table.epoch),
            version=leading.common_version(decision.members, scene.records()),
            forgotten=forgotten,
        )
        told = sorted(set(self.targets()) | (self.table.members.keys() - {self.me.node}))
        actions += self.adopt(table, decision.why, now_ns)
        return [*actions, Send(tuple(told), NewTable(table=table, why=decision.why)), PutTable(table)]

    def may_sign(self, members: Mapping[str, object]) -> bool:
        """A table is made by one of its members, in its present incarnation."""
        member = members.get(self.me.node)
        return getattr(member, "incarnation", None) == self.me.incarnation

    # Tables

    def adopt(self, table: Table, why: Mapping[str, str], now_ns: int) -> list[Action]:
        """INV-CLU-1: greater ones only."""
        if table.epoch > self.greatest_epoch + EPOCH_LEAP_MAX:
            return []
        self.greatest_epoch = max(self.greatest_epoch, table.epoch)
        if not greater(table, self.table):
            return []
        before, was_admitted = self.table, self.admitted()
        self.table, self.why_gone = table, dict(why)
        self.hearing.expect(set(table.members) - {self.me.node}, now_ns)
        actions: list[Action] = [
            Happened(activity) for activity in self.history.changed(before, table, self.why_gone, now_ns)
        ]
        mine = table.members.get(self.me.node)
        if mine is not None and mine.incarnation > self.me.incarnation and was_admitted:
            return [*actions, self.keep(), *self.stop("another process is this node now")]
        if was_admitted and not self.admitted():
            reason = why.get(self.me.node, "a table without this node")
            actions += self.rejoin(self.me.incarnation, reason, now_ns)
        elif mine is not None and mine.incarnation > self.me.incarnation:
            actions += self.rejoin(mine.incarnation, "a later incarnation of this node is known", now_ns)
        if self.admitted():
            self.refused = ""
            actions += self.became_member(now_ns) if not was_admitted else []
        return [self.keep(), *actions, *self.show(now_ns)]

    def admitted(self) -> bool:
        """Whether the table names this node as it is now."""
        member = self.table.members.get(self.me.node)
        return member is not None and member.incarnation == self.me.incarnation

    def became_member(self, now_ns: int) -> list[Action]:
        self.me = msgspec.structs.replace(self.me, state=self.state())
        return [Publish(self.me), *self.beats(now_ns)]

    def rejoin(self, above: int, reason: str, now_ns: int) -> list[Action]:
        """The same process under a new incarnation; what the old one wanted is void."""
        self.me = msgspec.structs.replace(self.me, incarnation=above + 1, state="joining")
        self.lease_until_ns = 0
        dropped: list[Action] = [] if self.rules.configured else [DropLease()]
        told = self.happened("rejoins", reason, now_ns)
        return [told, *dropped, Publish(self.me), *self.beats(now_ns)]

    def state(self) -> Literal["joining", "active", "draining"]:
        if not self.admitted():
            return "joining"
        return "draining" if self.draining else "active"

    def keep(self) -> Keep:
        records = {node: self.records[node] for node in self.table.members if node in self.records}
        return Keep(Kept(incarnation=self.me.incarnation, table=self.table, records=records))

    def stop(self, reason: str) -> list[Action]:
        self.stopped = True
        self.lease_until_ns = 0
        return [Stop(reason)]

    def happened(self, event: str, reason: str, now_ns: int) -> Happened:
        return Happened(
            self.history.add(event, self.me.node, self.me.incarnation, reason, self.table.epoch, now_ns)
        )

    # The view

    def show(self, now_ns: int) -> list[Action]:
        """The view, when it is another one than before."""
        view = self.view(now_ns)
        if view == self.shown:
            return []
        self.shown = view
        return [Show(view)]

    def view(self, now_ns: int) -> View:
        why = self.why_not_viable(now_ns)
        alive = {node: beat.record for node, beat in self.hearing.fresh(now_ns).items()}
        return View(
            me=self.me.node,
            cluster_id=self.table.cluster_id,
            viable=not why,
            why=why,
            table=self.table,
            alive=alive | {self.me.node: self.me},
        )

    def why_not_viable(self, now_ns: int) -> str:
        """ "" or why this node must not begin anything new (INV-OWN-2)."""
        if self.stopped or self.leaving:
            return "this node leaves"
        if not self.admitted():
            by = self.leading_node(now_ns) or "a leader; no leader is heard"
            return self.refused or f"waiting to be admitted by {by}"
        seen, of = len(self.scene(now_ns).members_heard()), len(self.table.members)
        half = self.leads(now_ns) or bool(self.leading_node(now_ns))
        if not leading.enough(seen, of, half=half):
            return f"hears {seen} of {of} members, itself included: not more than half"
        if seen < self.rules.minimum_nodes:
            return (
                f"hears {seen} members, itself included; cluster.minimum_nodes is {self.rules.minimum_nodes}"
            )
        if not self.settled:
            return "stood still, and does not know yet what happened meanwhile"
        return ""
