"""Settings of a PostgreSQL destination.

The address and the secret are kept apart: ``url`` is shown by `headwater config explain`, so a password in it is
refused, and so is anything about TLS, which has settings of its own.
"""

from __future__ import annotations

import re
import urllib.parse
from typing import Any, Literal

from headwater.destinations.settings import DestinationSettings

SCHEMES = ("postgresql", "postgres")
LOOPBACK = ("localhost", "127.0.0.1", "::1", "")
SCHEMA = re.compile(r"[a-z_][a-z0-9_]{0,62}")
SECONDS_MAX = 3600.0

Tls = Literal["auto", "off", "require", "verify"]


class PostgresSettings(DestinationSettings, frozen=True, tag="postgres", kw_only=True):
    """A schema in a PostgreSQL database. None of these reloads without connecting again."""

    url: str
    """Where: `postgresql://USER@HOST:PORT/DATABASE`, several hosts with commas, and libpq's parameters behind `?` (for
    example `target_session_attrs=read-write`). Without the password."""
    password: str = ""
    """The password; best as `"${env.NAME}"`. Never shown."""
    password_file: str = ""
    """Instead: a file with the password in its first line, relative to the data folder; read at each connection."""
    schema: str = "headwater"
    """The schema with the tables; made where it is missing and the role may. It belongs to this destination alone."""
    columns: Literal["evolve", "freeze"] = "evolve"
    """New columns: added to the table, or (freeze) kept in ``_unmapped``."""
    tls: Tls = "auto"
    """`verify`: encrypted, and the certificate is checked for the host's name; `require`: encrypted, nothing checked;
    `off`. `auto` is `verify`, or where every host is this machine, encrypted if the server can."""
    tls_ca: str = ""
    """File with the certificates that `verify` trusts, relative to the data folder; empty: those of the system."""
    tls_cert: str = ""
    """Own certificate for servers that ask for one, relative to the data folder; needs ``tls_key``."""
    tls_key: str = ""
    """Its private key, readable by its owner only."""
    connect_timeout_s: float = 5.0
    """Longest time for one connection to be made, seconds."""
    lock_timeout_s: float = 5.0
    """Longest wait for a lock that somebody else holds, seconds: another owner's step, or a long query while a column
    is to be added. Then it is tried again, the longer the later."""
    idle_transaction_timeout_s: float = 10.0
    """When the server ends a step whose node says nothing any more, seconds: its locks are free then, and another node
    goes on."""
    statement_timeout_s: float = 120.0
    """Longest time of one statement, a load's COPY among them, seconds."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_url(self.url)
        if self.password and self.password_file:
            raise ValueError("password_file: expected either password or password_file, got both")
        if not SCHEMA.fullmatch(self.schema):
            raise ValueError(f"schema: expected 1 to 63 of a-z, 0-9 and `_`, got {self.schema!r}")
        if self.schema.startswith("pg_") or self.schema == "information_schema":
            raise ValueError(f"schema: expected one of your own, got the server's {self.schema!r}")
        if bool(self.tls_cert) != bool(self.tls_key):
            raise ValueError("tls_key: expected both tls_cert and tls_key, or neither")
        for name in ("connect", "lock", "idle_transaction", "statement"):
            value = getattr(self, f"{name}_timeout_s")
            if not 0.1 <= value <= SECONDS_MAX:
                raise ValueError(
                    f"{name}_timeout_s: expected 0.1 to {SECONDS_MAX:.0f} seconds, got {value:g}"
                )

    @property
    def alone(self) -> str:
        """What no other destination may share with it: two would load the same rows into one table."""
        return f"{self.url} {self.schema}"

    @property
    def mode(self) -> str:
        """libpq's ``sslmode``."""
        here = all(host in LOOPBACK or host.startswith("/") for host in hosts(self.url))
        wanted = self.tls if self.tls != "auto" else "prefer" if here else "verify"
        return {"off": "disable", "verify": "verify-full"}.get(wanted, wanted)

    def __repr__(self) -> str:
        return f"PostgresSettings(url={self.url!r}, schema={self.schema!r}, password=…)"

    def __rich_repr__(self) -> Any:
        yield "url", self.url
        yield "schema", self.schema


def check_url(url: str) -> None:
    """ValueError where it is no URL of a server, or holds what has a place of its own. It is never repeated: a
    password might be in it."""
    scheme, rest, _ = url.partition("://")
    if scheme not in SCHEMES or not rest:
        raise ValueError("url: expected postgresql://USER@HOST:PORT/DATABASE")
    address, _, query = url.partition("?")
    user = urllib.parse.urlsplit(address).netloc.rpartition("@")[0]
    names = [name.lower() for name, _ in urllib.parse.parse_qsl(query, keep_blank_values=True)]
    if ":" in user or any("password" in name for name in names):
        raise ValueError(
            "url: holds a password, and is shown to people; put it into password or password_file"
        )
    if odd := [name for name in names if name.startswith("ssl")]:
        raise ValueError(f"url: holds {odd[0]}; use tls, tls_ca, tls_cert and tls_key instead")
    if "options" in names or "client_encoding" in names:
        raise ValueError("url: options and client_encoding are set by the destination itself")


def hosts(url: str) -> list[str]:
    """The hosts of a URL; "" where it names none (the local socket)."""
    address, _, query = url.partition("?")
    named = dict(urllib.parse.parse_qsl(query))
    if given := named.get("hostaddr") or named.get("host"):
        return given.split(",")
    places = urllib.parse.urlsplit(address).netloc.rpartition("@")[2].split(",")
    return [urllib.parse.unquote(bare(place)) for place in places]


def bare(place: str) -> str:
    """A host without its port and brackets."""
    if place.startswith("["):
        return place[1:].partition("]")[0]
    return place.partition(":")[0]
