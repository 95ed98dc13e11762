"""How producers find the consumers of a topic: through a coordination store, which no event ever passes (seed 001).

::

    store = discovery.store_of(StoreSettings(url="redis://…"), "shop", "clicks")

    async with discovery.Member("clicks", identity, store) as member:        # in each consumer
        channel = InboundChannel("clicks", identity, member.directory, count)
        listener = await connection.listen("tcp://[_site_]:7512", identity, channel.serve)
        await member.join(listener.address)                                  # from now on it is given slots
        ...
        await member.leave(10.0)                                             # others own its slots now

    async with discovery.Watch("clicks", identity, store) as watch:          # in each producer
        async with OutboundChannel("clicks", identity, watch.directory) as clicks:

Each consumer keeps a record in the store that lives ``record_ttl_s``; one of them holds the lease and writes the
table (shares.py) when a consumer comes, goes or is no longer heard. Everybody looks every ``look_s``, so a consumer
that died is out of the table within ``record_ttl_s`` + ``look_s``, two of them where it was the leader.

The store is needed for changes only. While it is away, for any time, all go on with the table that they have (M5):
connections break and heal, but who joins gets nothing, and slots of a consumer that dies wait. A store that comes back
empty or older is told everything again; nobody is left out for what it forgot until twice ``record_ttl_s`` has
passed. A consumer that stood still for longer than ``record_ttl_s`` (SIGSTOP, a blocked event loop) owns nothing until
the store has told it what became of its slots (C6); with ``strict`` also one that cannot reach the store for so long.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

import msgspec

from headwater.cluster.channels import shares
from headwater.cluster.channels.shares import Record, TopicTable
from headwater.cluster.channels.topic import Directory
from headwater.cluster.stores import registry
from headwater.cluster.stores.port import Holder, Lease, Store
from headwater.cluster.stores.settings import StoreSettings
from headwater.kit import tasks
from headwater.kit.errors import HeadwaterError, Lost, Misconfigured, Rejected
from headwater.peer.connection import Identity

TICKS = 20
"""So often within a record's time to live a consumer notices that it runs."""

LEAVE_LOOK_S = 0.02
NOBODY = Directory(0, (), {})


class DiscoverySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How consumers are found. The same for all consumers of a topic."""

    record_ttl_s: float = 5.0
    """A consumer that the store has not heard for so long is out, seconds (M2)."""
    look_s: float = 0.5
    """Between two looks at the store, seconds; a new table is used within a second (M6)."""
    strict: bool = False
    """A consumer that cannot reach the store for `record_ttl_s` processes nothing more. Off: it goes on (M5)."""

    def __post_init__(self) -> None:
        if not 0.02 <= self.look_s * 3 <= self.record_ttl_s <= 3600:
            raise ValueError(
                "record_ttl_s: expected at least three times look_s and at most 3600,"
                f" got {self.record_ttl_s} with look_s {self.look_s}"
            )


def store_of(settings: StoreSettings, cluster: str, topic: str) -> Store:
    """The place of a topic in a store. Close it when nobody uses it any more."""
    return registry.make(settings, f"{cluster}.{topic}")


class Watch:
    """What a producer knows of the consumers: the newest table that the store showed. A context manager."""

    def __init__(
        self, topic: str, identity: Identity, store: Store, settings: DiscoverySettings | None = None
    ) -> None:
        self.topic = topic
        self.identity = identity
        self.clock = identity.clock
        self.store = store
        self.settings = settings or DiscoverySettings()
        self.stored: TopicTable | None = None
        """What the store showed last."""
        self.table: TopicTable | None = None
        """The newest that it ever showed."""
        self.newest = NOBODY
        self.trouble = "the coordination store has not answered yet"
        """Why the store's last answer is none; empty: all is well. Holds no secret."""
        self.answered_ns = self.clock.boot_ns()
        self.group = tasks.Group(f"discovery of {topic}", self.failed)

    async def __aenter__(self) -> Self:
        await self.group.__aenter__()
        await self.turn()
        self.group.start("look", self.run())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.group.__aexit__(kind, error, trace)

    def directory(self) -> Directory:
        """For ``OutboundChannel``."""
        return self.newest

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self.clock.sleep(self.settings.look_s)
            await self.turn()

    async def turn(self) -> None:
        """One look; what goes wrong stands in ``trouble``."""
        try:
            await self.look()
        except HeadwaterError as error:
            if isinstance(error, Lost):
                raise
            self.trouble = f"{self.store.place}: {error.message}"
            self.count(error.code)
            self.in_trouble()
        else:
            self.trouble = ""
            self.answered_ns = self.clock.boot_ns()

    async def look(self) -> None:
        """Read the table."""
        stored = await self.store.table()
        self.stored = self.read(stored.table, TopicTable) if stored is not None else None
        if self.stored is not None:
            self.adopt(self.stored)

    def adopt(self, table: TopicTable) -> None:
        """Use a table that is not older. Of two with one epoch the store's counts, which is the same for all."""
        if self.table is None or (table.epoch >= self.table.epoch and table != self.table):
            self.table = table
            self.newest = table.directory()

    def read(self, data: bytes, kind: type[shares.T]) -> shares.T | None:
        """What stands in the store, if it is what it should be."""
        try:
            return shares.decode(data, kind)
        except Rejected as error:
            self.count(error.code)
            return None

    def count(self, code: str) -> None:
        self.identity.counters.add("headwater_channel_store_errors_total", code=code)

    def in_trouble(self) -> None:
        """The store did not answer."""

    def failed(self, owner: str, name: str, error: BaseException) -> None:
        """The owner gets the error."""


