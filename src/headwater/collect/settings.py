"""Settings of the collector and of its keys.

Lists of what is allowed are checked here, at start, so that nothing wrong is found out by a visitor. Every error is
Misconfigured and names the field, what was expected and what was found; a secret is never in it.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Any, Literal

import msgspec

from headwater.kit.errors import Misconfigured

MIB = 1024 * 1024
RECORD_BYTES_MAX = 3_670_016
"""3.5 MiB: a body and its head must fit into one block of the log (log/block.py, 4 MiB)."""

KEY_ID = re.compile(r"[A-Za-z0-9_.-]{1,64}")
ORIGIN = re.compile(r"\*|null|[a-z][a-z0-9+.-]*://(\*\.)?[a-z0-9_\-.\[\]:]+")

Ack = Literal["memory", "disk", "replicated", "delivered"]
AddressPolicy = Literal["full", "truncated", "none", "hashed"]
ForwardedHeader = Literal["x-forwarded-for", "forwarded", "x-real-ip"]
Privacy = Literal["ignore", "anonymise", "drop"]


class CollectSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The listener and its bounds. Nothing here reloads: a change asks for a restart, which loses nothing."""

    listen: str = "127.0.0.1:8420"
    """Address and port of the collector; `[::]:8420` for all addresses. Loopback by default: opening is a decision."""
    workers: int = 1
    """Processes that share the port; each has its own log. One per core that collecting may take."""
    backlog: int = 1024
    """Connections the kernel keeps waiting for accept; the kernel's own limit (somaxconn) applies too."""
    connections_max: int = 10_000
    """Open connections per worker. One more is answered 503 and closed: an idle one costs about 2 KB."""
    header_bytes_max: int = 16_384
    """Request line and headers, bytes; 16 KiB is what nginx and Node allow. More is answered 431."""
    body_bytes_max: int = 1 * MIB
    """Body as sent, bytes, below 3.5 MiB (one record must fit into one block). More is answered 413."""
    decompressed_bytes_max: int = 3 * MIB
    """Body after decompression, bytes, below 3.5 MiB; decompression stops there, so a bomb costs no more."""
    partial_bytes_max: int = 64 * MIB
    """Bytes of requests that are not yet complete, over all connections of a worker; more is answered 503. Bounds
    what many slow uploads can hold at once."""
    header_deadline_s: float = 10.0
    """A request's head must be complete so many seconds after its first byte, else 408 and close (slow-loris)."""
    body_deadline_s: float = 30.0
    """A body must be complete so many seconds after its head; 1 MiB at 35 KB/s. Also how long an answer may wait
    for a client that does not read."""
    idle_deadline_s: float = 75.0
    """A connection without a request is closed after so many seconds; above the 60 s that load balancers keep."""
    pipeline_max: int = 64
    """Unanswered requests per connection; reading stops there until answers have gone."""
    batch_events_max: int = 5_000
    """Events in one request. Segment's clients send at most 500 KB, some hundred events."""
    event_bytes_max: int = 262_144
    """One event, bytes. Segment's limit is 32 KB; larger ones are mostly mistakes, and cost every later step."""
    id_length_max: int = 512
    """Characters of an anonymous, user, message, group or previous id; longer is a mistake that would bloat state."""
    delivered_timeout_s: float = 8.0
    """How long a request at `ack: delivered` waits for its destination once its events are on this node's disk,
    seconds; then it is answered 503 `not_delivered`, which says that they are. Below the 10 s after which many clients
    give up. Per worker, as many requests may wait so as there may be connections."""
    pending_bytes_max: int = 32 * MIB
    """Bytes that wait for the disk, per worker, before requests are answered 503: about 0.1 s of a slow disk."""
    trusted_proxies: list[str] = []
    """Addresses or networks (CIDR) whose forwarded headers are believed. Empty: nobody's, the peer is the client."""
    forwarded_headers: tuple[ForwardedHeader, ...] = ("x-forwarded-for", "forwarded", "x-real-ip")
    """Which headers of trusted proxies tell the client's address; the first that is there counts. Name only what your
    proxy writes itself: one that it passes on unread could be the client's invention."""
    proxy_protocol: Literal["off", "v1", "v2"] = "off"
    """`v2` (HAProxy `send-proxy-v2`, AWS network load balancers) or `v1` (`send-proxy`): every connection begins with
    such a header, which tells the client's address. It must come from a proxy in `trusted_proxies`, complete within
    `header_deadline_s`; a connection from elsewhere, or without it, is answered 400 and counted as `proxy_protocol`."""
    client_address: AddressPolicy = "full"
    """What is kept of client addresses: `full`, `truncated` (/24 and /48), `hashed` (with a salt that rotates: the same
    visitor has the same 32 hex digits until then, no place is found from it), `none`. Keys may say otherwise."""
    address_salt_rotation_s: int = 86_400
    """How long the salt of `hashed` addresses lives, seconds, counted in UTC: by default from midnight to midnight. It
    is destroyed then, and nobody can find an address from its hash any more."""
    preflight_max_age_s: int = 7_200
    """How long browsers may remember a preflight; Chromium honours no more than 7,200 s."""
    head_cache_bytes_max: int = 16 * MIB
    """Memory of remembered request heads per worker, bytes; see collect/heads.py."""

    def __post_init__(self) -> None:
        for name, least, most in COLLECT_BOUNDS:
            value = getattr(self, name)
            if not least <= value <= most:
                raise wrong(f"collect.{name}", f"a number from {least} to {most}", value)
        host_and_port(self.listen)
        for network in self.trusted_proxies:
            try:
                ipaddress.ip_network(network, strict=False)
            except ValueError:
                raise wrong(
                    "collect.trusted_proxies", "addresses or networks like 10.0.0.0/8", network
                ) from None
        if self.proxy_protocol != "off" and not self.trusted_proxies:
            raise wrong(
                "collect.trusted_proxies",
                f"the addresses of the proxies, since proxy_protocol is {self.proxy_protocol}",
                self.trusted_proxies,
                help="whoever may send this header names the client; that must not be everybody",
            )


