"""A member in a real process: the membership's decisions (membership.py), done on sockets, disk and the store.

Everything that decides is in ``Membership``, which is pure; here is what it cannot do itself. Actions are done in their
order. What writes to the disk is done in a thread, and until ``Keep`` is durable nothing that comes after it is begun,
but heartbeats: a slow disk must not make this node look dead.

``state/member/table`` holds what must survive (``Kept``); ``run/view`` is what the other processes of the node read.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import msgspec

from headwater.cluster import clocks, status, view
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
from headwater.cluster.clocks import Change, Clocks
from headwater.cluster.history import Activity
from headwater.cluster.links import Links
from headwater.cluster.meeting import Meeting
from headwater.cluster.membership import Membership, Rules
from headwater.cluster.messages import Drain, Heartbeat, Message
from headwater.cluster.settings import ClusterSettings
from headwater.cluster.stores.port import Holder, Store
from headwater.cluster.table import FORGETTING, NodeRecord, Table, View
from headwater.kit.clock import Clock
from headwater.kit.counters import Counters
from headwater.kit.disk import Disk, make_folders, read_whole, write_whole
from headwater.kit.errors import Rejected, Unavailable
from headwater.kit.tasks import Group
from headwater.peer import address
from headwater.peer.identity import CLOCKS, Identity

SILENT_HEARTBEATS = 3
"""A connection that is silent for so long is dialled anew."""
LEAVE_POLL_S = 0.05
ACQUAINTED_MAX = 4096
RECORD_HEARTBEATS = 5
"""How long a record lives in the store without its node."""


def table_path(data: str) -> str:
    """Where ``Kept`` lies."""
    return f"{data}/state/member/table"


def read_kept(disk: Disk, path: str) -> Kept | None:
    """What was kept before; None: nothing, or nothing that can be read (the node then joins as a new one)."""
    try:
        return msgspec.msgpack.decode(read_whole(disk, path), type=Kept)
    except (FileNotFoundError, msgspec.MsgspecError):
        return None


def rules_of(settings: ClusterSettings, partitions: int, configured: int) -> Rules:
    """The membership's numbers. ``configured``: how many nodes there are in a static list; 0 with a store."""
    return Rules(
        heartbeat_ns=int(settings.heartbeat_s * 1e9),
        lease_renew_ns=int(settings.lease_renew_s * 1e9),
        minimum_nodes=settings.minimum_nodes,
        partitions=partitions,
        configured=configured,
        activity_max=settings.activity_max,
    )


def counted(peers: list[str], own: set[str], port: int) -> int:
    """How many nodes a static list makes, this one included; ``own`` are the addresses and names of this machine. The
    list is the same on every node, so it names this one too; counted twice, it would want a greater majority."""
    places = {address.dialled(peer, address.MEMBER_PORT) for peer in peers}
    return len({place for place in places if not (place[1] == port and is_own(place[0], own))}) + 1


