"""A store in one process's memory: for tests, simulations and a cluster of one.

Stores of one ``Board`` see each other, as nodes of one cluster would. A test says that it is ``down``, or takes a
``copy`` of what is on it and puts that back later: a server that lost its newest writes.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import NamedTuple

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
from headwater.kit.clock import Clock
from headwater.kit.errors import Unavailable
from headwater.kit.rng import Rng

TOKEN_BYTES = 16


class Kept(NamedTuple):
    """A value that expires."""

    value: bytes
    until_ns: int


@dataclass
class Board:
    """What several stores of one process write on. Keys are those of the other stores: ``<cluster>:<what>``."""

    expiring: dict[str, Kept] = field(default_factory=dict)
    tables: dict[str, StoredTable] = field(default_factory=dict)
    configurations: dict[str, bytes] = field(default_factory=dict)
    down: bool = False

    def copy(self) -> Board:
        """As it is now."""
        return copy.deepcopy(self)

    def put_back(self, older: Board) -> None:
        """Be what ``older`` was."""
        self.expiring, self.tables = dict(older.expiring), dict(older.tables)
        self.configurations = dict(older.configurations)


class MemoryStore:
    """Implements ``port.Store``."""

    def __init__(self, board: Board, cluster: str, clock: Clock, rng: Rng) -> None:
        self.board = board
        self.cluster = checked_name("cluster.name", cluster)
        self.clock = clock
        self.rng = rng
        self.token = rng.token(TOKEN_BYTES)

    @property
    def place(self) -> str:
        return "memory of this process"

    async def put_node(self, node: str, record: bytes, ttl_s: float) -> None:
        self._set(self._node(node), checked_value("node record", record), ttl_s)

    async def beat(self, node: str, ttl_s: float) -> bool:
        record = self._get(self._node(node))
        if record is not None:
            self._set(self._node(node), record, ttl_s)
        return record is not None

    async def nodes(self) -> dict[str, bytes]:
        start = f"{self.cluster}:nodes:"
        found = {key: self._get(key) for key in list(self._open().expiring) if key.startswith(start)}
        return {key.removeprefix(start): record for key, record in found.items() if record is not None}

    async def remove_node(self, node: str) -> None:
        self._open().expiring.pop(self._node(node), None)

    async def acquire(self, holder: Holder, ttl_s: float) -> Lease | None:
        checked_name("node", holder.node)
        if not self._take(self._leader, holder_text(holder, self.token), ttl_s):
            return None
        return Lease(holder, self.token, ttl_s)

    async def renew(self, lease: Lease, ttl_s: float) -> bool:
        text = holder_text(lease.holder, lease.token)
        held = self._get(self._leader) == text
        if held:
            self._set(self._leader, text, ttl_s)
        return held

    async def release(self, lease: Lease) -> bool:
        return self._give(self._leader, holder_text(lease.holder, lease.token))

    async def depose(self, node: str) -> bool:
        text = self._get(self._leader)
        holder = holder_in(text)
        return (
            text is not None and holder is not None and holder.node == node and self._give(self._leader, text)
        )

    async def leader(self) -> Holder | None:
        return holder_in(self._get(self._leader))

    async def table(self) -> StoredTable | None:
        return self._open().tables.get(self.cluster)

    async def put_table(self, epoch: int, table: bytes) -> bool:
        stored = StoredTable(checked_epoch(epoch), checked_value("table", table))
        have = self._open().tables.get(self.cluster)
        if have is not None and have.epoch >= epoch:
            return have == stored
        self.board.tables[self.cluster] = stored
        return True

    async def configuration(self) -> bytes | None:
        return self._open().configurations.get(self.cluster)

    async def put_configuration(self, configuration: bytes) -> None:
        self._open().configurations[self.cluster] = checked_value("configuration", configuration)

    async def lock(self, name: str, ttl_s: float) -> Lock | None:
        lock = Lock(checked_name("lock", name), self.rng.token(TOKEN_BYTES))
        return lock if self._take(self._lock(name), lock.token.encode(), ttl_s) else None

    async def unlock(self, lock: Lock) -> bool:
        return self._give(self._lock(lock.name), lock.token.encode())

    async def clear(self) -> None:
        board = self._open()
        for key in [key for key in board.expiring if key.startswith(f"{self.cluster}:nodes:")]:
            del board.expiring[key]
        board.expiring.pop(self._leader, None)
        board.tables.pop(self.cluster, None)
        board.configurations.pop(self.cluster, None)

    async def close(self) -> None:
        pass

    @property
    def _leader(self) -> str:
        return f"{self.cluster}:leader"

    def _node(self, node: str) -> str:
        return f"{self.cluster}:nodes:{checked_name('node', node)}"

    def _lock(self, name: str) -> str:
        return f"{self.cluster}:locks:{name}"

    def _open(self) -> Board:
        if self.board.down:
            raise Unavailable(f"{self.place} does not answer", code="store_unavailable", place=self.place)
        return self.board

    def _get(self, key: str) -> bytes | None:
        kept = self._open().expiring.get(key)
        return kept.value if kept is not None and kept.until_ns > self.clock.boot_ns() else None

    def _set(self, key: str, value: bytes, ttl_s: float) -> None:
        until_ns = self.clock.boot_ns() + checked_ttl_ms(ttl_s) * 1_000_000
        self._open().expiring[key] = Kept(value, until_ns)

    def _take(self, key: str, value: bytes, ttl_s: float) -> bool:
        if self._get(key) not in (None, value):
            return False
        self._set(key, value, ttl_s)
        return True

    def _give(self, key: str, value: bytes) -> bool:
        held = self._get(key) == value
        if held:
            del self.board.expiring[key]
        return held
