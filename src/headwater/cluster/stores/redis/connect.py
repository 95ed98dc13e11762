"""Ways to the Redis server that may be written to: the one there is, the one that sentinels name, or a Cluster.

A link hands out a client and, when that failed, is told to ``drop`` it: the next call looks anew. That is all there is
to failover; nothing is watched in the background.

With Sentinel: the sentinels are asked one after the other, each for a quarter of the call's time, the one that answered
last first; what an answering one knows of the others is remembered, so one address in the settings is enough. The
server that they name must say itself that it is a master, as Sentinel's guidelines for clients want:
https://redis.io/docs/latest/develop/reference/sentinel-clients/
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any, Protocol

import redis.asyncio
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from headwater.cluster.stores.address import ADDRESSES_MAX, Address, Target
from headwater.cluster.stores.port import CLOSE_S_MAX
from headwater.cluster.stores.redis.errors import DRIVER, misconfigured, translated
from headwater.cluster.stores.settings import StoreSettings
from headwater.kit.errors import HeadwaterError, Misconfigured, Unavailable

SHARE = 4
"""A server that does not answer is left after this part of a call's time, where there are others to ask."""
RETRIES = 1
"""A pooled connection that the server has closed meanwhile is found out by using it."""


class Client(Protocol):
    """What is used of the driver's clients, which are alike in this."""

    async def execute_command(self, *words: Any) -> Any: ...
    async def aclose(self) -> None: ...


class Link(Protocol):
    """A way to the server that may be written to."""

    async def client(self) -> Client:
        """A client for it. Kit errors."""
        ...

    async def drop(self) -> None:
        """The client failed: look anew next time."""
        ...


def link_for(settings: StoreSettings) -> Link:
    """The way that the settings ask for."""
    target = settings.target
    if target.kind == "cluster":
        return ClusterLink(settings, target)
    if target.kind == "sentinel":
        return SentinelLink(settings, target)
    return SingleLink(settings, target)


class SingleLink:
    """One server; its pool reconnects by itself."""

    def __init__(self, settings: StoreSettings, target: Target) -> None:
        self.settings = settings
        self.target = target
        self.open: Client | None = None

    async def client(self) -> Client:
        if self.open is None:
            self.open = client_of(self.settings, self.target, self.target.addresses[0])
        return self.open

    async def drop(self) -> None:
        self.open, failed = None, self.open
        await closed(failed)


class ClusterLink:
    """A Redis Cluster: the driver follows slots and failovers; after an error it learns the servers anew."""

    def __init__(self, settings: StoreSettings, target: Target) -> None:
        self.settings = settings
        self.target = target
        self.open: Client | None = None

    async def client(self) -> Client:
        if self.open is None:
            self.open = RedisCluster(
                startup_nodes=[ClusterNode(*address) for address in self.target.addresses],
                require_full_coverage=False,
                retry=Retry(NoBackoff(), RETRIES),
                username=self.target.user or None,
                password=self.target.password or None,
                protocol=2,
                **timeouts(self.settings, SHARE),
                **tls_options(self.settings, self.target),
            )
        return self.open

    async def drop(self) -> None:
        self.open, failed = None, self.open
        await closed(failed)