COLLECT_BOUNDS: tuple[tuple[str, float, float], ...] = (
    ("workers", 1, 256),
    ("backlog", 1, 65_535),
    ("connections_max", 1, 1_000_000),
    ("header_bytes_max", 1_024, 1_048_576),
    ("body_bytes_max", 1_024, RECORD_BYTES_MAX - 1),
    ("decompressed_bytes_max", 1_024, RECORD_BYTES_MAX - 1),
    ("partial_bytes_max", 1_048_576, 1_073_741_824),
    ("header_deadline_s", 0.1, 3_600),
    ("body_deadline_s", 0.1, 3_600),
    ("idle_deadline_s", 0.1, 86_400),
    ("pipeline_max", 1, 10_000),
    ("batch_events_max", 1, 100_000),
    ("event_bytes_max", 128, RECORD_BYTES_MAX - 1),
    ("id_length_max", 16, 4_096),
    ("delivered_timeout_s", 0.1, 600),
    ("pending_bytes_max", 65_536, 1_073_741_824),
    ("address_salt_rotation_s", 60, 31_622_400),
    ("preflight_max_age_s", 0, 86_400),
    ("head_cache_bytes_max", 0, 1_073_741_824),
)


class KeySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A write key: who may send, from where, and what an acknowledgement promises. All of it reloads."""

    id: str
    """Name of the key and of its stream, as it stands in rows, reports and reconcile; never secret, never changed."""
    secret: str | list[str] = ""
    """What clients send. Two while clients move from one to the other (rotation): both are valid."""
    secret_file: str = ""
    """Instead: a file with one secret per line, relative to the data folder; readable by its owner only."""
    kind: Literal["browser", "server", ""] = ""
    """`browser`: visible to everyone, bound to origins. `server`: kept secret, refused when an Origin comes with it.
    Default: browser when `origins` is given, else server."""
    origins: list[str] = []
    """Of a browser key: the pages that may send. `*`, `https://shop.example.com`, `https://*.example.com` (any depth
    of subdomains, not the domain itself)."""
    require_origin: bool = False
    """Refuse a browser key without an Origin header. Off: apps, image pixels and older browsers send none."""
    ack: Ack = "disk"
    """What 2xx promises: `disk` (fsynced, survives power loss), `memory` (lost with the process), `replicated`
    (fsynced on `cluster.copies` nodes, survives the loss of this node's disk; needs a `cluster` block), or `delivered`
    (the destination `ack_destination` has passed the events: a second or two later)."""
    ack_destination: str = ""
    """At `ack: delivered`: the destination that is waited for. May be left out where there is exactly one."""
    events_per_s_max: float = 0.0
    """Quota over all workers, events per second; 0 = none. More is answered 429 with Retry-After."""
    burst_events: float = 0.0
    """How many events may come at once above the rate; 0 = ten seconds of the rate."""
    client_address: AddressPolicy | None = None
    """Instead of collect.client_address, for this key."""
    privacy: Privacy = "ignore"
    """When the browser says Do-Not-Track or Global Privacy Control: `ignore`, `anonymise` (keep no address; the wish
    stays with the record for later steps), `drop` (answer 2xx, keep nothing)."""

    def __post_init__(self) -> None:
        at = f"keys[{self.id}]" if KEY_ID.fullmatch(self.id) else "keys"
        if not KEY_ID.fullmatch(self.id):
            raise wrong("keys.id", "1 to 64 letters, digits, `_`, `-` or `.`", self.id)
        self.check_secrets(at)
        for origin in self.origins:
            if not ORIGIN.fullmatch(origin.lower()):
                raise wrong(
                    f"{at}.origins", "`*`, `https://host[:port]` or `https://*.host` without a path", origin
                )
        if self.origins and self.kind == "server":
            raise wrong(f"{at}.origins", "none, since kind is server", self.origins)
        if self.kind == "browser" and not self.origins:
            raise wrong(
                f"{at}.origins", 'at least one, since kind is browser (`["*"]` for every page)', self.origins
            )
        if self.ack_destination and self.ack != "delivered":
            raise wrong(
                f"{at}.ack_destination",
                f"none, since ack is {self.ack}",
                self.ack_destination,
                help="only `ack: delivered` waits for a destination",
            )
        if self.events_per_s_max < 0 or self.burst_events < 0:
            raise wrong(f"{at}.events_per_s_max", "0 or more", min(self.events_per_s_max, self.burst_events))

    def check_secrets(self, at: str) -> None:
        if bool(self.secrets) == bool(self.secret_file):
            raise wrong(at, "either secret or secret_file", "both" if self.secrets else "neither")
        if len(self.secrets) > 2:
            raise wrong(f"{at}.secret", "one, or two while rotating", f"{len(self.secrets)} of them")
        for secret in self.secrets:
            check_secret(f"{at}.secret", secret)

    @property
    def secrets(self) -> list[str]:
        """The secrets given in the configuration itself."""
        return [self.secret] if isinstance(self.secret, str) and self.secret else list(self.secret or [])

    @property
    def browser(self) -> bool:
        """Whether this is a browser key."""
        return self.kind == "browser" or (not self.kind and bool(self.origins))

    def __repr__(self) -> str:
        return f"KeySettings(id={self.id!r}, secret=…, kind={'browser' if self.browser else 'server'!r})"

    def __rich_repr__(self) -> Any:
        yield "id", self.id


def check_secret(field: str, secret: str) -> None:
    """Misconfigured when a secret could not be sent in every way that a key may come."""
    if not 8 <= len(secret) <= 256 or not re.fullmatch(r"[!-~]+", secret) or ":" in secret:
        raise wrong(field, "8 to 256 visible ASCII characters without `:`", f"{len(secret)} characters")


def host_and_port(listen: str) -> tuple[str, int]:
    """`host:port` or `[v6]:port` as a pair."""
    host, _, port = listen.rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    if not bare or not port.isdecimal() or int(port) > 65_535 or (":" in bare and bare == host):
        raise wrong("collect.listen", "host:port, like 127.0.0.1:8420 or [::]:8420", listen)
    return bare, int(port)


def wrong(field: str, expected: str, got: object, *, help: str = "") -> Misconfigured:
    """The one form of a settings error."""
    return Misconfigured(
        f"{field}: expected {expected}, got {got!r}",
        code="settings",
        help=help,
        field=field,
        expected=expected,
        got=repr(got),
    )
