"""Ways to the Redis server that may be written to: the one there is, the one that sentinels name, or a Cluster.

A link hands out a client and, when that failed, is told to ``drop`` it: the next call looks anew. That is all there is
to failover; nothing is watched in the background.

With Sentinel, and in a Cluster: those that know are asked one after the other, each for a quarter of the call's time,
the one that answered last first; what an answering one knows of the others is remembered, so one address in the
settings is enough. The server that they name must say itself that it is a master, as Sentinel's guidelines for
clients want: https://redis.io/docs/latest/develop/reference/sentinel-clients/

The driver has clients for Sentinel and Cluster. They are not used: what they do about errors takes longer than a call
may, cannot be told apart afterwards (a wrong password from a dead server), and leaves connections behind.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from contextlib import suppress
from typing import Any, Protocol

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from headwater.cluster.stores.address import ADDRESSES_MAX, Address, Target
from headwater.cluster.stores.port import CLOSE_S_MAX
from headwater.cluster.stores.redis.errors import DRIVER, misconfigured, translated, unavailable
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


def link_for(settings: StoreSettings, key: str) -> Link:
    """The way that the settings ask for; ``key`` is one of those that will be used."""
    target = settings.target
    if target.kind == "cluster":
        return ClusterLink(settings, target, key)
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


class FindingLink(ABC):
    """A server that others name: they are asked in turn, and what they know of each other is remembered."""

    def __init__(self, settings: StoreSettings, target: Target) -> None:
        self.settings = settings
        self.target = target
        self.known = list(target.addresses)
        self.open: Client | None = None
        self.looking = asyncio.Lock()

    async def client(self) -> Client:
        async with self.looking:
            if self.open is None:
                self.open = await self._found()
            return self.open

    async def drop(self) -> None:
        self.open, failed = None, self.open
        await closed(failed)

    @abstractmethod
    def _asked(self, server: Address) -> Client:
        """A client for one that is asked."""

    @abstractmethod
    async def _named(self, client: Client, server: Address) -> Address:
        """The master's address as ``server`` knows it. Kit errors, and those of the driver."""

    async def _found(self) -> Client:
        """A client for the master. Unavailable: nobody answered, or the one named is none (yet, any more)."""
        trouble: HeadwaterError | None = None
        for server in list(self.known):
            try:
                address = await self._ask(server)
            except (Unavailable, Misconfigured) as error:
                trouble = worse(trouble, error)
                continue
            self.known.remove(server)
            self.known.insert(0, server)  # it answered: ask it first next time
            return await self._checked(address)
        assert trouble is not None  # there is at least one to ask
        raise trouble

    async def _ask(self, server: Address) -> Address:
        client = self._asked(server)
        try:
            return await self._named(client, server)
        except DRIVER as error:
            raise translated(error, self.target, sentinel=self.target.kind == "sentinel") from error
        finally:
            await closed(client)

    def _learn(self, other: Address) -> None:
        """Remember one more that can be asked. Bounded; those of the settings stay."""
        if other not in self.known and len(self.known) < ADDRESSES_MAX:
            self.known.append(other)

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
            raise unavailable(self.target, f"{address} is no master, another one is about to be named")
        return client


class SentinelLink(FindingLink):
    """The master that the sentinels name."""

    def _asked(self, server: Address) -> Client:
        return sentinel_client(self.settings, self.target, server)

    async def _named(self, client: Client, server: Address) -> Address:
        name = self.target.master
        answer = await client.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", name)
        if answer is None:
            raise misconfigured("sentinel_master_name", f"{server} watches no {name!r}", self.target)
        for pairs in await client.execute_command("SENTINEL", "SENTINELS", name):
            told = dict(zip(pairs[::2], pairs[1::2], strict=True))
            self._learn(Address(told[b"ip"].decode(), int(told[b"port"])))
        host, port = answer
        return Address(host.decode(), int(port))


class ClusterLink(FindingLink):
    """The master of the slot in which the keys lie: they share a hash tag, so one server has them all, and a plain
    client for it will do. A slot that moves away makes the next call look anew."""

    def __init__(self, settings: StoreSettings, target: Target, key: str) -> None:
        super().__init__(settings, target)
        self.key = key

    def _asked(self, server: Address) -> Client:
        return client_of(self.settings, self.target, server, SHARE)

    async def _named(self, client: Client, server: Address) -> Address:
        slot = await client.execute_command("CLUSTER", "KEYSLOT", self.key)
        named: Address | None = None
        for first, last, *servers in await client.execute_command("CLUSTER", "SLOTS"):
            addresses = [Address((one[0] or b"").decode() or server.host, int(one[1])) for one in servers]
            for address in addresses:
                self._learn(address)
            if first <= slot <= last:
                named = addresses[0]
        if named is None:
            raise unavailable(self.target, f"{server} knows no server for slot {slot}")
        return named


def worse(first: HeadwaterError | None, second: HeadwaterError) -> HeadwaterError:
    """Of what two that were asked said, what matters more: a wrong setting is wrong also while some are away."""
    return first if isinstance(first, Misconfigured) else second


def client_of(settings: StoreSettings, target: Target, address: Address, share: int = 1) -> Client:
    """A client for one Redis server, which may take this share of a call's time."""
    return redis.asyncio.Redis(
        host=address.host,
        port=address.port,
        db=target.database,
        username=target.user or None,
        password=target.password or None,
        protocol=2,
        retry=Retry(NoBackoff(), RETRIES),
        **timeouts(settings, share),
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
