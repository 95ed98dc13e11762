"""PROXY headers, as bytes: what they name, what may still be missing, and what is none."""

import ipaddress
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.collect.proxy_protocol import HEADER_BYTES_MAX, SIGNATURE, read_header, read_line

V4 = bytes([198, 51, 100, 1, 10, 0, 0, 1]) + struct.pack("!HH", 4711, 8420)
V6 = ipaddress.ip_address("2001:db8::7").packed + bytes(16) + struct.pack("!HH", 4711, 8420)
MAPPED = ipaddress.ip_address("::ffff:198.51.100.1").packed + bytes(16) + bytes(4)
TLVS = b"\x03\x00\x04\x12\x34\x56\x78\x20\x00\x05\x01\x00\x00\x00\x00"


def header(command: int, family: int, rest: bytes, length: int | None = None) -> bytes:
    """A version 2 header; ``length`` where it is to lie."""
    size = len(rest) if length is None else length
    return SIGNATURE + bytes([command, family]) + struct.pack("!H", size) + rest


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\nGET", (32, "1.2.3.4")),
        (b"PROXY TCP6 2001:db8::1 ::1 1 2\r\n", (32, "2001:db8::1")),
        (b"PROXY UNKNOWN\r\n", (15, None)),
        (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", (35, None)),
    ],
)
def test_proxy_line_names_the_client(data: bytes, found: tuple[int, str | None]) -> None:
    length, client = found
    assert read_line(data) == (length, ipaddress.ip_address(client) if client else None)


@pytest.mark.parametrize(
    "data", [b"", b"PRO", b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2", b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r"]
)
def test_proxy_line_may_come_in_pieces(data: bytes) -> None:
    assert read_line(data) is None


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n",
        b"PROXY TCP4 2001:db8::1 ::1 1 2\r\n",
        b"PROXY TCP6 1.2.3.4 5.6.7.8 1 2\r\n",
        b"PROXY TCP4 1.2.3.400 5.6.7.8 1 2\r\n",
        b"PROXY  TCP4 1.2.3.4 5.6.7.8 1 2\r\n",
        b"PROXY " + b"x" * 200,
        b"PROXX",
    ],
)
def test_anything_else_is_no_proxy_line(data: bytes) -> None:
    with pytest.raises(ValueError, match="expected"):
        read_line(data)


@pytest.mark.parametrize(
    ("data", "client"),
    [
        (header(0x21, 0x11, V4), "198.51.100.1"),
        (header(0x21, 0x11, V4 + TLVS), "198.51.100.1"),
        (header(0x21, 0x21, V6), "2001:db8::7"),
        (header(0x21, 0x21, V6 + TLVS), "2001:db8::7"),
        (header(0x21, 0x21, MAPPED), "198.51.100.1"),
        (header(0x21, 0x31, bytes(216)), None),
        (header(0x21, 0x00, b""), None),
        (header(0x21, 0x00, TLVS), None),
        (header(0x20, 0x00, b""), None),
        (header(0x20, 0x11, V4), None),
        (header(0x21, 0x11, V4.ljust(HEADER_BYTES_MAX - 16, b"\0")), "198.51.100.1"),
    ],
)
def test_header_names_the_client_and_its_own_length(data: bytes, client: str | None) -> None:
    named = ipaddress.ip_address(client) if client else None
    assert read_header(data) == (len(data), named)
    assert read_header(data + b"GET / HTTP/1.1\r\n\r\n") == (len(data), named)
    assert all(read_header(data[:at]) is None for at in range(len(data)))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"GET / HTTP/1.1\r\n", "something else"),
        (b"PROXY TCP4 198.51.100.1 10.0.0.1 1 2\r\n", "something else"),
        (b"\x16\x03\x01", "something else"),
        (SIGNATURE[:11] + b"X", "something else"),
        (SIGNATURE + b"\x11", "version 2"),
        (SIGNATURE + b"\x22", "version 2"),
        (header(0x21, 0x12, V4), "0x12"),
        (header(0x21, 0x41, V4), "0x41"),
        (header(0x21, 0x11, V4[:11]), "at least 28 bytes, got 27"),
        (header(0x21, 0x11, b"", 0), "at least 28 bytes"),
        (header(0x21, 0x21, V6[:35]), "at least 52 bytes, got 51"),
        (header(0x21, 0x11, V4, HEADER_BYTES_MAX), "at most 4096 bytes"),
        (header(0x20, 0x00, b"", 65_535), "at most 4096 bytes"),
    ],
)
def test_what_is_no_header_is_refused_at_once_with_the_reason(data: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        read_header(data)


@given(st.binary(max_size=80))
def test_any_bytes_behind_a_signature_are_read_or_refused(data: bytes) -> None:
    whole = SIGNATURE + data
    try:
        found = read_header(whole)
    except ValueError:
        return
    assert found is None or 16 <= found[0] <= len(whole)
