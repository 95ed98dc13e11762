"""Who a node says it is, and how it shows that it belongs to the cluster.

Two sides prove to each other that they know ``cluster.secret`` without sending it: HMAC-SHA256 over which side speaks
and both HELLO headers as they were sent, which hold both nonces, both node ids, the name of the cluster and
everything else that was claimed. So no proof can be used twice, for another pair of nodes, for changed claims, or
handed back to the side that made it. With certificates (``Tls``) both sides show one that the authority signed,
instead or as well.

The secret keeps out whoever can connect. Whoever can change packets on their way can take over a connection after the
proofs, since frames are not sealed; where the network is not trusted, TLS is what helps.
"""

from __future__ import annotations

import functools
import hashlib
import hmac
import os
import ssl
from dataclasses import dataclass, field

import msgspec

from headwater.kit.clock import Clock, SystemClock
from headwater.kit.counters import Counters
from headwater.kit.errors import Misconfigured, Rejected
from headwater.kit.rng import Rng, SystemRng

PROTOCOL = (1, 2)
"""The oldest and the newest protocol that this release speaks. A connection has the newest that both sides speak, and
nothing of a later one is said on it. A change of what frames mean gets a number here:

1. the first;
2. an owner says to its standby which partitions it has told whole, and marks (node/standby/entries.py); heartbeats
   carry their sender's wall clock.
"""
STANDBY_MARKS, CLOCKS = 2, 2
"""Since which protocol these are said."""

NONCE_BYTES = 32
HELLO_BYTES_MAX = 4000
"""Of the header; a frame from somebody unknown has at most 4 KiB."""

DIALLED = b"headwater peer 1: dialled"
LISTENED = b"headwater peer 1: listened"
"""Which side a proof is made by, in front of everything else in it."""

REASONS = frozenset(
    (
        "wrong_secret", "wrong_cluster", "foreign_version", "self", "other_node", "bad_frame", "bad_header",
        "bad_hello", "unexpected_frame", "too_slow", "too_many", "tls", "ended",
    )
)  # fmt: skip
"""Why connections are refused; the label of the counter."""


class Refused(Rejected):
    """The other side, or this one, does not want this connection; ``code`` is the reason. Trying again at once is
    no use; another address or a mended configuration is."""

    code = "refused"


@dataclass(frozen=True, slots=True)
class Tls:
    """Files in PEM form: this node's certificate (with the chain above it), its key, and who may sign nodes'."""

    certificate: str
    key: str
    authority: str

    def context(self, *, listening: bool) -> ssl.SSLContext:
        """For one side; both ask for a certificate of the authority. Files that were replaced are read again.

        Misconfigured where a file is not what it should be."""
        try:
            stamps = tuple(os.stat(path).st_mtime_ns for path in (self.certificate, self.key, self.authority))
            return context_of(self, listening, stamps)
        except (OSError, ValueError) as error:  # SSLError is an OSError
            raise Misconfigured(
                f"cluster.tls: cannot use {self.certificate}, {self.key} and {self.authority}: {error}",
                code="tls_files",
                help="expected PEM files: the node's certificate, its unencrypted key, and the authority's certificate",
            ) from error


