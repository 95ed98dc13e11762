"""Errors of the driver and of servers, as kit errors: one table."""

from __future__ import annotations

import ssl
from collections.abc import Iterator

from redis import exceptions

from headwater.cluster.stores.address import Target
from headwater.kit.errors import HeadwaterError, Misconfigured, Unavailable

DRIVER = (exceptions.RedisError, exceptions.RedisClusterException, OSError, TimeoutError)
"""All that the driver raises."""
MAY_NOT = "may not do this: it needs the keys `headwater:*` and the commands of @read, @write, @scripting"
WRONG = (
    ("WRONGPASS", "password", "is not the password of this user"),
    ("invalid username-password", "password", "is not the password of this user"),
    ("invalid password", "password", "is wrong"),
    ("NOAUTH", "password", "is missing: the server wants one"),
    ("Authentication required", "password", "is missing: the server wants one"),
    ("without any password configured", "password", "is given, and the server has none"),
    ("NOPERM", "user", MAY_NOT),
    ("no permissions", "user", MAY_NOT),
    ("DB index is out of range", "database", "is not there: the server has fewer databases"),
    ("invalid DB index", "database", "is not there: the server has fewer databases"),
    ("SELECT is not allowed in cluster mode", "database", "a Redis Cluster has database 0 only"),
    ("MOVED", "nodes", "is missing: the server is one of a Redis Cluster; list some of them there, instead of url"),
    ("cluster support disabled", "nodes", "names a server that is no Redis Cluster; give it as url"),
    ("Cluster mode is not enabled", "nodes", "names a server that is no Redis Cluster; give it as url"),
)  # fmt: skip
"""Words in an answer → the setting to change, and why. All else passes: loading, failing over, disk or memory full."""


def translated(error: BaseException, target: Target, *, sentinel: bool = False) -> HeadwaterError:
    """What the caller should do about an error of the driver. ``sentinel``: it came from a sentinel itself."""
    said = list(words(error, target))
    for clue, field, why in WRONG:
        if any(clue.lower() in text.lower() for text in said):
            name = "sentinel_password" if sentinel and field == "password" else field
            return misconfigured(name, why, target)
    if any(isinstance(one, ssl.SSLCertVerificationError) for one in chain(error)):
        return misconfigured("tls_ca_file", "does not vouch for the server's certificate", target)
    return unavailable(target, str(error) or type(error).__name__)  # addresses and reasons, never a password


def chain(error: BaseException) -> Iterator[BaseException]:
    """An error and what it was raised from."""
    one: BaseException | None = error
    while one is not None:
        yield one
        one = one.__cause__ or one.__context__


def words(error: BaseException, target: Target) -> Iterator[str]:
    """What the driver and the server said. MOVED is a class to the driver, its words do not hold it; in a Cluster it
    happens."""
    for one in chain(error):
        if isinstance(one, exceptions.MovedError) and target.kind != "cluster":
            yield "MOVED"
        yield str(one)


def misconfigured(field: str, why: str, target: Target) -> Misconfigured:
    """Somebody must change a setting."""
    key = f"cluster.store.{field}"
    return Misconfigured(f"{key}: {why} ({target.place})", code="store_misconfigured", field=key)


def unavailable(target: Target, why: str) -> Unavailable:
    """Try later."""
    return Unavailable(f"{target.place} does not answer: {why}", code="store_unavailable", place=target.place)
