"""The store in ZooKeeper, below the chroot, which is made when missing::

    /headwater/<cluster>/nodes/<node>    record, ephemeral
    /headwater/<cluster>/leader          `<node id> <incarnation> <token>`, ephemeral
    /headwater/<cluster>/table           epoch (8 bytes, big endian), table
    /headwater/<cluster>/configuration
    /headwater/<cluster>/locks/<name>    token, ephemeral

What expires elsewhere is ephemeral here: it ends with this process's session, or with its time to live, whichever is
first (session.py). A lease is renewed by *writing* it: a server that was cut off from the others could answer a read
for a while. Its holder trusts it two thirds of the session timeout at most (protocol.md §9). Every change compares the
version that it read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, TypeVar

from kazoo import exceptions
from kazoo.client import KazooClient

from headwater.cluster.stores.port import (
    Holder,
    Lease,
    Lock,
    StoredTable,
    checked_epoch,
    checked_name,
    checked_ttl_ms,
    checked_value,
    holder_in,
    holder_text,
)
from headwater.cluster.stores.settings import StoreSettings
from headwater.cluster.stores.zookeeper.errors import DRIVER, translated
from headwater.cluster.stores.zookeeper.session import Session
from headwater.kit.clock import Clock
from headwater.kit.errors import Unavailable
from headwater.kit.rng import Rng

T = TypeVar("T")
TOKEN_BYTES = 16
EPOCH_BYTES = 8
TRIES = 4
"""Somebody else may change a node between our read and our write; so often it is read again."""
CHANGED = (exceptions.BadVersionError, exceptions.NodeExistsError, exceptions.NoNodeError)
TRUST = 2 / 3
"""Of the session timeout: how long a lease is good without word from the ensemble."""


class Found(NamedTuple):
    """A node as it was read."""

    value: bytes
    version: int
    session: int
    """Whose ephemeral node it is."""


class ZooKeeperStore:
    """Implements ``port.Store``. Connects with the first call."""

    def __init__(self, settings: StoreSettings, cluster: str, clock: Clock, rng: Rng) -> None:
        self.target = settings.target
        self.call_timeout_s = settings.call_timeout_s
        self.trust_s = settings.session_timeout_s * TRUST
        self.session = Session(settings, self.target, clock)
        self.root = f"{self.target.chroot}/headwater/{checked_name('cluster.name', cluster)}"
        self.rng = rng
        self.token = rng.token(TOKEN_BYTES)

    @property
    def place(self) -> str:
        return self.target.place

    async def put_node(self, node: str, record: bytes, ttl_s: float) -> None:
        checked_value("node record", record)
        await self._hold(self._node(node), record, ttl_s, replace=True)

    async def beat(self, node: str, ttl_s: float) -> bool:
        path = self._node(node)
        checked_ttl_ms(ttl_s)

        async def look(client: KazooClient) -> bool:
            found = await self._found(client, path)
            if found is None or found.session != self.session.id:
                return False
            self.session.terms.promise(path, found.value, ttl_s)
            return True

        return await self._call(look)

    async def nodes(self) -> dict[str, bytes]:
        async def read(client: KazooClient) -> dict[str, bytes]:
            folder = f"{self.root}/nodes"
            try:
                listed = await self.session.future(client.get_children_async(folder))
            except exceptions.NoNodeError:
                return {}
            asked = [self.session.future(client.get_async(f"{folder}/{node}")) for node in listed]
            answers = await asyncio.gather(*asked, return_exceptions=True)
            records = zip(listed, map(record_in, answers), strict=True)
            return {node: record for node, record in records if record is not None}

        return await self._call(read)

    async def remove_node(self, node: str) -> None:
        await self._call(lambda client: self._delete(client, self._node(node)))

    async def acquire(self, holder: Holder, ttl_s: float) -> Lease | None:
        checked_name("node", holder.node)
        held = await self._hold(self._leader, holder_text(holder, self.token), ttl_s)
        return Lease(holder, self.token, min(ttl_s, self.trust_s)) if held else None

    async def renew(self, lease: Lease, ttl_s: float) -> bool:
        text = holder_text(lease.holder, lease.token)
        return await self._hold(self._leader, text, ttl_s, create=False)

    async def release(self, lease: Lease) -> bool:
        return await self._give(self._leader, holder_text(lease.holder, lease.token))

    async def depose(self, node: str) -> bool:
        found = await self._call(lambda client: self._found(client, self._leader))
        holder = holder_in(found.value) if found else None
        if found is None or holder is None or holder.node != node:
            return False
        return await self._give(self._leader, found.value)

    async def leader(self) -> Holder | None:
        found = await self._call(lambda client: self._found(client, self._leader))
        return holder_in(found.value) if found else None

    async def table(self) -> StoredTable | None:
        found = await self._call(lambda client: self._found(client, f"{self.root}/table"))
        return stored_table(found.value) if found else None

    async def put_table(self, epoch: int, table: bytes) -> bool:
        value = checked_epoch(epoch).to_bytes(EPOCH_BYTES) + checked_value("table", table)

        async def put(client: KazooClient, found: Found | None) -> bool:
            if found is not None and stored_table(found.value).epoch >= epoch:
                return found.value == value
            await self._write(client, f"{self.root}/table", value, found)
            return True

        return await self._change(f"{self.root}/table", put)

    async def configuration(self) -> bytes | None:
        found = await self._call(lambda client: self._found(client, f"{self.root}/configuration"))
        return found.value if found else None

    async def put_configuration(self, configuration: bytes) -> None:
        path = f"{self.root}/configuration"
        checked_value("configuration", configuration)

        async def put(client: KazooClient, found: Found | None) -> bool:
            await self._write(client, path, configuration, found)
            return True

        await self._change(path, put)

    async def lock(self, name: str, ttl_s: float) -> Lock | None:
        lock = Lock(checked_name("lock", name), self.rng.token(TOKEN_BYTES))
        return lock if await self._hold(self._lock(name), lock.token.encode(), ttl_s) else None

    async def unlock(self, lock: Lock) -> bool:
        return await self._give(self._lock(lock.name), lock.token.encode())

    async def clear(self) -> None:
        async def delete(client: KazooClient) -> None:
            for node in await self.nodes():
                await self._delete(client, self._node(node))
            for what in ("leader", "table", "configuration"):
                await self._delete(client, f"{self.root}/{what}")

        await self._call(delete)

    async def close(self) -> None:
        await self.session.close()

    @property
    def _leader(self) -> str:
        return f"{self.root}/leader"

    def _node(self, node: str) -> str:
        return f"{self.root}/nodes/{checked_name('node', node)}"

    def _lock(self, name: str) -> str:
        return f"{self.root}/locks/{name}"

    async def _hold(
        self, path: str, value: bytes, ttl_s: float, *, replace: bool = False, create: bool = True
    ) -> bool:
        """An ephemeral node of this session with this value, for ``ttl_s``. False: there is another value and not
        ``replace``, or there is none and not ``create``."""
        checked_ttl_ms(ttl_s)

        async def hold(client: KazooClient, found: Found | None) -> bool:
            if found is None and not create:
                return False
            if found is not None and found.value != value and not replace:
                return False
            self.session.terms.promise(path, value, ttl_s)
            if found is not None and found.session != self.session.id:
                await self._delete(client, path, found.version)  # of a session of ours that is over
                found = None
            await self._write(client, path, value, found, ephemeral=True)
            return True

        return await self._change(path, hold)

    async def _give(self, path: str, value: bytes) -> bool:
        """Delete a node that has this value."""

        async def give(client: KazooClient, found: Found | None) -> bool:
            if found is None or found.value != value:
                return False
            await self._delete(client, path, found.version)
            return True

        return await self._change(path, give)

    async def _change(self, path: str, step: Callable[[KazooClient, Found | None], Awaitable[bool]]) -> bool:
        """Read a node and do ``step``, again as long as somebody else is faster."""

        async def change(client: KazooClient) -> bool:
            for _ in range(TRIES):
                try:
                    return await step(client, await self._found(client, path))
                except CHANGED:
                    continue
            raise Unavailable(
                f"{self.place}: {path} is changed by others all the time", code="store_unavailable"
            )

        return await self._call(change)

    async def _found(self, client: KazooClient, path: str) -> Found | None:
        try:
            value, stat = await self.session.future(client.get_async(path))
        except exceptions.NoNodeError:
            return None
        return Found(value, stat.version, stat.ephemeralOwner)

    async def _write(
        self, client: KazooClient, path: str, value: bytes, found: Found | None, *, ephemeral: bool = False
    ) -> None:
        """Set what was found, or create it with the path above. One of ``CHANGED`` where it is not so any more."""
        if found is None:
            await self.session.future(client.create_async(path, value, ephemeral=ephemeral, makepath=True))
        else:
            await self.session.future(client.set_async(path, value, found.version))

    async def _delete(self, client: KazooClient, path: str, version: int = -1) -> None:
        """Delete a node of this version (-1: any) that may be gone already."""
        try:
            await self.session.future(client.delete_async(path, version))
        except exceptions.NoNodeError:
            pass
        self.session.terms.forget(path)

    async def _call(self, work: Callable[[KazooClient], Awaitable[T]]) -> T:
        """``work`` with a connected client, within the deadline, errors translated."""
        try:
            async with asyncio.timeout(self.call_timeout_s):
                return await work(await self.session.ready())
        except TimeoutError as error:
            raise Unavailable(
                f"{self.place} does not answer within {self.call_timeout_s} s",
                code="store_unavailable",
                place=self.place,
            ) from error
        except DRIVER as error:
            raise translated(error, self.target) from error


def stored_table(value: bytes) -> StoredTable:
    """A table as it stands in a node."""
    return StoredTable(int.from_bytes(value[:EPOCH_BYTES]), value[EPOCH_BYTES:])


def record_in(answer: Any) -> bytes | None:
    """The record of an answer; None for a node that went away meanwhile."""
    if isinstance(answer, exceptions.NoNodeError):
        return None
    if isinstance(answer, BaseException):
        raise answer
    record: bytes = answer[0]
    return record
