"""The grammar of a store's addresses: from settings to what is connected to. Pure; no value with a secret is shown.

A complaint is a ValueError that begins with the setting's name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple
from urllib.parse import unquote

if TYPE_CHECKING:
    from headwater.cluster.stores.settings import StoreSettings

REDIS_PORT, SENTINEL_PORT, ZOOKEEPER_PORT = 6379, 26379, 2181
ADDRESSES_MAX = 100
SCHEMES = ("redis", "rediss", "sentinel")
HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9_.])?")
V6 = re.compile(r"[0-9A-Fa-f:.]+(%[A-Za-z0-9_.-]+)?")
CHROOT = re.compile(r"(/[A-Za-z0-9_.-]+)+")
GRAMMAR = "expected redis://[[USER]:PASSWORD@]HOST[:PORT][/DATABASE], rediss:// or sentinel://MASTER[:PASSWORD]@HOST"


class Address(NamedTuple):
    """Of one server."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


Kind = Literal["single", "sentinel", "cluster", "zookeeper"]


@dataclass(frozen=True, slots=True)
class Target:
    """What is connected to."""

    kind: Kind
    addresses: tuple[Address, ...]
    master: str = ""
    """Name that the sentinels know."""
    user: str = ""
    password: str = field(default="", repr=False)
    database: int = 0
    tls: bool = False
    chroot: str = ""

    @property
    def place(self) -> str:
        """For people: kind and addresses."""
        names = {
            "single": "Redis at",
            "sentinel": f"Redis master {self.master} of the sentinels",
            "cluster": "Redis Cluster",
            "zookeeper": "ZooKeeper",
        }
        return f"{names[self.kind]} {', '.join(map(str, self.addresses))}{self.chroot}"


class Url(NamedTuple):
    """The parts of a URL, not yet judged."""

    scheme: str
    user: str | None
    password: str | None
    hosts: str
    path: str


def read_target(settings: StoreSettings) -> Target:
    """What these settings connect to; ValueError says which of them is wrong."""
    if settings.url and settings.nodes:
        raise ValueError("nodes: stands beside url; give one of them")
    if settings.type == "zookeeper":
        return zookeeper_target(settings)
    if settings.url:
        return url_target(settings, read_url(settings.url))
    if not settings.nodes:
        raise ValueError(f"url: is missing; {GRAMMAR}, or give nodes")
    return nodes_target(settings)


def zookeeper_target(settings: StoreSettings) -> Target:
    """An ensemble."""
    if not settings.nodes:
        raise ValueError("nodes: is missing; expected a list of HOST[:PORT] of the ZooKeeper ensemble")
    if settings.chroot and not CHROOT.fullmatch(settings.chroot):
        raise ValueError(f"chroot: expected a path such as /headwater, got {settings.chroot!r}")
    if bool(settings.user) != bool(settings.password):
        missing = "password" if settings.user else "user"
        raise ValueError(f"{missing}: is missing; ZooKeeper's digest has user and password")
    addresses = read_addresses("nodes", settings.nodes, ZOOKEEPER_PORT)
    return Target(
        "zookeeper",
        addresses,
        user=settings.user,
        password=settings.password,
        tls=settings.tls,
        chroot=settings.chroot,
    )


def nodes_target(settings: StoreSettings) -> Target:
    """A list of servers: sentinels where a master is named, else a Redis Cluster."""
    sentinel = bool(settings.sentinel_master_name)
    if not sentinel and settings.database:
        raise ValueError("database: a Redis Cluster has database 0 only")
    return Target(
        "sentinel" if sentinel else "cluster",
        read_addresses("nodes", settings.nodes, SENTINEL_PORT if sentinel else REDIS_PORT),
        master=settings.sentinel_master_name,
        user=settings.user,
        password=settings.password,
        database=settings.database,
        tls=settings.tls,
    )


def url_target(settings: StoreSettings, url: Url) -> Target:
    """One URL, with what stands beside it."""
    master = settings.sentinel_master_name
    user, password = url.user or "", url.password or ""
    if url.scheme == "sentinel":
        if not user and not master:
            raise ValueError(
                "url: the name of the master is missing; expected sentinel://MASTER[:PASSWORD]@HOST"
            )
        master, user = once("sentinel_master_name", master, user), ""
    kind: Kind = "sentinel" if master else "single"
    addresses = read_addresses("url", url.hosts.split(","), SENTINEL_PORT if master else REDIS_PORT)
    if kind == "single" and len(addresses) > 1:
        raise ValueError("url: names several hosts; for a Redis Cluster give nodes, for Sentinel sentinel://")
    return Target(
        kind,
        addresses,
        master=master,
        user=once("user", settings.user, user),
        password=once("password", settings.password, password),
        database=read_database(settings.database, url.path),
        tls=settings.tls or url.scheme == "rediss",
    )


def read_url(text: str) -> Url:
    """A URL's parts."""
    scheme, separator, rest = text.partition("://")
    if not separator or scheme not in SCHEMES:
        raise ValueError(f"url: {GRAMMAR}")
    authority, _, path = rest.rpartition("@")[2].partition("/")
    information = rest.rpartition("@")[0] if "@" in rest else None
    if "?" in rest or "#" in path or not authority:
        raise ValueError(f"url: {GRAMMAR}")
    if information is None:
        return Url(scheme, None, None, authority, path)
    user, colon, password = information.partition(":")
    return Url(scheme, unquote(user), unquote(password) if colon else None, authority, path)


def read_database(database: int, path: str) -> int:
    """The number at the end of a URL, or the setting."""
    if not path:
        return database
    if not path.isdecimal():
        raise ValueError("url: expected the number of a database behind the last `/`")
    if database not in (0, int(path)):
        raise ValueError("database: url names another one")
    return int(path)


def once(name: str, setting: str, inside: str) -> str:
    """What stands in the URL, in the setting, or in both alike."""
    if setting and inside and setting != inside:
        raise ValueError(f"{name}: url names another one")
    return setting or inside


def read_addresses(name: str, texts: list[str], port: int) -> tuple[Address, ...]:
    """``HOST[:PORT]``, each once, in order."""
    if len(texts) > ADDRESSES_MAX:
        raise ValueError(f"{name}: expected at most {ADDRESSES_MAX} addresses, got {len(texts)}")
    return tuple(dict.fromkeys(read_address(name, text, port) for text in texts))


def read_address(name: str, text: str, port: int) -> Address:
    """``HOST``, ``HOST:PORT``, ``[V6]`` or ``[V6]:PORT``."""
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        fits = bool(bracket and V6.fullmatch(host) and (not rest or rest.startswith(":")))
        number = rest[1:] if rest else str(port)
    else:
        host, colon, number = text.partition(":")
        fits = bool(HOST.fullmatch(host))
        number = number if colon else str(port)
    if not fits or not number.isdecimal() or not 0 < int(number) < 65_536:
        raise ValueError(f"{name}: expected HOST[:PORT] or [V6]:PORT, got {shown(name, text)}")
    return Address(host, int(number))


def shown(name: str, text: str) -> str:
    """An address in a complaint: none of a URL, where a password may stand at any wrong place."""
    return "something else" if name == "url" or "@" in text else repr(text)