class SentinelLink:
    """The master that the sentinels name."""

    def __init__(self, settings: StoreSettings, target: Target) -> None:
        self.settings = settings
        self.target = target
        self.sentinels = list(target.addresses)
        self.open: Client | None = None
        self.looking = asyncio.Lock()

    async def client(self) -> Client:
        async with self.looking:
            if self.open is None:
                self.open = await self._master()
            return self.open

    async def drop(self) -> None:
        self.open, failed = None, self.open
        await closed(failed)

    async def _master(self) -> Client:
        """A client for the master. Unavailable: no sentinel answered, or the one named is none (yet, any more)."""
        trouble: HeadwaterError | None = None
        for sentinel in list(self.sentinels):
            try:
                address = await self._ask(sentinel)
            except (Unavailable, Misconfigured) as error:
                trouble = worse(trouble, error)
                continue
            self._first(sentinel)
            return await self._checked(address)
        assert trouble is not None  # there is at least one sentinel
        raise trouble

    async def _ask(self, sentinel: Address) -> Address:
        """The master's address by one sentinel, which is also asked for the others."""
        client = sentinel_client(self.settings, self.target, sentinel)
        name = self.target.master
        try:
            answer = await client.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", name)
            if answer is None:
                raise misconfigured(
                    "sentinel_master_name", f"the sentinel {sentinel} watches no {name!r}", self.target
                )
            await self._learn(client)
        except DRIVER as error:
            raise translated(error, self.target, sentinel=True) from error
        finally:
            await closed(client)
        host, port = answer
        return Address(host.decode(), int(port))

    async def _learn(self, client: Client) -> None:
        """Remember the other sentinels. Bounded; a name of the settings is never forgotten."""
        with suppress(RedisError, KeyError, ValueError):
            for pairs in await client.execute_command("SENTINEL", "SENTINELS", self.target.master):
                told = dict(zip(pairs[::2], pairs[1::2], strict=True))
                other = Address(told[b"ip"].decode(), int(told[b"port"]))
                if other not in self.sentinels and len(self.sentinels) < ADDRESSES_MAX:
                    self.sentinels.append(other)

    def _first(self, sentinel: Address) -> None:
        """It answered: ask it first next time."""
        self.sentinels.remove(sentinel)
        self.sentinels.insert(0, sentinel)

    async def _checked(self, address: Address) -> Client:
        """A client for a server that says that it is a master."""
        client = client_of(self.settings, self.target, address)
        try:
            role = (await client.execute_command("ROLE"))[0]
        except BaseException:
            await closed(client)
            raise
        if role != b"master":
            await closed(client)
            raise Unavailable(
                f"{self.target.place}: {address} is no master yet, the sentinels are about to name another",
                code="store_unavailable",
                place=self.target.place,
            )
        return client


def worse(first: HeadwaterError | None, second: HeadwaterError) -> HeadwaterError:
    """Of what two sentinels said, what matters more: a wrong setting is wrong also while some are away."""
    return first if isinstance(first, Misconfigured) else second


def client_of(settings: StoreSettings, target: Target, address: Address) -> Client:
    """A client for one Redis server."""
    return redis.asyncio.Redis(
        host=address.host,
        port=address.port,
        db=target.database,
        username=target.user or None,
        password=target.password or None,
        protocol=2,
        retry=Retry(NoBackoff(), RETRIES),
        **timeouts(settings, 1),
        **tls_options(settings, target),
    )


def sentinel_client(settings: StoreSettings, target: Target, address: Address) -> Client:
    """A client for a sentinel, which has a password of its own."""
    return redis.asyncio.Redis(
        host=address.host,
        port=address.port,
        password=settings.sentinel_password or None,
        protocol=2,
        retry=Retry(NoBackoff(), 0),
        **timeouts(settings, SHARE),
        **tls_options(settings, target),
    )


def timeouts(settings: StoreSettings, share: int) -> dict[str, Any]:
    """A part of the call's time for each step on the wire."""
    each_s = settings.call_timeout_s / share
    return {"socket_timeout": each_s, "socket_connect_timeout": each_s}


def tls_options(settings: StoreSettings, target: Target) -> dict[str, Any]:
    """The driver's words for the TLS settings."""
    if not target.tls:
        return {}
    return {
        "ssl": True,
        "ssl_ca_certs": settings.tls_ca_file or None,
        "ssl_certfile": settings.tls_cert_file or None,
        "ssl_keyfile": settings.tls_key_file or None,
        "ssl_cert_reqs": "none" if settings.tls_skip_verify else "required",
        "ssl_check_hostname": not settings.tls_skip_verify,
    }


async def closed(client: Client | None) -> None:
    """Close it, whatever happens, within ``CLOSE_S_MAX``."""
    if client is None:
        return
    with suppress(*DRIVER):
        async with asyncio.timeout(CLOSE_S_MAX):
            await client.aclose()
