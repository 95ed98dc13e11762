"""What `cluster/` needs of a coordination store (protocol.md §9).

A *store* is a meeting place outside of the nodes: Redis, ZooKeeper, or one process's memory. It keeps four things per
cluster, all opaque bytes to it: a record per node, the leader's lease, the newest table, the configuration. Locks by
name come as a courtesy.

**Nothing in a store is needed for safety.** It may be away for any length of time, forget all, go back to yesterday, or
(Redis with Sentinel, for a moment) give one lease to two: two leaders cost work, and two owners of a partition never
both commit, because each destination compares positions before it writes (INV-DST-1). What is wanted of it is progress:
after trouble it has one lease holder *eventually*, and nodes that publish again are seen again.

Guarantees of every implementation:

* Each call ends within ``call_timeout_s`` (and the quarter of a second that a connection may take to close), with a
  result or with a kit error: ``Unavailable`` (try later; whether a write was done is then not known), ``Misconfigured``
  (an operator must act: wrong password, no such master; names the setting), ``Rejected`` (a value that is too large).
* Calls recover by themselves; there is nothing to reopen. Every write may be repeated.
* Times to live are measured by one clock, the store's, from when the store did the write; clocks of different
  machines are never compared.
* Passwords stand in no error, no ``repr``, no log.

A lease is *held* by whoever has its token. Its holder may act on it for ``valid_s`` after the **beginning** of the call
that got or last renewed it, by its own monotonic clock: with Redis that is the time to live, with ZooKeeper at most two
thirds of the session timeout, since a session's end is not told to whoever is cut off.

Limits: ``VALUE_BYTES_MAX`` per value (ZooKeeper refuses a request of 1 MiB); names of nodes, locks and clusters are
``NAME``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from headwater.kit.errors import Misconfigured, Rejected

VALUE_BYTES_MAX = 768 * 1024
NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
EPOCH_END = 1 << 64
TTL_S_MIN, TTL_S_MAX = 0.01, 3600.0
CLOSE_S_MAX = 0.25
"""How long a connection that failed may take to be closed, on top of a call's deadline."""


class Holder(NamedTuple):
    """Who holds, or wants, the leader's lease."""

    node: str
    """Node id."""
    incarnation: int


@dataclass(frozen=True, slots=True)
class Lease:
    """The leader's lease, as its holder has it."""

    holder: Holder
    token: str = field(repr=False)
    valid_s: float
    """How long after the beginning of the call that got or last renewed it the holder may act on it."""


@dataclass(frozen=True, slots=True)
class Lock:
    """A lock, as its holder has it. It ends by itself after its time to live."""

    name: str
    token: str = field(repr=False)


class StoredTable(NamedTuple):
    """The newest table that was put. Tables of one epoch are told apart by the caller; the store keeps the first."""

    epoch: int
    table: bytes


class Store(Protocol):
    """One cluster's part of a coordination store. Errors and deadlines: see the module."""

    @property
    def place(self) -> str:
        """Where it is, for messages and status: kind and addresses, no secrets."""
        ...

    async def put_node(self, node: str, record: bytes, ttl_s: float) -> None:
        """Publish the record of this node; it disappears ``ttl_s`` after the last ``put_node`` or ``beat``."""
        ...

    async def beat(self, node: str, ttl_s: float) -> bool:
        """Let this node's record live ``ttl_s`` from now on; False: there is none any more, publish it again."""
        ...

    async def nodes(self) -> dict[str, bytes]:
        """Node id → record, of all nodes whose record has not expired."""
        ...

    async def remove_node(self, node: str) -> None:
        """Take this node's record away; nothing happens where there is none."""
        ...

    async def acquire(self, holder: Holder, ttl_s: float) -> Lease | None:
        """The leader's lease for ``ttl_s``, or None: somebody else holds it. A store object that holds it already, or
        does not know whether its last try succeeded, gets it again: one object is one contender."""
        ...

    async def renew(self, lease: Lease, ttl_s: float) -> bool:
        """Hold it ``ttl_s`` from now on; False: it ran out, or somebody else has it."""
        ...

    async def release(self, lease: Lease) -> bool:
        """Give it up at once; False: it was not held by this token any more, and nothing was done."""
        ...

    async def depose(self, node: str) -> bool:
        """Take the lease away from this node, which is dead as others found; False: it does not hold it. Should it live
        after all, two lead for a moment, as with every store that forgets: that costs work, and nothing else."""
        ...

    async def leader(self) -> Holder | None:
        """Who holds the lease now."""
        ...

    async def table(self) -> StoredTable | None:
        """The newest table that was put."""
        ...

    async def put_table(self, epoch: int, table: bytes) -> bool:
        """Put a table whose epoch is greater than that of the one that is there; False: it is not greater (the very
        same one counts as put). A courtesy: nodes compare tables themselves (INV-CLU-1)."""
        ...

    async def configuration(self) -> bytes | None:
        """What was put last."""
        ...

    async def put_configuration(self, configuration: bytes) -> None:
        """Put it, whatever was there."""
        ...

    async def lock(self, name: str, ttl_s: float) -> Lock | None:
        """A lock that nobody holds, for ``ttl_s``; None: somebody does. For tasks that need not be done twice, never
        for what must not be: who is paused for longer than ``ttl_s`` goes on without it."""
        ...

    async def unlock(self, lock: Lock) -> bool:
        """Give it back; False: it was not held by this token any more."""
        ...

    async def clear(self) -> None:
        """Forget this cluster's nodes, lease, table and configuration. Living nodes publish theirs again."""
        ...

    async def close(self) -> None:
        """Let go of connections. The node's record and the lease are not removed by this with Redis, and are with
        ZooKeeper, whose session ends."""
        ...


def holder_text(holder: Holder, token: str) -> bytes:
    """A lease as it stands in a store: ``<node> <incarnation> <token>``, so that a person can read who it is."""
    return f"{holder.node} {holder.incarnation} {token}".encode()


def holder_in(text: bytes | None) -> Holder | None:
    """The holder that such bytes name; None where there are none, or where they are something else."""
    parts = (text or b"").decode("utf-8", "replace").split(" ")
    if len(parts) != 3 or not parts[1].isdecimal():
        return None
    return Holder(parts[0], int(parts[1]))


def checked_name(field: str, name: str) -> str:
    """A name that fits into every store's keys; Misconfigured otherwise."""
    if not NAME.fullmatch(name) or name in (".", ".."):
        raise Misconfigured(
            f"{field}: expected 1 to 64 letters, digits, `_`, `.`, `-`, got {name!r}",
            code="store_name",
            field=field,
        )
    return name


def checked_value(what: str, value: bytes) -> bytes:
    """A value that every store takes; Rejected otherwise."""
    if len(value) > VALUE_BYTES_MAX:
        raise Rejected(
            f"{what} has {len(value)} bytes, a store takes {VALUE_BYTES_MAX}", code="store_value_large"
        )
    return value


def checked_ttl_ms(ttl_s: float) -> int:
    """A time to live in whole milliseconds."""
    if not TTL_S_MIN <= ttl_s <= TTL_S_MAX:
        raise ValueError(f"ttl_s: expected {TTL_S_MIN} to {TTL_S_MAX} seconds, got {ttl_s}")
    return round(ttl_s * 1000)


def checked_epoch(epoch: int) -> int:
    """An epoch that fits into 64 bits."""
    if not 0 <= epoch < EPOCH_END:
        raise ValueError(f"epoch: expected 0 to 2^64 - 1, got {epoch}")
    return epoch