def is_own(host: str, own: set[str]) -> bool:
    """Whether a host of a list is this machine: by its address, or as its name is resolved now."""
    if host in own:
        return True
    try:
        found = {str(one[4][0]) for one in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    except OSError:
        return False
    return not found.isdisjoint(own - {"localhost"})


class Member:
    """One node's part in the cluster, running."""

    def __init__(
        self,
        settings: ClusterSettings,
        me: NodeRecord,
        identity: Identity,
        store: Store | None,
        *,
        data: str,
        partitions: int,
        own_hosts: set[str],
        disk: Disk,
        clock: Clock,
        counters: Counters,
        group: Group,
        happened: Callable[[Activity, str], None],
    ) -> None:
        """``group`` owns the tasks; ``happened`` is told what should be in the log, with the node's name."""
        self.settings = settings
        self.data = data
        self.disk = disk
        self.clock = clock
        self.happened = happened
        self.stopped = ""
        """Why this process must end: another one is this node now."""
        port = address.parse(settings.listen, address.MEMBER_PORT).port
        configured = 0 if store is not None else counted(settings.peers, own_hosts, port)
        kept = read_kept(disk, table_path(data))
        rules = rules_of(settings, partitions, configured)
        self.core = Membership(me, rules, clock.boot_ns(), kept)
        self.group = group
        self.links = Links(
            identity,
            clock,
            counters,
            group,
            self.heard,
            self.met,
            retry_s=settings.join_retry_s,
            dial_s=settings.dial_timeout_s,
            silent_s=SILENT_HEARTBEATS * settings.heartbeat_s,
        )
        self.clocks = Clocks(settings.clock_warning_s, settings.heartbeat_s)
        self.acquainted: dict[str, NodeRecord] = {}
        """Everybody who was ever known, for the names in what is told."""
        self.meeting = None if store is None else self.meet(store, counters)
        self.waiting: asyncio.Queue[Action] = asyncio.Queue()
        self.idle = True
        """Nothing is being done that others must wait for."""

    def meet(self, store: Store, counters: Counters) -> Meeting:
        """This node's part with the store."""
        settings = self.settings
        return Meeting(
            store,
            self.clock,
            counters,
            self.seen,
            self.core.lease,
            look_s=min(settings.heartbeat_s, settings.join_retry_s),
            record_ttl_s=max(RECORD_HEARTBEATS * settings.heartbeat_s, settings.lease_ttl_s),
            lease_ttl_s=settings.lease_ttl_s,
        )

    async def start(self) -> None:
        """Listen and begin to look for others. Misconfigured: the address cannot be had."""
        make_folders(self.disk, f"{self.data}/state/member")
        self.links.rename(self.core.me.incarnation)
        await self.links.listen(self.settings.listen)
        self.group.start("actions", self.do_waiting())
        self.links.seek(self.settings.peers)
        if self.meeting is not None:
            self.group.start("store", self.meeting.run())
        self.tick()

    # -- what comes in

    def tick(self) -> None:
        """Time passed; at least eight times per heartbeat."""
        now_ns = self.clock.boot_ns()
        self.links.check(now_ns)
        self.act(self.core.tick(now_ns))
        self.acquaint()
        self.links.know(
            {node: one.member_address for node, one in self.core.records.items() if one.member_address}
        )

    def acquaint(self) -> None:
        """Remember names; the oldest are forgotten."""
        if self.acquainted.items() >= self.core.records.items():
            return
        self.acquainted |= self.core.records
        for node in list(self.acquainted)[: max(0, len(self.acquainted) - ACQUAINTED_MAX)]:
            del self.acquainted[node]

    def heard(self, node: str, message: Message) -> None:
        """A node said something."""
        if isinstance(message, Heartbeat) and message.wall_ms:
            self.clocks.heard(node, message.wall_ms, self.clock.wall_ns() // 1_000_000)
        self.act(self.core.received(node, message, self.clock.boot_ns()))

    def met(self, node: str) -> None:
        """There is a connection with a node."""
        self.act(self.core.met(node, self.clock.boot_ns()))

    def seen(self, records: dict[str, NodeRecord], table: Table | None) -> None:
        """The store said who is there."""
        self.act(self.core.store_said(table, records, self.clock.boot_ns()))

    # -- what operators want

    def order(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """``drain``, ``evict`` or ``reset``, as ops/cluster.py passes it on. Rejected, Unavailable."""
        match asked.get("op"):
            case "reset":
                return self.reset()
            case "drain":
                return self.order_drain(self.found(asked), draining=not asked.get("back", False))
            case "evict":
                return self.order_evict(self.found(asked))
            case "forget":
                return self.order_forget(asked)
        raise Rejected(f"no such order: {asked.get('op')!r}", code="order")

    def reset(self) -> dict[str, Any]:
        """Have the store forget the cluster, and everybody say anew what stands there."""
        now_ns = self.clock.boot_ns()
        if self.meeting is not None:
            self.meeting.clear()
        self.act([Publish(self.core.me), *self.core.beats(now_ns)])
        return {"reset": True, "node": self.core.me.node, "name": self.core.me.name}

    def order_drain(self, record: NodeRecord, *, draining: bool) -> dict[str, Any]:
        """Have a node hand over what it owns, or take part again."""
        if record.node == self.core.me.node:
            self.act(self.core.drain(self.clock.boot_ns(), draining))
        elif not self.links.send(record.node, Drain(draining=draining)):
            raise Unavailable(
                f"{record.name} cannot be reached",
                code="node_away",
                help="`headwater cluster evict` takes it out",
            )
        return {"node": record.node, "name": record.name, "draining": draining}

    def order_evict(self, record: NodeRecord) -> dict[str, Any]:
        """Take a node out that does not answer."""
        now_ns = self.clock.boot_ns()
        if record.node == self.core.me.node or self.core.hearing.hears(record.node, now_ns):
            raise Rejected(
                f"{record.name} is alive",
                code="node_alive",
                help="stop it, or drain it: a node that lives would join again",
            )
        if record.node not in self.core.table.members:
            raise Rejected(f"{record.name} is no member", code="node", help="nothing waits for it")
        actions = self.core.evict(record.node, "evicted by an operator", now_ns)
        if not actions:
            raise Unavailable(
                "nobody leads the cluster now", code="no_leader", help="try again in some seconds"
            )
        self.act(actions)
        return {"node": record.node, "name": record.name, "evicted": True}

    def order_forget(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Wait no more for what only a node has that is gone for good; without ``yes``, whom that would be. ``homes``:
        the ids of nodes that have accepted events and are not here."""
        node = self.gone(str(asked.get("node", "")), set(asked.get("homes", ())))
        told = {"node": node, "name": self.name_of(node)}
        if node == self.core.me.node or self.core.hearing.hears(node, self.clock.boot_ns()):
            raise Rejected(f"{told['name']} is alive", code="node_alive", help="there is nothing to forget")
        if node in self.core.table.members:
            raise Rejected(
                f"{told['name']} is a member still",
                code="node_member",
                help=f"headwater cluster evict {told['name']}, if it will not come back",
            )
        if node in self.core.table.forgotten:
            return {**told, "forgotten": True}
        if self.core.table.enabled_version < FORGETTING:
            raise Rejected(
                "some member runs a version that does not know of forgotten nodes",
                code="version",
                help="update all nodes first",
            )
        if not asked.get("yes", False):
            return {**told, "forgotten": False}
        actions = self.core.forget(node, self.clock.boot_ns())
        if not actions:
            raise Unavailable(
                "nobody leads the cluster now", code="no_leader", help="try again in some seconds"
            )
        self.act(actions)
        return {**told, "forgotten": True}

    def gone(self, wanted: str, homes: set[str]) -> str:
        """The id of the node that is to be forgotten: by its id, or by its name where that is still known. Rejected:
        none, or several."""
        known = {node: record.name for node, record in self.acquainted.items()}
        known |= {one.node: one.name for one in status.known(self.core, self.clock.boot_ns()).values()}
        known |= {node: known.get(node, node) for node in homes}
        hits = [node for node, name in known.items() if wanted in (node, name)]
        if len(hits) == 1:
            return hits[0]
        names = ", ".join(sorted(f"{known[node]} ({node})" for node in homes)) or "none"
        what = "several nodes are called" if hits else "no node is called"
        raise Rejected(f"{what} {wanted!r}", code="node", help=f"nodes that are away: {names}")

    def found(self, asked: Mapping[str, Any]) -> NodeRecord:
        """The node that an order names, by id or name. Rejected: none, or several."""
        wanted = str(asked.get("node", ""))
        known = status.known(self.core, self.clock.boot_ns())
        hits = [one for one in known.values() if wanted in (one.node, one.name)]
        if len(hits) == 1:
            return hits[0]
        names = ", ".join(sorted(f"{one.name} ({one.node})" for one in known.values()))
        what = "several nodes are called" if hits else "no node is called"
        raise Rejected(f"{what} {wanted!r}", code="node", help=f"known are {names}")

    # -- what is to be done

    def act(self, actions: list[Action]) -> None:
        """Do these in order; heartbeats need not wait for the disk."""
        for action in actions:
            match action:
                case Send(to=to, message=Heartbeat() as beat):
                    self.send_beat(to, beat)
                case Keep() | Show():
                    self.idle = False
                    self.waiting.put_nowait(action)
                case _ if self.idle:
                    self.do(action)
                case _:
                    self.waiting.put_nowait(action)

    async def do_waiting(self) -> None:
        """Actions that wait for the disk, and those behind them."""
        while True:
            action = await self.waiting.get()
            match action:
                case Keep(kept=kept):
                    await self.keep(kept)
                case Show(view=shown):
                    await self.show(shown)
                case _:
                    self.do(action)
            self.idle = self.waiting.empty()

    async def keep(self, kept: Kept) -> None:
        """Durable on return; tried again while the disk does not take it."""
        data = msgspec.msgpack.encode(kept)
        while True:
            try:
                await asyncio.to_thread(write_whole, self.disk, table_path(self.data), data)
                return
            except OSError as error:
                self.links.trouble[table_path(self.data)] = f"cannot be written: {error.strerror}"
                await self.clock.sleep(self.settings.join_retry_s)
                self.links.trouble.pop(table_path(self.data), None)

    async def show(self, shown: View) -> None:
        """The other processes see it; where the disk does not take it, the next one tells the same."""
        try:
            await asyncio.to_thread(partial(view.write, self.disk, view.view_path(self.data), shown))
        except OSError:
            self.core.shown = None

    def do(self, action: Action) -> None:
        """Anything that needs no disk."""
        match action:
            case Send(to=to, message=message):
                self.send(to, message)
            case Publish(record=record):
                self.links.rename(record.incarnation)
                if self.meeting is not None:
                    self.meeting.publish(record)
            case AskLease(instead_of=instead_of) if self.meeting is not None:
                holder = Holder(self.core.me.node, self.core.me.incarnation)
                self.meeting.ask_lease(holder, instead_of)
            case DropLease() if self.meeting is not None:
                self.meeting.drop_lease()
            case PutTable(table=table) if self.meeting is not None:
                self.meeting.put(table)
            case Stop(reason=reason):
                self.stopped = reason
            case Happened(activity=activity):
                self.happened(activity, self.name_of(activity.node))

    def send(self, to: tuple[str, ...], message: Message) -> None:
        for node in to:
            self.links.send(node, message)

    def send_beat(self, to: tuple[str, ...], beat: Heartbeat) -> None:
        """A heartbeat, with what the clock shows for those who understand it."""
        timed = msgspec.structs.replace(beat, wall_ms=max(0, self.clock.wall_ns() // 1_000_000))
        for node in to:
            self.links.send(node, timed if self.links.protocol(node) >= CLOCKS else beat)

    def clocks_ahead(self) -> dict[str, float]:
        """How far the clock of each node that is heard is ahead of most; see Clocks."""
        heard = self.core.hearing.fresh(self.clock.boot_ns())
        return self.clocks.ahead(self.core.me.node, heard.keys())

    def clock_changes(self) -> list[Change]:
        """Whose clock has become wrong or right since this was asked last."""
        return self.clocks.changes(self.clocks_ahead(), self.clock.boot_ns())

    def name_of(self, node: str) -> str:
        """A node's name, or its id where nobody ever said it."""
        if node == self.core.me.node:
            return self.core.me.name
        record = self.core.records.get(node) or self.acquainted.get(node)
        return record.name if record is not None else node

    # -- the end

    def drain(self) -> None:
        """Hand over what this node owns; it stays a member."""
        if not self.core.draining:
            self.act(self.core.drain(self.clock.boot_ns()))

    def owns_nothing(self) -> bool:
        """Whether leaving takes nothing with it: others have its partitions, or there are no others."""
        others = self.core.hearing.fresh(self.clock.boot_ns())
        return not others or not self.core.admitted() or not self.core.table.owned_by(self.core.me.node)

    async def leave(self, within_s: float) -> None:
        """Drain, wait until the table gives this node nothing any more, say goodbye, let go of everything."""
        self.drain()
        until_ns = self.clock.boot_ns() + int(within_s * 1e9)
        while not self.owns_nothing() and self.clock.boot_ns() < until_ns:
            await self.clock.sleep(LEAVE_POLL_S)
            self.tick()
        self.act(self.core.leave(self.clock.boot_ns()))
        while not self.idle and self.clock.boot_ns() < until_ns:
            await self.clock.sleep(LEAVE_POLL_S)
        if self.meeting is not None:
            await self.meeting.close(leaves=True)
        await self.links.close()

    # -- what it says

    def page(self) -> dict[str, Any]:
        """For status."""
        store = self.meeting.trouble if self.meeting is not None else ""
        ahead, limit_s = self.clocks_ahead(), self.settings.clock_warning_s
        wrong = sorted(self.clocks.wrong & ahead.keys(), key=self.name_of)
        return status.page(
            self.core,
            self.settings.name,
            self.acquainted,
            self.links.trouble,
            [store] if store else [],
            self.clock.boot_ns(),
            self.clock.wall_ns(),
            ahead,
            [clocks.words(self.name_of(node), ahead[node], limit_s) for node in wrong],
        )

    def mark(self) -> object:
        """Another one when the page says something else than before, but for how long ago things were."""
        core, store = self.core, self.meeting.trouble if self.meeting is not None else ""
        last = core.history.entries[-1] if core.history.entries else None
        return core.shown, last, core.me, store, tuple(self.links.trouble.items())

    def held(self) -> list[int]:
        """For the control page."""
        return list(status.held(self.core, self.clock.boot_ns()))


def own_hosts(settings: ClusterSettings) -> set[str]:
    """The addresses of this machine, as they may stand in a list of peers; also the one that others dial."""
    found = {one for interface in address.machine_interfaces() for one in interface.addresses}
    return found | {"localhost", socket.gethostname(), *([settings.advertise] if settings.advertise else [])}
