"""Every kind of coordination store. An adapter's driver is imported when a store of its kind is made."""

from __future__ import annotations

from collections.abc import Callable

from headwater.cluster.stores.memory import Board, MemoryStore
from headwater.cluster.stores.port import Store
from headwater.cluster.stores.settings import StoreSettings
from headwater.kit.clock import Clock, SystemClock
from headwater.kit.errors import Misconfigured
from headwater.kit.rng import Rng, SystemRng

Make = Callable[[StoreSettings, str, Clock, Rng], Store]


def make_redis(settings: StoreSettings, cluster: str, clock: Clock, rng: Rng) -> Store:
    from headwater.cluster.stores.redis.store import RedisStore

    return RedisStore(settings, cluster, rng)


def make_zookeeper(settings: StoreSettings, cluster: str, clock: Clock, rng: Rng) -> Store:
    try:
        from headwater.cluster.stores.zookeeper.store import ZooKeeperStore
    except ModuleNotFoundError as error:
        raise Misconfigured(
            "cluster.store.type: zookeeper needs the package kazoo",
            code="store_driver",
            help="pip install 'headwater[zookeeper]'",
            field="cluster.store.type",
        ) from error
    return ZooKeeperStore(settings, cluster, clock, rng)


def make_memory(settings: StoreSettings, cluster: str, clock: Clock, rng: Rng) -> Store:
    return MemoryStore(Board(), cluster, clock, rng)


KINDS: dict[str, Make] = {"redis": make_redis, "zookeeper": make_zookeeper, "memory": make_memory}
"""``type`` of the settings → how a store is made of them."""


def make(
    settings: StoreSettings, cluster: str = "headwater", clock: Clock | None = None, rng: Rng | None = None
) -> Store:
    """The store of these settings, for the cluster of this name. Nothing is connected before the first call."""
    return KINDS[settings.type](settings, cluster, clock or SystemClock(), rng or SystemRng())
