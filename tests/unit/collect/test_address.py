"""Client addresses: the right-most that is not a trusted proxy's, packed after the policy."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.collect.address import Forwarded, Proxies, by_policy, forwarded_proto, parse
from headwater.event.record import ADDRESS_NONE, ADDRESS_V6

PEER = ipaddress.ip_address("10.0.0.1")
PROXIES = Proxies(["10.0.0.0/8", "2001:db8:ffff::/48"], ("x-forwarded-for", "forwarded", "x-real-ip"))


@pytest.mark.parametrize(
    ("forwarded", "client"),
    [
        (Forwarded(x_forwarded_for="203.0.113.7"), "203.0.113.7"),
        (Forwarded(x_forwarded_for="1.1.1.1, 203.0.113.7"), "203.0.113.7"),
        (Forwarded(x_forwarded_for="1.1.1.1, 203.0.113.7, 10.9.9.9"), "203.0.113.7"),
        (Forwarded(x_forwarded_for="10.1.1.1, 10.9.9.9"), "10.1.1.1"),
        (Forwarded(x_forwarded_for="203.0.113.7, garbage, 10.9.9.9"), "10.9.9.9"),
        (Forwarded(x_forwarded_for="203.0.113.7:4711"), "203.0.113.7"),
        (Forwarded(x_forwarded_for="[2001:db8::1]:4711"), "2001:db8::1"),
        (Forwarded(x_forwarded_for="::ffff:203.0.113.7"), "203.0.113.7"),
        (Forwarded(x_forwarded_for="unknown"), "10.0.0.1"),
        (Forwarded(forwarded='for=1.1.1.1;proto=https, For="[2001:db8::7]:1";by=10.0.0.9'), "2001:db8::7"),
        (Forwarded(forwarded="for=_hidden, for=10.2.2.2"), "10.2.2.2"),
        (Forwarded(x_real_ip="203.0.113.9"), "203.0.113.9"),
        (Forwarded(x_forwarded_for="203.0.113.7", x_real_ip="203.0.113.9"), "203.0.113.7"),
        (Forwarded(), "10.0.0.1"),
    ],
)
def test_client_is_the_right_most_untrusted_hop(forwarded: Forwarded, client: str) -> None:
    assert PROXIES.client(PEER, forwarded) == ipaddress.ip_address(client)


def test_only_named_headers_count() -> None:
    proxies = Proxies(["10.0.0.0/8"], ("x-real-ip",))
    told = Forwarded(x_forwarded_for="1.1.1.1", x_real_ip="203.0.113.9")
    assert proxies.client(PEER, told) == ipaddress.ip_address("203.0.113.9")


def test_nobody_is_trusted_by_default() -> None:
    assert not Proxies([], ()).trust(PEER)


@given(st.text())
def test_any_header_text_is_survived(text: str) -> None:
    PROXIES.client(PEER, Forwarded(x_forwarded_for=text))
    PROXIES.client(PEER, Forwarded(forwarded=text))
    forwarded_proto(text)


@given(st.ip_addresses())
def test_policies_keep_what_they_say(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    kept = by_policy(address)
    full, truncated = kept["full"], kept["truncated"]
    assert kept["none"].flags == ADDRESS_NONE and kept["none"].packed == bytes(16)
    assert full.flags == truncated.flags == (ADDRESS_V6 if address.version == 6 else 0)
    if address.version == 4:
        assert full.packed == bytes(10) + b"\xff\xff" + address.packed
        assert truncated.packed == bytes(10) + b"\xff\xff" + address.packed[:3] + b"\0"
    else:
        assert full.packed == address.packed
        assert truncated.packed == address.packed[:6] + bytes(10)


def test_mapped_address_of_a_dual_stack_listener_is_ipv4() -> None:
    assert parse("::ffff:198.51.100.1") == ipaddress.ip_address("198.51.100.1")


def test_forwarded_proto_is_the_first_hops() -> None:
    assert forwarded_proto('for="a,b";proto=HTTPS, proto=http') == "https"
