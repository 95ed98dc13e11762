"""Stops of a replay (R7): an operator's word, kept in the coordination store until it expires.

::

    stops = Stops(store_of(settings, "shop", "clicks.stops"), identity.clock)
    await stops.stop("alice", reason="the database is being moved")     # for 12 minutes
    await stops.start("alice")

A stop has an owner. The replay rests while there is any stop that has not expired, whoever set it, so nobody starts
what somebody else has stopped. While the store is away, what was known last holds: a stop until it would have expired.
"""

from __future__ import annotations

import msgspec

from headwater.cluster.stores.port import Store
from headwater.kit.clock import Clock
from headwater.kit.errors import HeadwaterError, Rejected

STOP_TTL_S = 12 * 60.0
LOOK_S = 1.0


class Stop(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Who said so, for how long from then on, and why."""

    owner: str
    ttl_s: float = STOP_TTL_S
    reason: str = ""


class Stops:
    """The stops of one topic. Use a store of its own for them: their owners stand where nodes stand elsewhere."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self.store = store
        self.clock = clock
        self.looked_ns = 0
        self.known: dict[str, Stop] = {}
        self.until_ns: dict[str, int] = {}
        """When what was last known of it expires, should the store be silent from then on."""

    async def stop(self, owner: str, ttl_s: float = STOP_TTL_S, reason: str = "") -> None:
        """Let the replay rest. Said again it counts anew. Unavailable: the store is away, nothing was said."""
        stop = Stop(owner=owner, ttl_s=ttl_s, reason=reason)
        await self.store.put_node(owner, msgspec.json.encode(stop), ttl_s)
        self.looked_ns = 0

    async def start(self, owner: str) -> None:
        """Take this owner's stop back; others' stay."""
        await self.store.remove_node(owner)
        self.looked_ns = 0

    async def all(self) -> list[Stop]:
        """Those that count now."""
        now_ns = self.clock.boot_ns()
        if not self.looked_ns or now_ns - self.looked_ns >= LOOK_S * 1e9:
            self.looked_ns = now_ns
            try:
                self.learn(await self.store.nodes())
            except HeadwaterError:
                pass  # what was known holds
        now_ns = self.clock.boot_ns()
        return [stop for owner, stop in self.known.items() if self.until_ns[owner] > now_ns]

    def learn(self, told: dict[str, bytes]) -> None:
        """What the store has. Something that cannot be read is a stop, too: somebody meant something by it."""
        self.known = {owner: read(owner, data) for owner, data in told.items()}
        for owner, stop in self.known.items():
            self.until_ns[owner] = self.looked_ns + int(stop.ttl_s * 1e9)
        self.until_ns = {owner: self.until_ns[owner] for owner in self.known}


def read(owner: str, data: bytes) -> Stop:
    try:
        stop = msgspec.json.decode(data, type=Stop)
        if stop.owner != owner or not stop.ttl_s > 0:
            raise Rejected("not its owner's")
    except (msgspec.MsgspecError, UnicodeDecodeError, Rejected):
        return Stop(owner=owner, reason="cannot be read")
    return stop
