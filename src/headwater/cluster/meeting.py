"""The member process's part with the coordination store: calls one after the other, answers to the membership.

The store may be away for any length of time: each call ends by itself (stores/port.py), nobody waits for one but the
task here, and what is asked for meanwhile is done once when it is back (the newest table, the newest record). What it
says is told to ``seen`` and ``leased``; what goes wrong stands in ``trouble``, for status.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from headwater.cluster import table
from headwater.cluster.stores.port import Holder, Lease, Store
from headwater.cluster.table import NodeRecord, Table
from headwater.kit.clock import Clock
from headwater.kit.counters import Counters
from headwater.kit.errors import HeadwaterError, Rejected

Seen = Callable[[dict[str, NodeRecord], Table | None], None]
Leased = Callable[[int], None]
"""Until when this node holds the lease (boot ns), 0: it does not."""


class Meeting:
    """One node at its store."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        counters: Counters,
        seen: Seen,
        leased: Leased,
        *,
        look_s: float,
        record_ttl_s: float,
        lease_ttl_s: float,
    ) -> None:
        """``look_s``: between two looks at who is there."""
        self.store = store
        self.clock = clock
        self.counters = counters
        self.seen = seen
        self.leased = leased
        self.look_s = look_s
        self.record_ttl_s = record_ttl_s
        self.lease_ttl_s = lease_ttl_s
        self.record: NodeRecord | None = None
        self.fresh = False
        """The record has to be written whole."""
        self.table: Table | None = None
        """To be put."""
        self.wants_lease: Holder | None = None
        self.instead_of = ""
        self.drops_lease = False
        self.clears = False
        self.lease: Lease | None = None
        self.looked_ns = 0
        self.failing_ns = 0
        self.trouble = "the coordination store has not answered yet"
        self.wake = asyncio.Event()

    # -- what is asked for; done by ``run``

    def publish(self, record: NodeRecord) -> None:
        """Have this record in the store from now on."""
        self.record, self.fresh = record, True
        self.wake.set()

    def ask_lease(self, holder: Holder, instead_of: str = "") -> None:
        """Get or renew the lease; the answer goes to ``leased``. ``instead_of``: a node that is dead; where it has the
        lease, it is taken from it."""
        self.wants_lease, self.instead_of = holder, instead_of
        self.wake.set()

    def drop_lease(self) -> None:
        """Give it back."""
        self.wants_lease, self.drops_lease = None, True
        self.wake.set()

    def put(self, newest: Table) -> None:
        """Have this table in the store."""
        self.table = newest
        self.wake.set()

    def clear(self) -> None:
        """Forget what the store holds of this cluster, and say it again."""
        self.clears = True
        self.wake.set()

    # -- what is done

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self.turn()
            try:
                async with asyncio.timeout(self.look_s):
                    await self.wake.wait()
            except TimeoutError:
                pass

    async def turn(self) -> None:
        """Everything that is to be done now, the lease first; nothing after a call that failed."""
        self.wake.clear()
        for step in (self.clear_step, self.lease_step, self.record_step, self.table_step, self.look_step):
            if not await self.tried(step):
                return

    async def tried(self, step: Callable[[], Awaitable[None]]) -> bool:
        """Whether a step went through."""
        try:
            await step()
        except HeadwaterError as error:
            self.failing_ns = self.failing_ns or self.clock.boot_ns()
            self.trouble = f"{self.store.place}: {error.message}"
            self.counters.add("headwater_cluster_store_errors_total", code=error.code)
            return False
        self.failing_ns, self.trouble = 0, ""
        return True

    async def clear_step(self) -> None:
        if self.clears:
            await self.store.clear()
            self.clears, self.fresh, self.lease = False, True, None

    async def lease_step(self) -> None:
        """The holder may act for so long after the *beginning* of the call that got the lease."""
        holder = self.wants_lease
        old = self.lease is not None and holder is not None and self.lease.holder != holder
        if self.drops_lease or old:
            self.drops_lease = False
            if self.lease is not None:
                lease, self.lease = self.lease, None
                await self.store.release(lease)
        if holder is None:
            return
        self.wants_lease = None
        began_ns = self.clock.boot_ns()
        if self.lease is None or not await self.store.renew(self.lease, self.lease_ttl_s):
            if self.instead_of:
                await self.store.depose(self.instead_of)
            began_ns = self.clock.boot_ns()
            self.lease = await self.store.acquire(holder, self.lease_ttl_s)
        self.leased(began_ns + int(self.lease.valid_s * 1e9) if self.lease is not None else 0)

    async def record_step(self) -> None:
        record = self.record
        if record is None:
            return
        if self.fresh or not await self.store.beat(record.node, self.record_ttl_s):
            await self.store.put_node(record.node, table.encode(record), self.record_ttl_s)
            self.fresh = self.record is not record

    async def table_step(self) -> None:
        newest = self.table
        if newest is not None:
            await self.store.put_table(newest.epoch, table.encode(newest))
            if self.table is newest:
                self.table = None

    async def look_step(self) -> None:
        """Who is there, and the newest table that anybody put; at most once per ``look_s``."""
        now_ns = self.clock.boot_ns()
        if now_ns - self.looked_ns < self.look_s * 1e9:
            return
        self.looked_ns = now_ns
        records = await self.store.nodes()
        stored = await self.store.table()
        self.seen(
            {node: record for node, data in records.items() if (record := self.read_record(node, data))},
            self.read_table(stored.table) if stored is not None else None,
        )

    def read_record(self, node: str, data: bytes) -> NodeRecord | None:
        """A record that is one, of the node under whose name it stands."""
        try:
            record = table.decode(data, NodeRecord)
        except Rejected:
            record = None
        if record is None or record.node != node:
            self.counters.add("headwater_cluster_store_errors_total", code="bad_noderecord")
            return None
        return record

    def read_table(self, data: bytes) -> Table | None:
        """A table that is one."""
        try:
            return table.decode(data, Table)
        except Rejected:
            self.counters.add("headwater_cluster_store_errors_total", code="bad_table")
            return None

    async def close(self, *, leaves: bool) -> None:
        """Let go; with ``leaves`` this node's record and lease go at once, as far as the store answers."""
        if leaves and self.record is not None:
            try:
                if self.lease is not None:
                    await self.store.release(self.lease)
                await self.store.remove_node(self.record.node)
            except HeadwaterError:
                pass  # both expire by themselves
        await self.store.close()
