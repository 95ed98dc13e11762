"""Where a node listens: the bindings grammar of Kuzzle's cluster plugin (seed 004), as it was documented.

::

    tcp://[_site_:ipv4]:7511     the first address of this machine that others can reach, of that family
    tcp://[eth0:ipv6]:7511       the first address of a network interface; also by its MAC: [02:fc:00:00:00:01]
    tcp://[0.0.0.0:ipv4]:7511    an address in brackets, as tcp://0.0.0.0:7511 and 0.0.0.0:7511 without
    tcp://[fd00::2]:7511         an IPv6 address; [fd00::2:ipv6] too
    tcp://node-1.example:7511    a host name, resolved when it is used

Words for addresses: ``_site_`` (a public address, else a private one; never loopback or link-local), ``_public_``,
``_private_``, ``_local_`` (loopback), ``_global_`` (all of them: 0.0.0.0 or ::). The family is ``ipv4`` [default] or
``ipv6``; an IPv6 address needs none. Without a port it is the listener's own [7510 members, 7511 lane]. The scheme
may be left out; ``tls://`` says the same as ``tcp://``, since TLS is set by cluster.tls.

What fits nothing is an error that says what there is; nothing falls back to loopback silently.
"""

from __future__ import annotations

import fcntl
import ipaddress
import os
import re
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from headwater.kit.errors import Misconfigured

MEMBER_PORT = 7510
LANE_PORT = 7511

Family = Literal["ipv4", "ipv6"]
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
WORDS = ("_site_", "_public_", "_private_", "_local_", "_global_")
EVERYWHERE = {"ipv4": "0.0.0.0", "ipv6": "::"}  # noqa: S104 - asked for by _global_ only
MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,252})")
SCHEME = re.compile(r"(?:(tcp|tls)://)?(.*)", re.IGNORECASE | re.DOTALL)
BRACKETED = re.compile(r"\[([^\[\]]*)\](?::(\d{1,5}))?")
PLAIN = re.compile(r"([^:\[\]/]+)(?::(\d{1,5}))?")
EXPECTED = (
    "expected tcp://HOST:PORT or tcp://[INTERFACE:FAMILY]:PORT; INTERFACE is the name of a network interface,"
    " an address, _site_, _public_, _private_, _local_ or _global_; FAMILY is ipv4 or ipv6"
)
SIOCGIFCONF = 0x8912
IFREQ = struct.Struct("16sHH4s16x")
IFCONF_BYTES_MAX = IFREQ.size * 1024


@dataclass(frozen=True, slots=True)
class Interface:
    """A network interface and its addresses, in the machine's order."""

    name: str
    addresses: tuple[str, ...]
    mac: str = ""


@dataclass(frozen=True, slots=True)
class Binding:
    """A binding as it is written. ``selector`` is a word, an interface, an address or a host name."""

    text: str
    selector: str
    family: Family | None
    """As it was said; None where it was not."""
    port: int
    bracketed: bool


def parse(text: str, default_port: int = LANE_PORT) -> Binding:
    """What a binding says. Misconfigured, naming it and what was expected, when it is none."""
    match = SCHEME.fullmatch(text.strip())
    rest = match[2] if match else ""
    if found := BRACKETED.fullmatch(rest):
        selector, family = split_family(text, found[1])
        if not selector:
            raise wrong(text, "nothing stands before the family")
        return Binding(text, selector, family, checked_port(text, found[2], default_port), True)
    if found := PLAIN.fullmatch(rest):
        if not HOST.fullmatch(found[1]):
            raise wrong(text, f"{found[1]!r} is no host name")
        return Binding(text, found[1], None, checked_port(text, found[2], default_port), False)
    if "://" in rest or ("://" in text[:12] and not text.lower().startswith(("tcp://", "tls://"))):
        raise wrong(text, "the scheme must be tcp")
    raise wrong(text, "an IPv6 address stands in brackets" if rest.count(":") > 1 else "it cannot be read")


def split_family(text: str, inside: str) -> tuple[str, Family | None]:
    """Selector and family of what stands in brackets; an address with colons is one selector."""
    if address_of(inside) is not None or MAC.fullmatch(inside.lower()):
        return inside, None
    selector, colon, family = inside.rpartition(":")
    if not colon:
        return inside, None
    match family.lower():
        case "ipv4":
            return selector, "ipv4"
        case "ipv6":
            return selector, "ipv6"
    raise wrong(text, f"{family!r} is no family")


def checked_port(text: str, port: str | None, default_port: int) -> int:
    if port is None:
        return default_port
    if int(port) > 65535:
        raise wrong(text, f"{port} is no port")
    return int(port)


def wrong(text: str, what: str) -> Misconfigured:
    return Misconfigured(
        f"not a binding: {text!r}: {what}", code="binding_format", help=EXPECTED, binding=text
    )


def resolve(text: str, interfaces: Sequence[Interface], default_port: int = LANE_PORT) -> tuple[str, int]:
    """The host and port to listen on. Misconfigured: not a binding, or it fits nothing among ``interfaces``."""
    binding = parse(text, default_port)
    return host_of(binding, interfaces), binding.port


