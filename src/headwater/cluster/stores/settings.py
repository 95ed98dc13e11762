"""Where the coordination store is: settings, and what must fit together.

A check that fails is a ValueError that begins with the field's name (config/load turns it into an error with file and
line). No value that could hold a password is ever shown.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from headwater.cluster.stores.address import Target, read_target

CALL_TIMEOUT_S_MIN, CALL_TIMEOUT_S_MAX = 0.1, 60.0
SESSION_TIMEOUT_S_MIN, SESSION_TIMEOUT_S_MAX = 0.5, 40.0
DATABASE_MAX = 65_535
ONLY_FOR = {
    "redis": ("url", "sentinel_master_name", "sentinel_password", "database"),
    "zookeeper": ("chroot", "session_timeout_s"),
}
SECRETS = ("password", "sentinel_password")


class StoreSettings(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True
):
    """Where nodes find each other and the leader holds its lease. None of these reloads."""

    type: Literal["redis", "zookeeper", "memory"] = "redis"
    """`memory` forgets when the process ends, and only one node sees it: for tests and a cluster of one."""
    url: str = ""
    """Where Redis is: `redis://[[USER]:PASSWORD@]HOST[:PORT][/DATABASE]`; `rediss://` with TLS; with Sentinel
    `sentinel://MASTER[:PASSWORD]@HOST[:PORT],HOST2[:PORT2]`, one of the sentinels is enough. Write
    `${env.NAME}` for the password, or give it as `password`."""
    nodes: list[str] = []
    """`HOST[:PORT]` of several servers, instead of `url`: of a Redis Cluster (one that answers is enough, the others
    are found through it), of the sentinels where `sentinel_master_name` stands, or of the ZooKeeper ensemble."""
    sentinel_master_name: str = ""
    """Name of the master that the sentinels watch; with it, the addresses are those of sentinels (port 26379)."""
    user: str = ""
    """User of Redis (ACL) or of ZooKeeper (digest). Empty: Redis's default user; ZooKeeper without ACL."""
    password: str = ""
    """Password of that user."""
    sentinel_password: str = ""
    """Password of the sentinels themselves, where they want one."""
    database: int = 0
    """Number of the Redis database; a Redis Cluster has 0 only."""
    tls: bool = False
    """Speak TLS, as with `rediss://`; to sentinels too."""
    tls_ca_file: str = ""
    """Certificates (PEM) that the server's is checked against. Empty: those of the system."""
    tls_cert_file: str = ""
    """Certificate (PEM) of this client, where the server wants one."""
    tls_key_file: str = ""
    """Key (PEM) to `tls_cert_file`."""
    tls_skip_verify: bool = False
    """Believe any certificate. Whoever stands between can read and change everything: for try-outs only."""
    chroot: str = ""
    """Path in ZooKeeper below which everything is kept (`/headwater-production`); made when missing."""
    call_timeout_s: float = 2.0
    """How long one call may take, seconds. Much less than the lease's time to live, so that a call that failed can be
    repeated before the lease ends."""
    session_timeout_s: float = 10.0
    """How long ZooKeeper keeps a silent node's record and lease, seconds; the leader stops acting after two thirds of
    it. Between the server's own bounds, usually 4 and 40."""

    def __post_init__(self) -> None:
        check_type(self)
        check_bounds(self)
        if self.type != "memory":
            _ = self.target

    @property
    def target(self) -> Target:
        """What is connected to. Not for `memory`."""
        return read_target(self)

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [(name, shown(name, getattr(self, name))) for name in self.__struct_fields__]

    def __repr__(self) -> str:
        return f"StoreSettings({', '.join(f'{name}={value!r}' for name, value in self.__rich_repr__())})"


def shown(name: str, value: Any) -> Any:
    """A setting's value for people."""
    hidden = value and (name in SECRETS or (name == "url" and "@" in value))
    return "…" if hidden else value


def check_type(settings: StoreSettings) -> None:
    """Only what its kind of store knows."""
    defaults = {one.name: one.default for one in msgspec.structs.fields(StoreSettings)}
    for kind, names in ONLY_FOR.items():
        for name in names:
            if settings.type != kind and getattr(settings, name) != defaults[name]:
                raise ValueError(f"{name}: is known to type {kind} only, and type is {settings.type}")


def check_bounds(settings: StoreSettings) -> None:
    """Each number in its range."""
    for name, least, most in (
        ("database", 0, DATABASE_MAX),
        ("call_timeout_s", CALL_TIMEOUT_S_MIN, CALL_TIMEOUT_S_MAX),
        ("session_timeout_s", SESSION_TIMEOUT_S_MIN, SESSION_TIMEOUT_S_MAX),
    ):
        if not least <= getattr(settings, name) <= most:
            raise ValueError(f"{name}: expected {least} to {most}, got {getattr(settings, name)}")
    if settings.tls_key_file and not settings.tls_cert_file:
        raise ValueError("tls_key_file: stands without tls_cert_file")
