"""PROXY protocol: what a proxy says about the client before the first request of a connection.

Version 1 is a line, version 2 a binary header (HAProxy's ``proxy-protocol.txt``, §2.1 and §2.2)::

    12 signature | 1 version 2 and command | 1 family and transport | 2 length, big endian | addresses | TLVs

Both readers give the header's length and the client that it names, None while bytes are missing, and raise ValueError
at the first byte that cannot belong to one. The client is None where the header names none (the proxy's own health
check, a family that is no IP): the peer stays what it is. TLVs are skipped unread.
"""

from __future__ import annotations

import ipaddress
import re

from headwater.collect.address import IP

Found = tuple[int, IP | None]
"""Length of the header in bytes, and the client."""

LINE_BYTES_MAX = 107
LINE = re.compile(
    rb"PROXY (?:UNKNOWN[^\r\n]*|(TCP[46]) ([0-9A-Fa-f.:]+) ([0-9A-Fa-f.:]+) (\d{1,5}) (\d{1,5}))\r\n"
)
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
FIXED_BYTES = 16
HEADER_BYTES_MAX = 4096
"""Of a version 2 header. Addresses take 36 bytes; TLVs some hundred, with a client certificate's names in them."""
LOCAL, PROXY = 0x20, 0x21
ADDRESS_BYTES = {0x00: 0, 0x11: 12, 0x21: 36, 0x31: 216}
"""Family and transport → length of both addresses: unspecified, and streams over IPv4, IPv6 and unix sockets."""


def read_line(data: bytes) -> Found | None:
    """Version 1 at the start of ``data``."""
    end = data.find(b"\r\n", 0, LINE_BYTES_MAX)
    if end < 0:
        if len(data) >= LINE_BYTES_MAX or not b"PROXY ".startswith(data[:6]):
            raise ValueError("expected a PROXY v1 line")
        return None
    match = LINE.fullmatch(data, 0, end + 2)
    if match is None:
        raise ValueError("expected a PROXY v1 line")
    if match[1] is None:
        return end + 2, None
    address = parse_exact(match[2].decode("ascii"))
    if address is None or (address.version == 4) != (match[1] == b"TCP4"):
        raise ValueError("expected an address of the family that the PROXY line names")
    return end + 2, address


def read_header(data: bytes) -> Found | None:
    """Version 2 at the start of ``data``."""
    if not data.startswith(SIGNATURE[: len(data)]):
        raise ValueError("expected a PROXY v2 header, this connection begins with something else")
    if len(data) > 12 and data[12] not in (LOCAL, PROXY):
        raise ValueError(f"expected a PROXY header of version 2, command LOCAL or PROXY, got {data[12]:#04x}")
    if len(data) < FIXED_BYTES:
        return None
    length = FIXED_BYTES + int.from_bytes(data[14:16], "big")
    if length > HEADER_BYTES_MAX:
        raise ValueError(f"expected a PROXY v2 header of at most {HEADER_BYTES_MAX} bytes, got {length}")
    least = FIXED_BYTES
    if data[12] == PROXY:
        if data[13] not in ADDRESS_BYTES:
            raise ValueError(f"expected a stream over IPv4, IPv6 or a unix socket, got {data[13]:#04x}")
        least += ADDRESS_BYTES[data[13]]
    if length < least:
        raise ValueError(f"expected a PROXY v2 header of at least {least} bytes, got {length}")
    if len(data) < length:
        return None
    return length, client_of(data) if data[12] == PROXY else None


def client_of(header: bytes) -> IP | None:
    """The source address of a complete header; an IPv4-mapped one is IPv4."""
    if header[13] == 0x11:
        return ipaddress.IPv4Address(header[16:20])
    if header[13] == 0x21:
        address = ipaddress.IPv6Address(header[16:32])
        return address.ipv4_mapped or address
    return None


READERS = {"v1": read_line, "v2": read_header}
"""By ``collect.proxy_protocol``."""


def parse_exact(text: str) -> IP | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None