def host_of(binding: Binding, interfaces: Sequence[Interface]) -> str:
    """The address, or the host name, that a binding means on a machine with these interfaces."""
    selector, family = binding.selector, binding.family or "ipv4"
    if (given := address_of(selector)) is not None:
        if binding.family is not None and family_of(given) != binding.family:
            raise wrong(binding.text, f"{selector} is an {family_of(given)} address")
        return str(given)
    if not binding.bracketed and selector.lower() not in WORDS:
        return selector
    if selector.lower() == "_global_":
        return EVERYWHERE[family]
    candidates = addresses_of(selector, interfaces)
    if candidates is None:
        there = ", ".join(interface.name for interface in interfaces) or "none"
        raise Misconfigured(
            f"{binding.text!r}: this machine has no network interface {selector!r}; it has {there}",
            code="binding_interface",
            help=EXPECTED,
            binding=binding.text,
        )
    for candidate in candidates:
        if family_of(candidate) == family:
            return str(candidate)
    there = ", ".join(f"{name} {text}" for name, text in listed(interfaces)) or "none"
    raise Misconfigured(
        f"{binding.text!r}: no {family} address fits {selector}; this machine has {there}",
        code="binding_address",
        help="name another interface or family, or write the address itself",
        binding=binding.text,
    )


def addresses_of(selector: str, interfaces: Sequence[Interface]) -> list[Address] | None:
    """The addresses that a word or an interface stands for, the first choice first; None: no such interface."""
    if selector.lower() in WORDS:
        every = [ipaddress.ip_address(text) for _, text in listed(interfaces)]
        return by_word(selector.lower(), every)
    for interface in interfaces:
        if selector == interface.name or selector.lower() == interface.mac.lower() != "":
            found = [ipaddress.ip_address(text) for text in interface.addresses]
            return sorted(found, key=lambda address: address.is_link_local)
    return None


def by_word(word: str, every: list[Address]) -> list[Address]:
    """Those of all addresses that a word means."""
    local = [address for address in every if address.is_loopback]
    reachable = [address for address in every if not address.is_loopback and not address.is_link_local]
    public = [address for address in reachable if address.is_global]
    private = [address for address in reachable if not address.is_global]
    return {"_local_": local, "_public_": public, "_private_": private, "_site_": public + private}[word]


def listed(interfaces: Sequence[Interface]) -> list[tuple[str, str]]:
    """Every address with the name of its interface."""
    return [(interface.name, address) for interface in interfaces for address in interface.addresses]


def address_of(text: str) -> Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def family_of(address: Address) -> Family:
    return "ipv4" if address.version == 4 else "ipv6"


def dialled(text: str, default_port: int = LANE_PORT) -> tuple[str, int]:
    """Host and port of an address to connect with: ``host:port``, ``[v6]:port``, with tcp:// or without."""
    binding = parse(text, default_port)
    if address_of(binding.selector) is None and (binding.bracketed or binding.selector.lower() in WORDS):
        raise wrong(text, "an address to connect with names a host, not one of this machine's interfaces")
    given = address_of(binding.selector)
    if binding.port == 0 or (given is not None and given.is_unspecified):
        raise wrong(text, "nobody can connect with it")
    return binding.selector, binding.port


def reachable(host: str) -> bool:
    """Whether another machine could connect with ``host``: not all addresses, not loopback."""
    given = address_of(host)
    if given is None:
        return host.lower() != "localhost"
    return not (given.is_unspecified or given.is_loopback)


# -- what this machine has ---------------------------------------------------------------------------------------------


def machine_interfaces() -> list[Interface]:
    """The interfaces of this machine (Linux), by number."""
    found: dict[str, list[str]] = {name: [] for _, name in socket.if_nameindex()}
    for name, address in [*ipv4_addresses(), *ipv6_addresses()]:
        found.setdefault(name, []).append(address)
    return [Interface(name, tuple(addresses), mac_of(name)) for name, addresses in found.items()]


def ipv4_addresses() -> list[tuple[str, str]]:
    """Interface and address, as the kernel lists them (netdevice(7), SIOCGIFCONF)."""
    import array

    space = array.array("B", bytes(IFCONF_BYTES_MAX))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        told = fcntl.ioctl(asking, SIOCGIFCONF, struct.pack("iL", len(space), space.buffer_info()[0]))
    used = struct.unpack("iL", told)[0]
    found = []
    for name, family, _, address in IFREQ.iter_unpack(bytes(space[: used - used % IFREQ.size])):
        if family == socket.AF_INET:
            found.append((name.split(b"\0")[0].decode().split(":")[0], socket.inet_ntoa(address)))
    return found


def ipv6_addresses() -> list[tuple[str, str]]:
    """Interface and address, from /proc; none where the kernel has no IPv6."""
    try:
        lines = Path("/proc/net/if_inet6").read_text().splitlines()
    except OSError:
        return []
    return [
        (fields[5], str(ipaddress.IPv6Address(bytes.fromhex(fields[0])))) for fields in map(str.split, lines)
    ]


def mac_of(name: str) -> str:
    """The interface's hardware address; empty where it has none."""
    try:
        text = Path("/sys/class/net", os.path.basename(name), "address").read_text().strip()
    except OSError:
        return ""
    return "" if text == "00:00:00:00:00:00" else text
