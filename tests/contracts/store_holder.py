"""A process that holds a lease and a record, renews both, and says when it has lost the lease."""

import asyncio
import sys

import msgspec

from headwater.cluster.stores import registry
from headwater.cluster.stores.port import Holder
from headwater.cluster.stores.settings import StoreSettings
from headwater.kit.errors import Unavailable

TTL_S = 1.5


async def hold(settings: StoreSettings, cluster: str) -> None:
    store = registry.make(settings, cluster)
    lease = await store.acquire(Holder("00000000000a0000", 7), TTL_S)
    assert lease is not None
    await store.put_node("00000000000a0000", b"a", TTL_S)
    print("held", flush=True)
    while True:
        try:
            if not await store.renew(lease, TTL_S):
                break
            await store.beat("00000000000a0000", TTL_S)
        except Unavailable:
            pass
        await asyncio.sleep(0.1)
    print("lost", flush=True)
    await store.close()


asyncio.run(hold(msgspec.json.decode(sys.stdin.readline(), type=StoreSettings), sys.argv[1]))
