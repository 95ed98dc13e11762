"""The store in Redis. One key per thing; ``{…}`` is a hash tag, so a Redis Cluster keeps a cluster's keys together::

    headwater:{<cluster>}:nodes           set of node ids: the index
    headwater:{<cluster>}:nodes:<node>    record, expires
    headwater:{<cluster>}:leader          `<node id> <incarnation> <token>`, expires
    headwater:{<cluster>}:table           hash: epoch (20 digits), table
    headwater:{<cluster>}:configuration
    headwater:{<cluster>}:locks:<name>    token, expires

Writes go to one master and are not waited for on replicas: a failover may lose the newest of them, and with them a
lease, which another one may then take beside its holder for the time that this one still trusts it (port.py says why
that harms nobody).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

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
from headwater.cluster.stores.redis import scripts
from headwater.cluster.stores.redis.connect import Client, Link, link_for
from headwater.cluster.stores.redis.errors import DRIVER, translated, unavailable
from headwater.cluster.stores.settings import StoreSettings
from headwater.kit.errors import HeadwaterError, Misconfigured, Unavailable
from headwater.kit.rng import Rng

T = TypeVar("T")
TOKEN_BYTES = 16


class RedisStore:
    """Implements ``port.Store``. Connects with the first call."""

    def __init__(self, settings: StoreSettings, cluster: str, rng: Rng) -> None:
        self.target = settings.target
        self.call_timeout_s = settings.call_timeout_s
        self.prefix = f"headwater:{{{checked_name('cluster.name', cluster)}}}"
        self.link: Link = link_for(settings, self._index)
        self.rng = rng
        self.token = rng.token(TOKEN_BYTES)

    @property
    def place(self) -> str:
        return self.target.place

    async def put_node(self, node: str, record: bytes, ttl_s: float) -> None:
        checked_value("node record", record)
        await self._run(scripts.PUT_NODE, self._node_keys(node), node, record, checked_ttl_ms(ttl_s))

    async def beat(self, node: str, ttl_s: float) -> bool:
        return bool(await self._command("PEXPIRE", self._node_keys(node)[0], checked_ttl_ms(ttl_s)))

    async def nodes(self) -> dict[str, bytes]:
        async def read(client: Client) -> dict[str, bytes]:
            listed = sorted(node.decode() for node in await client.execute_command("SMEMBERS", self._index))
            if not listed:
                return {}
            records = await client.execute_command("MGET", *(self._node_keys(node)[0] for node in listed))
            found = dict(zip(listed, records, strict=True))
            for node in [node for node, record in found.items() if record is None]:
                del found[node]
                await evaluated(client, scripts.FORGET_NODE, self._node_keys(node), node)
            return found

        return await self._call(read)

    async def remove_node(self, node: str) -> None:
        await self._run(scripts.REMOVE_NODE, self._node_keys(node), node)

    async def acquire(self, holder: Holder, ttl_s: float) -> Lease | None:
        checked_name("node", holder.node)
        text = holder_text(holder, self.token)
        taken = await self._run(scripts.TAKE, [self._key("leader")], text, checked_ttl_ms(ttl_s))
        return Lease(holder, self.token, ttl_s) if taken else None

    async def renew(self, lease: Lease, ttl_s: float) -> bool:
        text = holder_text(lease.holder, lease.token)
        return bool(await self._run(scripts.RENEW, [self._key("leader")], text, checked_ttl_ms(ttl_s)))

    async def release(self, lease: Lease) -> bool:
        text = holder_text(lease.holder, lease.token)
        return bool(await self._run(scripts.GIVE, [self._key("leader")], text))

    async def depose(self, node: str) -> bool:
        return bool(await self._run(scripts.DEPOSE, [self._key("leader")], checked_name("node", node)))

    async def leader(self) -> Holder | None:
        return holder_in(await self._command("GET", self._key("leader")))

    async def table(self) -> StoredTable | None:
        epoch, table = await self._command("HMGET", self._key("table"), "epoch", "table")
        return None if epoch is None else StoredTable(int(epoch), table)

    async def put_table(self, epoch: int, table: bytes) -> bool:
        digits = f"{checked_epoch(epoch):0{scripts.EPOCH_DIGITS}}"
        checked_value("table", table)
        return bool(await self._run(scripts.PUT_TABLE, [self._key("table")], digits, table))

    async def configuration(self) -> bytes | None:
        found: bytes | None = await self._command("GET", self._key("configuration"))
        return found

    async def put_configuration(self, configuration: bytes) -> None:
        checked_value("configuration", configuration)
        await self._command("SET", self._key("configuration"), configuration)

    async def lock(self, name: str, ttl_s: float) -> Lock | None:
        lock = Lock(checked_name("lock", name), self.rng.token(TOKEN_BYTES))
        taken = await self._run(scripts.TAKE, [self._lock(name)], lock.token, checked_ttl_ms(ttl_s))
        return lock if taken else None

    async def unlock(self, lock: Lock) -> bool:
        return bool(await self._run(scripts.GIVE, [self._lock(lock.name)], lock.token))

    async def clear(self) -> None:
        async def delete(client: Client) -> None:
            listed = [node.decode() for node in await client.execute_command("SMEMBERS", self._index)]
            keys = [self._node_keys(node)[0] for node in listed]
            keys += [self._index, *map(self._key, ("leader", "table", "configuration"))]
            await client.execute_command("DEL", *keys)

        await self._call(delete)

    async def close(self) -> None:
        await self.link.drop()

    @property
    def _index(self) -> str:
        return self._key("nodes")

    def _key(self, what: str) -> str:
        return f"{self.prefix}:{what}"

    def _lock(self, name: str) -> str:
        return self._key(f"locks:{name}")

    def _node_keys(self, node: str) -> list[str]:
        """Of the record and of the index."""
        return [self._key(f"nodes:{checked_name('node', node)}"), self._index]

    async def _run(self, script: str, keys: list[str], *values: str | bytes | int) -> Any:
        return await self._call(lambda client: evaluated(client, script, keys, *values))

    async def _command(self, *words: str | bytes | int) -> Any:
        return await self._call(lambda client: client.execute_command(*words))

    async def _call(self, work: Callable[[Client], Awaitable[T]]) -> T:
        """``work`` with a client, within the deadline, errors translated."""
        try:
            async with asyncio.timeout(self.call_timeout_s):
                return await work(await self.link.client())
        except (Unavailable, Misconfigured):
            raise  # of the link, which has nothing to drop
        except DRIVER as error:
            await self.link.drop()
            raise self._translated(error) from error

    def _translated(self, error: BaseException) -> HeadwaterError:
        if type(error) is TimeoutError and not error.args:
            return unavailable(self.target, f"{self.call_timeout_s} s went by")
        return translated(error, self.target)


def evaluated(client: Client, script: str, keys: list[str], *values: str | bytes | int) -> Awaitable[Any]:
    """Run a script."""
    return client.execute_command("EVAL", script, len(keys), *keys, *values)