@functools.lru_cache(maxsize=16)
def context_of(tls: Tls, listening: bool, stamps: tuple[int, ...]) -> ssl.SSLContext:
    """The context of files with these times of change."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if listening else ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False  # nodes move between addresses; the authority is the cluster's own
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(tls.certificate, tls.key, password=no_password)
    context.load_verify_locations(tls.authority)
    return context


def no_password() -> str:
    """What OpenSSL gets for an encrypted key, instead of asking at the terminal."""
    raise ValueError("the key is encrypted")


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What this process shows to other nodes. ``purpose`` says what its connections are for (member, lane)."""

    node: str
    incarnation: int
    folder: str
    cluster: str
    name: str = ""
    purpose: str = ""
    secret: bytes = field(default=b"", repr=False)
    tls: Tls | None = None
    protocol: tuple[int, int] = PROTOCOL
    rng: Rng = field(default_factory=SystemRng)
    clock: Clock = field(default_factory=SystemClock)
    counters: Counters = field(default_factory=Counters)
    """``headwater_peer_refused_total{reason, side}``, ``headwater_peer_unknown_frames_total``."""

    def __post_init__(self) -> None:
        if not self.secret and self.tls is None:
            raise Misconfigured(
                "neither cluster.secret nor cluster.tls is set",
                code="cluster_open",
                help="anybody could join: set cluster.secret to at least 16 random characters, the same on all nodes",
            )
        if len(encode_hello(self.hello(bytes(NONCE_BYTES)))) > HELLO_BYTES_MAX:
            raise Misconfigured(
                "what this node would say of itself is too long",
                code="hello_size",
                help=f"names together must stay below {HELLO_BYTES_MAX} bytes",
            )

    def hello(self, nonce: bytes, expects: str = "") -> Hello:
        """What this node says first."""
        return Hello(
            protocol=self.protocol,
            cluster=self.cluster,
            node=self.node,
            incarnation=self.incarnation,
            folder=self.folder,
            name=self.name,
            purpose=self.purpose,
            expects=expects,
            secret=bool(self.secret),
            nonce=nonce,
        )

    def nonce(self) -> bytes:
        return b"".join(self.rng.u64().to_bytes(8, "big") for _ in range(NONCE_BYTES // 8))

    def count(self, reason: str, side: str) -> None:
        """A connection was refused, by this node or by the other one."""
        label = reason if reason in REASONS else "other"
        self.counters.add("headwater_peer_refused_total", reason=label, side=side)


class Hello(msgspec.Struct, frozen=True, kw_only=True):
    """What a node says of itself. Unknown fields are of newer nodes: ignored here, but part of the proofs."""

    protocol: tuple[int, int]
    cluster: str
    node: str
    incarnation: int
    folder: str
    name: str = ""
    purpose: str = ""
    expects: str = ""
    """Which node it wants to speak with; empty: whoever is there."""
    secret: bool = True
    """Whether it knows a secret; without one there must be certificates."""
    nonce: bytes = b""


encode_hello = msgspec.msgpack.Encoder().encode
decode_hello_struct = msgspec.msgpack.Decoder(Hello).decode


def decode_hello(header: memoryview) -> Hello:
    """Refused when it is none, or has no nonce of its own."""
    try:
        hello = decode_hello_struct(header)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise Refused("the first frame is not a HELLO that can be read", code="bad_hello") from error
    if len(hello.nonce) != NONCE_BYTES or not hello.node:
        raise Refused("the HELLO lacks its nonce or node id", code="bad_hello")
    return hello


def agree(here: Identity, there: Hello) -> int:
    """The protocol that both speak. Refused with the reason when the two must not speak with each other."""
    if there.cluster != here.cluster:
        raise Refused(
            f"node {there.node} is of the cluster {there.cluster!r}, this one of {here.cluster!r}",
            code="wrong_cluster",
            help="cluster.name must be the same on all nodes",
        )
    newest = min(here.protocol[1], there.protocol[1])
    if newest < max(here.protocol[0], there.protocol[0]):
        raise Refused(
            f"node {there.node} speaks protocols {there.protocol[0]} to {there.protocol[1]},"
            f" this one {here.protocol[0]} to {here.protocol[1]}",
            code="foreign_version",
            help="update node by node, none by more than one release",
        )
    if there.node == here.node:
        raise Refused(
            f"the other side has this node's own id {here.node}"
            f" (incarnation {there.incarnation}, here {here.incarnation})",
            code="self",
            help="a node dialled itself, or its data folder was copied: `headwater restore` makes a folder of its own",
            incarnation=there.incarnation,
        )
    if there.expects not in ("", here.node):
        raise Refused(
            f"node {there.node} looks for node {there.expects}; this is {here.node}", code="other_node"
        )
    if there.secret != bool(here.secret):
        raise Refused(
            "one side has a cluster secret, the other has none",
            code="wrong_secret",
            help="cluster.secret must be the same on all nodes",
        )
    return newest


def proof(secret: bytes, side: bytes, dialled: bytes | memoryview, listened: bytes | memoryview) -> bytes:
    """What ``side`` shows for having the secret: over both HELLO headers, the dialling side's first."""
    if not secret:
        return b""
    mac = hmac.new(secret, side, hashlib.sha256)
    for header in (dialled, listened):
        mac.update(len(header).to_bytes(4, "big"))
        mac.update(header)
    return mac.digest()


def check_proof(given: object, expected: bytes, node: str) -> None:
    """Refused unless they are the same; the time it takes does not tell where they differ."""
    if not isinstance(given, bytes) or not hmac.compare_digest(given, expected):
        raise Refused(
            f"node {node} does not have this cluster's secret",
            code="wrong_secret",
            help="cluster.secret must be the same on all nodes",
        )