class Member(Watch):
    """A consumer among the others of its topic."""

    def __init__(
        self,
        topic: str,
        identity: Identity,
        store: Store,
        settings: DiscoverySettings | None = None,
        *,
        weight: int = 1,
        zone: str = "",
    ) -> None:
        super().__init__(topic, identity, store, settings)
        self.weight = weight
        self.zone = zone
        self.record: Record | None = None
        """What others shall know of this consumer; None before ``join``."""
        self.published: Record | None = None
        self.heard: dict[str, Record] = {}
        """As their records were last."""
        self.lease: Lease | None = None
        self.leads_until_ns = 0
        self.unsure_until_ns = 0
        """Until then a record that is not there may have been forgotten by the store."""
        self.ticked_ns = self.clock.boot_ns()
        self.fenced_ns = 0
        """When it was seen that this process stood still; 0: nothing is to be asked about that."""
        self.alone = asyncio.Lock()
        """One turn at a time: ``join`` and ``leave`` do not wait for the next look."""
        self.doubt()

    @property
    def ttl_ns(self) -> int:
        return int(self.settings.record_ttl_s * 1e9)

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        self.group.start("tick", self.tick())
        return self

    async def join(self, address: str) -> None:
        """Be given slots, at this address (that of the listener). Slots come with the next table; where the store is
        away, when it is back.

        Misconfigured: others cannot use the address."""
        try:
            self.record = Record(
                node=self.identity.node, incarnation=self.identity.incarnation, address=address,
                weight=self.weight, zone=self.zone,
            )  # fmt: skip
        except ValueError as error:
            raise Misconfigured(
                f"cannot join the topic {self.topic}: {error}",
                code="channel_record",
                help="listen on an address that producers reach, such as tcp://[_site_:ipv4]:7512",
            ) from error
        await self.turn()

    async def leave(self, deadline_s: float) -> bool:
        """Give the slots to the others and go; True: somebody owns all that was ours, or nobody is left. Events that
        come meanwhile are refused, and go to their new owners."""
        if self.record is None:
            return True
        async with self.alone:
            self.record = msgspec.structs.replace(self.record, state="draining")
        try:
            async with asyncio.timeout(deadline_s):
                while self.identity.node in self.newest.owner:
                    await self.turn()
                    await self.clock.sleep(LEAVE_LOOK_S)
        except TimeoutError:
            pass
        try:
            async with self.alone, asyncio.timeout(self.settings.record_ttl_s):
                self.record = None
                if self.lease is not None:
                    lease, self.lease, self.leads_until_ns = self.lease, None, 0
                    await self.store.release(lease)
                await self.store.remove_node(self.identity.node)
        except (HeadwaterError, TimeoutError):
            pass  # both expire by themselves
        return self.identity.node not in self.newest.owner

    def directory(self) -> Directory:
        """For ``InboundChannel``: without owners while it is not known what is still ours (C6)."""
        cut_off = self.settings.strict and self.clock.boot_ns() - self.answered_ns > self.ttl_ns
        if cut_off or self.fenced_ns or self.stood_still():
            return Directory(self.newest.epoch, (), self.newest.nodes)
        return self.newest

    # -- what is done at each look -------------------------------------------------------------------------------------

    async def turn(self) -> None:
        async with self.alone:
            await super().turn()

    async def look(self) -> None:
        """Publish the record, hold or get the lease, read all, decide."""
        began_ns = self.clock.boot_ns()
        if self.record is not None:
            await self.publish(self.record)
            await self.seek_lease()
        await super().look()
        records = await self.records()
        self.check_alone(records)
        if self.record is not None:
            self.record = msgspec.structs.replace(self.record, epoch=self.newest.epoch)
            if self.leads_until_ns > self.clock.boot_ns():
                await self.decide(records)
        if began_ns > self.fenced_ns:
            self.fenced_ns = 0

    async def publish(self, record: Record) -> None:
        """Have the record in the store, above one that a former process left there."""
        ttl_s = self.settings.record_ttl_s
        if self.published is None:
            former = (await self.records()).get(record.node)
            if former is not None and former.incarnation >= record.incarnation:
                record = msgspec.structs.replace(record, incarnation=former.incarnation + 1)
                self.record = record
        elif record == self.published:
            if await self.store.beat(record.node, ttl_s):
                return
            self.doubt()
        await self.store.put_node(record.node, shares.encode(record), ttl_s)
        self.published = record

    async def seek_lease(self) -> None:
        """Whoever has it may act on it for so long after the beginning of the call."""
        began_ns = self.clock.boot_ns()
        ttl_s = self.settings.record_ttl_s
        if self.lease is None or not await self.store.renew(self.lease, ttl_s):
            began_ns = self.clock.boot_ns()
            assert self.record is not None
            self.lease = await self.store.acquire(Holder(self.record.node, self.record.incarnation), ttl_s)
        self.leads_until_ns = began_ns + int(self.lease.valid_s * 1e9) if self.lease is not None else 0

    async def records(self) -> dict[str, Record]:
        """All consumers that the store has heard lately."""
        found = {}
        for node, data in (await self.store.nodes()).items():
            record = self.read(data, Record)
            if record is not None and record.node == node:
                found[node] = record
        self.heard |= found
        return found

    def check_alone(self, records: dict[str, Record]) -> None:
        """Lost: a newer process has this consumer's name."""
        other = records.get(self.identity.node)
        if self.published is None or other is None or other.incarnation <= self.published.incarnation:
            return
        self.record, self.newest = None, Directory(self.newest.epoch, (), {})
        raise Lost(
            f"another consumer of {self.topic} has the name {self.identity.node}, at {other.address}",
            code="channel_node_taken",
            help="give each process a node id of its own",
        )

    async def decide(self, records: dict[str, Record]) -> None:
        """As the leader: put the next table where one is due."""
        if self.clock.boot_ns() < self.unsure_until_ns and self.table is not None:
            records = {node: self.remembered(node) for node in self.table.nodes} | records
        self.heard = dict(records)
        first_epoch = self.clock.wall_ns() // 1_000_000
        table = shares.next_table(self.table, records, self.identity.node, first_epoch) or self.table
        if (
            table is not None
            and table != self.stored
            and await self.store.put_table(table.epoch, shares.encode(table))
        ):
            self.adopt(table)

    def remembered(self, node: str) -> Record:
        """A consumer of the table whose record may only have been forgotten."""
        assert self.table is not None
        return self.heard.get(node) or Record(node=node, incarnation=0, address=self.table.nodes[node])

    # -- trouble -------------------------------------------------------------------------------------------------------

    def in_trouble(self) -> None:
        self.doubt()

    def doubt(self) -> None:
        """What is not in the store may have been forgotten by it: for two times to live, since others notice later
        than we do that it is back."""
        self.unsure_until_ns = self.clock.boot_ns() + 2 * self.ttl_ns

    async def tick(self) -> None:
        """Notice a stand-still."""
        while True:
            self.notice()
            await self.clock.sleep(self.settings.record_ttl_s / TICKS)

    def notice(self) -> None:
        """It runs; if it did not for long, somebody else may own its slots by now."""
        now_ns = self.clock.boot_ns()
        if self.stood_still():
            self.fenced_ns = now_ns
        self.ticked_ns = now_ns

    def stood_still(self) -> bool:
        return self.clock.boot_ns() - self.ticked_ns > self.ttl_ns
