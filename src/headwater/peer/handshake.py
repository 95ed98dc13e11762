"""The first frames of a connection, after which both sides know whom they speak with.

::

    dialling side                       listening side
    HELLO {claims, nonce, expects}  →
                                    ←   HELLO {claims, nonce}
    PROOF {mac}                     →
                                    ←   WELCOME {mac}          now both may send what they like

Either side may answer REFUSED {code, message, help} instead, and close. The side that dialled proves first, so that
nobody gets a proof to guess secrets by who can only connect. Until the last frame each side keeps one frame of 4 KiB
of the other, and all of it together may take ``HANDSHAKE_S``.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

import msgspec

from headwater.kit.errors import Rejected, Unavailable
from headwater.peer import frames
from headwater.peer.frames import Kind
from headwater.peer.identity import (
    DIALLED,
    LISTENED,
    REASONS,
    Hello,
    Identity,
    Refused,
    agree,
    check_proof,
    decode_hello,
    encode_hello,
    proof,
)
from headwater.peer.link import Link

HANDSHAKE_S = 5.0
TOLD_CHARACTERS_MAX = 300
"""Of what an unknown peer gives as its reason."""


class Mac(msgspec.Struct, frozen=True):
    """The header of PROOF and WELCOME."""

    mac: bytes = b""


class Told(msgspec.Struct, frozen=True):
    """The header of REFUSED."""

    code: str = ""
    message: str = ""
    help: str = ""


decode_mac = msgspec.msgpack.Decoder(Mac).decode
decode_told = msgspec.msgpack.Decoder(Told).decode


async def introduce(link: Link, identity: Identity, expects: str) -> tuple[Hello, int]:
    """The side that dialled: who the other one is, and the protocol of both. Refused, Unavailable."""
    try:
        async with asyncio.timeout(HANDSHAKE_S):
            return await introduced(link, identity, expects)
    except TimeoutError:
        raise Unavailable(f"{link.address} took the connection, but says nothing", code="no_answer") from None
    except Rejected as error:
        raise given_up(link, identity, error, "dial") from error


async def introduced(link: Link, identity: Identity, expects: str) -> tuple[Hello, int]:
    own = encode_hello(identity.hello(identity.nonce(), expects))
    await link.send(Kind.HELLO, own)
    theirs = await receive(link, Kind.HELLO)
    hello = decode_hello(theirs.header)
    protocol = agree(identity, hello)
    if expects not in ("", hello.node):
        raise Refused(
            f"{link.address} is node {hello.node}, expected was {expects}",
            code="other_node",
            help="another node has its address now; the table or the store knows the new one",
        )
    await link.send(Kind.PROOF, mac_of(identity, DIALLED, own, theirs.header))
    welcome = await receive(link, Kind.WELCOME)
    check_mac(welcome, identity, LISTENED, own, theirs.header, hello.node)
    return hello, protocol


async def recognise(link: Link, identity: Identity) -> tuple[Hello, int]:
    """The side that listened, the same. Refused: told to the other side, counted, and the link has ended."""
    try:
        async with asyncio.timeout(HANDSHAKE_S):
            return await recognised(link, identity)
    except TimeoutError:
        late = Refused(f"{link.address} did not show who it is within {HANDSHAKE_S:g} s", code="too_slow")
        raise given_up(link, identity, late, "listen") from None
    except Unavailable as error:
        identity.count("ended", "listen")
        raise Refused(str(error), code="ended") from error
    except Rejected as error:
        raise given_up(link, identity, error, "listen") from error


async def recognised(link: Link, identity: Identity) -> tuple[Hello, int]:
    theirs = await receive(link, Kind.HELLO)
    hello = decode_hello(theirs.header)
    protocol = agree(identity, hello)
    own = encode_hello(identity.hello(identity.nonce()))
    await link.send(Kind.HELLO, own)
    check_mac(await receive(link, Kind.PROOF), identity, DIALLED, theirs.header, own, hello.node)
    await link.send(Kind.WELCOME, mac_of(identity, LISTENED, theirs.header, own))
    return hello, protocol


def given_up(link: Link, identity: Identity, error: Rejected, side: str) -> Refused:
    """The refusal, told and counted."""
    identity.count(error.code, side)
    link.refuse(error)
    if isinstance(error, Refused):
        return error
    return Refused(f"{link.address}: {error.message}", code=error.code, help=error.help)


async def receive(link: Link, kind: Kind) -> frames.Raw:
    """The next frame, which must be of this kind. Refused when it is not, or says so; Unavailable when none comes."""
    frame = await link.receive()
    if frame is None:
        raise why_closed(link)
    if frame.kind == Kind.REFUSED:
        raise told_refusal(link, frame)
    if frame.kind != kind:
        raise Refused(
            f"{link.address} sent {frames.kind_name(frame.kind)} where {kind.name} was expected",
            code="unexpected_frame",
        )
    return frame


def why_closed(link: Link) -> Rejected | Unavailable:
    """Why there is no next frame."""
    if link.violation is not None:
        return link.violation
    if isinstance(link.error, ssl.SSLError):
        return Refused(
            f"{link.address} refused the certificate, or none was shown: {link.error.reason or link.error}",
            code="tls",
            help="every node's certificate must be signed by the authority in cluster.tls",
        )
    return Unavailable(f"{link.address}: {link.closed}", code="connection_lost")


def told_refusal(link: Link, frame: frames.Raw) -> Refused:
    """The other side's reason; it may be anybody, so only so much of it is believed."""
    told = decode(decode_told, frame)
    code = told.code if told.code in REASONS else "other"
    return Refused(f"{link.address} refused: {shown(told.message)}", code=code, help=shown(told.help))


def shown(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text[:TOLD_CHARACTERS_MAX])


def mac_of(
    identity: Identity, side: bytes, dialled: bytes | memoryview, listened: bytes | memoryview
) -> bytes:
    """The header of PROOF or WELCOME."""
    return frames.encode_header({"mac": proof(identity.secret, side, dialled, listened)})


def check_mac(
    frame: frames.Raw,
    identity: Identity,
    side: bytes,
    dialled: bytes | memoryview,
    listened: bytes | memoryview,
    node: str,
) -> None:
    """Refused unless the frame has the proof of ``side``."""
    check_proof(decode(decode_mac, frame).mac, proof(identity.secret, side, dialled, listened), node)


def decode(decoder: Any, frame: frames.Raw) -> Any:
    try:
        return decoder(frame.header)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise Refused(f"a {frames.kind_name(frame.kind)} that cannot be read", code="bad_hello") from error
