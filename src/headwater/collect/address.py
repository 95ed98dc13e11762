"""The client's address: of the peer, or as a trusted proxy tells it, after the policy, in 16 bytes.

The walk through X-Forwarded-For and Forwarded goes from the right, over trusted proxies, to the first address that is
not one of them: what stands further left was said by somebody who is not trusted. An address that cannot be read ends
the walk; the last hop that could be read counts.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from headwater.event.record import ADDRESS_NONE, ADDRESS_V6

IP = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

MAPPED = bytes(10) + b"\xff\xff"
CACHE_MAX = 4096
ELEMENT = re.compile(r'\s*([A-Za-z-]+)\s*=\s*("(?:[^"\\]|\\.)*"|[^\s;,"]*)\s*')


class Address(NamedTuple):
    """As a record's stamp holds it (event/record.py)."""

    packed: bytes
    flags: int


NO_ADDRESS = Address(bytes(16), ADDRESS_NONE)
Addresses = dict[str, Address]
"""By policy: full, truncated, none. What is hashed is made from the full one (address_hash.py)."""


def parse(text: str) -> IP | None:
    """An address from a header: with or without port, brackets, zone; an IPv4-mapped one is IPv4."""
    text = text.strip().strip('"')
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def by_policy(address: IP | None) -> Addresses:
    """What each policy keeps of an address; nothing when there is none (unix sockets)."""
    if address is None:
        return {"full": NO_ADDRESS, "truncated": NO_ADDRESS, "none": NO_ADDRESS}
    if isinstance(address, ipaddress.IPv4Address):
        full, short, flags = MAPPED + address.packed, MAPPED + address.packed[:3] + b"\0", 0
    else:
        full, short, flags = address.packed, address.packed[:6] + bytes(10), ADDRESS_V6
    return {"full": Address(full, flags), "truncated": Address(short, flags), "none": NO_ADDRESS}


class Forwarded(NamedTuple):
    """The headers in which proxies tell where a request came from, as they came; empty text when they did not."""

    x_forwarded_for: str = ""
    forwarded: str = ""
    x_real_ip: str = ""


class Proxies:
    """The proxies that are believed."""

    def __init__(self, trusted: Iterable[str], headers: Sequence[str]) -> None:
        self.networks: list[Network] = [ipaddress.ip_network(one, strict=False) for one in trusted]
        self.headers = headers
        self.known: dict[IP, bool] = {}
        self.resolved: dict[tuple[IP, Forwarded], Addresses] = {}

    def trust(self, address: IP | None) -> bool:
        """Whether what this peer says about forwarding is believed."""
        if address is None or not self.networks:
            return False
        known = self.known.get(address)
        if known is None:
            known = any(address in network for network in self.networks)
            if len(self.known) >= CACHE_MAX:
                self.known.clear()
            self.known[address] = known
        return known

    def addresses(self, peer: IP, forwarded: Forwarded) -> Addresses:
        """By policy, for a request that came through the trusted ``peer``."""
        found = self.resolved.get((peer, forwarded))
        if found is None:
            found = by_policy(self.client(peer, forwarded))
            if len(self.resolved) >= CACHE_MAX:
                self.resolved.clear()
            self.resolved[peer, forwarded] = found
        return found

    def client(self, peer: IP, forwarded: Forwarded) -> IP:
        """The right-most address that is not a trusted proxy's."""
        for name in self.headers:
            if name == "x-forwarded-for" and forwarded.x_forwarded_for:
                return self.walk(peer, forwarded.x_forwarded_for.split(","))
            if name == "forwarded" and forwarded.forwarded:
                return self.walk(peer, forwarded_for(forwarded.forwarded))
            if name == "x-real-ip" and forwarded.x_real_ip:
                return self.walk(peer, [forwarded.x_real_ip])
        return peer

    def walk(self, peer: IP, hops: Sequence[str]) -> IP:
        client = peer
        for hop in reversed(hops):
            address = parse(hop)
            if address is None:
                return client
            client = address
            if not self.trust(address):
                return client
        return client


def forwarded_for(header: str) -> list[str]:
    """The `for` of each hop of a Forwarded header (RFC 7239); empty text for a hop without one."""
    return [parameters(element).get("for", "") for element in elements(header)]


def forwarded_proto(header: str) -> str:
    """The `proto` that the first hop of a Forwarded header tells."""
    hops = elements(header)
    return parameters(hops[0]).get("proto", "").lower() if hops else ""


def elements(header: str) -> list[str]:
    """The hops of a Forwarded header: split at commas that are not quoted."""
    return re.findall(r'(?:[^,"]|"(?:[^"\\]|\\.)*")+', header)


def parameters(element: str) -> dict[str, str]:
    return {name.lower(): value.strip('"') for name, value in ELEMENT.findall(element)}
