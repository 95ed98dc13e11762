"""Nodes that are members of a cluster, on a simulated network with a simulated store; only ``Membership`` is real.

A world of its own instead of kit's loop: what is tried here has no coroutines, and a history has ten thousands of small
steps. Everything is drawn from the simulation's seed. What it does to nodes: kill, restart (with what was kept), stop
and go on, other wall clocks; to the network: cuts in one or both directions, lost and late messages; to the store:
outages, failovers that lose the last writes (then a lease is held twice), an empty one.
"""

from __future__ import annotations

import heapq
from collections import Counter, deque
from collections.abc import Callable
from typing import Any

import msgspec

from headwater.cluster import actions as acts
from headwater.cluster.membership import Membership, Rules
from headwater.cluster.messages import Heartbeat, NewTable
from headwater.cluster.table import NO_TABLE, NodeRecord, Table, View
from headwater.kit.simulate.run import Simulation

SECOND = 1_000_000_000
TICK_NS = SECOND // 4
LEASE_TTL_NS = 10 * SECOND
POLL_NS = 3 * SECOND


def node_id(number: int) -> str:
    return f"{number + 1:012x}0000"


class Node:
    """A machine with a data folder. ``life`` counts processes: what was meant for an earlier one is lost."""

    def __init__(self, world: World, number: int) -> None:
        self.world = world
        self.number = number
        self.id = node_id(number)
        self.address = f"10.0.0.{number}:7510"
        self.kept: acts.Kept | None = None
        self.life = 0
        self.alive = False
        self.paused = False
        self.resumed_ns = -(1 << 62)
        self.waiting: deque[Callable[[], None]] = deque()
        self.clock_ns = world.random.randrange(1_000_000 * SECOND)
        self.wall_ms = 1_800_000_000_000
        self.view: View | None = None
        self.activity: list[Any] = []
        self.membership: Membership = None  # type: ignore[assignment]
        self.lease_real_ns = 0
        """Until when its last lease from the store runs, by true time."""
        self.delivered: dict[str, int] = {}
        """When this process last got a heartbeat of each other."""
        self.missed: dict[str, int] = {}
        """When a long silence of each other ended."""
        self.epoch_heard = 0
        self.ready_once: set[int] = set()
        """Partitions whose state it ever had as their standby."""
        self.stopped_for = ""

    def now_ns(self) -> int:
        return self.world.now_ns + self.clock_ns

    def start(self) -> None:
        self.life += 1
        self.alive, self.paused, self.stopped_for = True, False, ""
        self.waiting.clear()
        self.missed = {}
        self.delivered, self.epoch_heard, self.lease_real_ns, self.view = {}, 0, 0, None
        record = NodeRecord(
            node=self.id,
            name=f"n{self.number}",
            incarnation=self.wall_ms + self.world.now_ns // 1_000_000,
            member_address=self.address,
            zone=self.world.zones[self.number % len(self.world.zones)],
        )
        self.membership = self.world.make(record, self.world.rules, self.now_ns(), self.kept)
        self.world.after(self.world.random.randrange(TICK_NS), self.guarded(self.tick_on))
        self.world.after(self.world.random.randrange(SECOND // 2), self.guarded(self.poll_on))

    def kill(self) -> None:
        self.alive = False
        self.life += 1

    def guarded(self, work: Callable[[], None]) -> Callable[[], None]:
        """Only in this life; later, while the process is stopped."""
        life = self.life

        def run() -> None:
            if self.life != life:
                return
            if self.paused:
                self.waiting.append(run)
            else:
                work()

        return run

    def resume(self) -> None:
        """What waited in the kernel comes now, before or behind the first tick."""
        if not self.paused:
            return
        self.paused, self.resumed_ns = False, self.world.now_ns
        waiting, self.waiting = list(self.waiting), deque()
        if self.world.random.random() < 0.5:
            self.tick()
        for work in waiting:
            work()

    def tick_on(self) -> None:
        self.tick()
        self.world.after(TICK_NS, self.guarded(self.tick_on))

    def tick(self) -> None:
        if self.alive:
            self.membership.ready = frozenset(self.membership.table.standby_of(self.id))
            self.ready_once |= self.membership.ready
            self.do(self.membership.tick(self.now_ns()))

    def poll_on(self) -> None:
        self.world.store_read(self)
        self.world.after(POLL_NS, self.guarded(self.poll_on))

    def got(self, sender: str, message: Any) -> None:
        if isinstance(message, Heartbeat):
            if self.world.oracle.long(self.world.now_ns - self.delivered.get(sender, -(1 << 62))):
                self.missed[sender] = self.world.now_ns
            self.delivered[sender] = self.world.now_ns
            self.epoch_heard = max(self.epoch_heard, message.table[0])
        elif isinstance(message, NewTable):
            self.epoch_heard = max(self.epoch_heard, message.table.epoch)
        self.do(self.membership.received(sender, message, self.now_ns()))

    def do(self, actions: list[acts.Action]) -> None:
        for action in actions:
            match action:
                case acts.Send():
                    self.world.send(self, action.to, action.message)
                case acts.Keep():
                    self.kept = action.kept
                case acts.Show():
                    self.view = action.view
                    self.world.oracle.shown(self, action.view)
                case acts.Publish():
                    self.world.store_publish(self, action.record)
                case acts.AskLease():
                    self.world.ask_lease(self, action.instead_of)
                case acts.DropLease():
                    self.lease_real_ns = 0
                    self.world.drop_lease(self)
                case acts.PutTable():
                    self.world.put_table(self, action.table)
                case acts.Stop():
                    self.stopped_for = action.reason
                    self.kill()
                    return
                case acts.Happened():
                    self.activity.append(action.activity)
                    self.world.met[action.activity.event] += 1
        self.world.oracle.look(self)


class Stored:
    """What the store holds; copied whole for failovers."""

    def __init__(self) -> None:
        self.holder = ""
        self.until_ns = 0
        self.table: Table | None = None
        self.records: dict[str, tuple[NodeRecord, int]] = {}

    def copy(self) -> Stored:
        other = Stored()
        other.holder, other.until_ns, other.table = self.holder, self.until_ns, self.table
        other.records = dict(self.records)
        return other


class World:
    """Everything; ``step`` lets the next thing happen."""

    def __init__(
        self,
        sim: Simulation,
        count: int,
        *,
        rules: Rules | None = None,
        make: Callable[..., Membership] = Membership,
        zones: tuple[str, ...] = ("",),
        store: bool = True,
        node: type[Node] = Node,
    ) -> None:
        from tests.simulation.member_oracle import Oracle

        self.sim = sim
        self.random = sim.random
        self.make = make
        self.rules = rules or Rules(partitions=16, configured=0 if store else count)
        self.zones = zones
        self.events: list[tuple[int, int, Callable[[], None]]] = []
        self.count = 0
        self.now_ns = 0
        self.cuts: set[tuple[str, str]] = set()
        self.lossy = 0.0
        self.latency_ns = (SECOND // 5_000, SECOND // 100)
        self.arrives_ns: dict[tuple[str, str], int] = {}
        self.has_store = store
        self.store_up = store
        self.can_break = True
        """Whether the store lets a lease be taken from a holder that is dead."""
        self.stored = Stored()
        self.backups: deque[Stored] = deque(maxlen=20)
        self.messages: Counter[str] = Counter()
        self.met: Counter[str] = Counter()
        self.oracle = Oracle(self)
        self.nodes = [node(self, number) for number in range(count)]
        self.by_id = {node.id: node for node in self.nodes}
        if store:
            self.after(SECOND, self.back_up)

    def after(self, delay_ns: int, work: Callable[[], None]) -> None:
        self.count += 1
        heapq.heappush(self.events, (self.now_ns + delay_ns, self.count, work))

    def run(self, seconds: float, until: Callable[[], bool] | None = None) -> bool:
        """Let time pass; ``until`` is asked each 100 ms. False: it did not come true."""
        end, asked = self.now_ns + round(seconds * SECOND), self.now_ns
        while self.events and self.events[0][0] <= end:
            at, _, work = heapq.heappop(self.events)
            self.now_ns = at
            work()
            if until is not None and at - asked > SECOND // 10:
                asked = at
                if until():
                    return True
        self.now_ns = end
        return until() if until is not None else True

    # The network

    def send(self, sender: Node, to: tuple[str, ...], message: Any) -> None:
        self.messages[type(message).__name__] += len(to)
        for other in to:
            if not self.lossy or self.random.random() >= self.lossy:
                self.send_one(sender, other, message)

    def send_one(self, sender: Node, to: str, message: Any) -> None:
        """In order per direction, as on one connection."""
        node = self.by_id.get(to)
        if node is None or not node.alive:
            return
        way = (sender.id, to)
        least, most = self.latency_ns
        at = max(self.now_ns + self.random.randrange(least, most), self.arrives_ns.get(way, 0))
        self.arrives_ns[way] = at

        def deliver() -> None:
            if way not in self.cuts:
                node.got(sender.id, message)

        self.after(at - self.now_ns, node.guarded(deliver))

    def connect_everybody(self) -> None:
        """Without a store: the list of peers, dialled again and again."""

        def greet() -> None:
            for node in self.nodes:
                for other in self.nodes:
                    reach = (node.id, other.id) not in self.cuts and (other.id, node.id) not in self.cuts
                    if node.alive and other.alive and not node.paused and node is not other and reach:
                        node.do(node.membership.met(other.id, node.now_ns()))
            self.after(SECOND, greet)

        self.after(0, greet)

    # The store

    def back_up(self) -> None:
        self.backups.append(self.stored.copy())
        self.after(SECOND, self.back_up)

    def reaches_store(self, node: Node) -> bool:
        return self.store_up and (node.id, "store") not in self.cuts

    def call_store(self, node: Node, work: Callable[[], Callable[[], None] | None]) -> None:
        """A round trip; what ``work`` returns is done on the node when the answer comes."""
        if not self.has_store:
            return
        there, back = (self.random.randrange(*self.latency_ns) for _ in range(2))

        def arrive() -> None:
            if self.reaches_store(node):
                answer = work()
                if answer is not None:
                    self.after(back, node.guarded(answer))

        self.after(there, arrive)

    def ask_lease(self, node: Node, instead_of: str) -> None:
        asked = self.now_ns
        self.messages["AskLease"] += 1

        def work() -> Callable[[], None]:
            stored = self.stored
            dead = instead_of if self.can_break else ""
            free = self.now_ns >= stored.until_ns or stored.holder in (node.id, dead)
            if free:
                stored.holder, stored.until_ns = node.id, self.now_ns + LEASE_TTL_NS

            def answer() -> None:
                node.lease_real_ns = asked + LEASE_TTL_NS if free else 0
                node.membership.lease(asked + LEASE_TTL_NS + node.clock_ns if free else 0)

            return answer

        self.call_store(node, work)

    def drop_lease(self, node: Node) -> None:
        def work() -> None:
            if self.stored.holder == node.id:
                self.stored.until_ns = 0

        self.call_store(node, work)

    def put_table(self, node: Node, table: Table) -> None:
        def work() -> None:
            if self.stored.table is None or table.epoch > self.stored.table.epoch:
                self.stored.table = table

        self.call_store(node, work)

    def store_publish(self, node: Node, record: NodeRecord) -> None:
        def work() -> None:
            self.stored.records[node.id] = (record, self.now_ns + LEASE_TTL_NS)

        self.call_store(node, work)

    def store_read(self, node: Node) -> None:
        def work() -> Callable[[], None]:
            stored = self.stored
            record = node.membership.me
            stored.records[node.id] = (record, self.now_ns + LEASE_TTL_NS)
            table = stored.table
            records = {n: r for n, (r, until) in stored.records.items() if until > self.now_ns}

            def answer() -> None:
                node.epoch_heard = max(node.epoch_heard, table.epoch if table else 0)
                node.do(node.membership.store_said(table, records, node.now_ns()))

            return answer

        self.call_store(node, work)

    def fail_over(self, seconds: int) -> None:
        """The replica that takes over lacks the last writes."""
        if len(self.backups) > seconds:
            self.stored = self.backups[-1 - seconds].copy()

    def empty_store(self) -> None:
        self.stored = Stored()

    # What tests ask

    def running(self) -> list[Node]:
        return [node for node in self.nodes if node.alive]

    def agreed(self) -> bool:
        """Everybody who runs has one table that names exactly those who run, and may act under it."""
        running = self.running()
        if not running or any(node.paused for node in running):
            return False
        table = running[0].membership.table
        return (
            table is not NO_TABLE
            and len(table.members) == len(running)
            and all(
                node.membership.table.order == table.order
                and node.view is not None
                and node.view.viable
                and node.id in table.members
                for node in running
            )
        )

    def settled(self) -> bool:
        """Agreed, and everybody owns its share: state has gone where it shall be."""
        if not self.agreed():
            return False
        table = self.running()[0].membership.table
        counts = [table.owner.count(one) for one, m in table.members.items() if m.state == "active"]
        return max(counts, default=0) - min(counts, default=0) <= 1

    def members_of(self, node: Node) -> set[int]:
        return {self.by_id[one].number for one in node.membership.table.members}

    def cut(self, one: Node | str, other: Node | str, *, one_way: bool = False) -> None:
        a, b = (end if isinstance(end, str) else end.id for end in (one, other))
        self.cuts.add((a, b))
        if not one_way:
            self.cuts.add((b, a))

    def split(self, *groups: set[int]) -> None:
        for node in self.nodes:
            for other in self.nodes:
                if not any({node.number, other.number} <= group for group in groups) and node is not other:
                    self.cuts.add((node.id, other.id))

    def heal(self) -> None:
        self.cuts.clear()
        self.lossy = 0.0
        self.latency_ns = (SECOND // 5_000, SECOND // 100)


def table_bytes(table: Table) -> bytes:
    return msgspec.msgpack.encode(table, order="deterministic")
