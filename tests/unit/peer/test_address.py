import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.kit.errors import Misconfigured
from headwater.peer import address
from headwater.peer.address import Interface, dialled, machine_interfaces, parse, reachable, resolve

HERE = (
    Interface("lo", ("127.0.0.1", "::1")),
    Interface("eth0", ("fe80::2", "10.0.0.5", "192.168.7.5", "fd00::5"), "02:fc:00:00:00:01"),
    Interface("eth1", ("93.184.216.34", "2606:2800:220:1::1"), "02:fc:00:00:00:02"),
    Interface("en-x.7", ("172.16.0.9",)),
    Interface("down0", ()),
)


@pytest.mark.parametrize(
    ("binding", "expected"),
    [
        ("tcp://[_site_:ipv4]:7511", ("93.184.216.34", 7511)),
        ("tcp://[_site_:ipv4]:7510", ("93.184.216.34", 7510)),
        ("tcp://[_site_:ipv6]:7511", ("2606:2800:220:1::1", 7511)),
        ("tcp://[_site_]:7511", ("93.184.216.34", 7511)),
        ("tcp://[_SITE_:IPV4]", ("93.184.216.34", 7511)),
        ("_site_", ("93.184.216.34", 7511)),
        ("_site_:9000", ("93.184.216.34", 9000)),
        ("[_public_]", ("93.184.216.34", 7511)),
        ("[_private_]", ("10.0.0.5", 7511)),
        ("[_private_:ipv6]", ("fd00::5", 7511)),
        ("[_local_]:1", ("127.0.0.1", 1)),
        ("[_local_:ipv6]", ("::1", 7511)),
        ("[_global_]", ("0.0.0.0", 7511)),
        ("[_global_:ipv6]", ("::", 7511)),
        ("tcp://[eth0:ipv4]:7511", ("10.0.0.5", 7511)),
        ("tcp://[eth0]", ("10.0.0.5", 7511)),
        ("[eth0:ipv6]", ("fd00::5", 7511)),
        ("[en-x.7:ipv4]:80", ("172.16.0.9", 80)),
        ("[02:FC:00:00:00:02]:80", ("93.184.216.34", 80)),
        ("[02:fc:00:00:00:02:ipv6]:80", ("2606:2800:220:1::1", 80)),
        ("tcp://[0.0.0.0:ipv4]:7511", ("0.0.0.0", 7511)),
        ("tcp://0.0.0.0:7511", ("0.0.0.0", 7511)),
        ("tcp://10.0.0.1", ("10.0.0.1", 7511)),
        ("tcp://host.name:99", ("host.name", 99)),
        ("tls://host.name:99", ("host.name", 99)),
        ("TCP://host.name:99", ("host.name", 99)),
        (" 127.0.0.1:0 ", ("127.0.0.1", 0)),
        ("tcp://[::1]:7511", ("::1", 7511)),
        ("[fd00::2]:7511", ("fd00::2", 7511)),
        ("[fd00::2:ipv6]", ("fd00::2", 7511)),
        ("[::]:7511", ("::", 7511)),
    ],
)
def test_every_documented_form_means_an_address(binding, expected):
    assert resolve(binding, HERE) == expected


def test_the_port_is_the_listeners_own_where_none_is_given():
    assert resolve("tcp://[eth0]", HERE, address.MEMBER_PORT) == ("10.0.0.5", 7510)
    assert resolve("tcp://[eth0]:7511", HERE, address.MEMBER_PORT) == ("10.0.0.5", 7511)


def test_without_a_public_address_the_site_is_a_private_one():
    assert resolve("[_site_]", HERE[:2]) == ("10.0.0.5", 7511)


@pytest.mark.parametrize(
    ("binding", "says"),
    [
        ("", "cannot be read"),
        ("tcp://", "cannot be read"),
        ("http://host:80", "scheme must be tcp"),
        ("tcp://host:80:90", "cannot be read|brackets"),
        ("::1", "stands in brackets"),
        ("fd00::2:7511", "stands in brackets"),
        ("tcp://[eth0:ipv5]:7511", "'ipv5' is no family"),
        ("tcp://[:ipv4]:7511", "nothing stands before"),
        ("tcp://[]:7511", "nothing stands before"),
        ("tcp://[eth0:ipv4]:99999", "99999 is no port"),
        ("tcp://[eth0:ipv4]:", "cannot be read|brackets"),
        ("tcp://[eth0:ipv4", "cannot be read|brackets"),
        ("host:port", "cannot be read"),
        ("a host:7511", "no host name"),
        ("host/path:7511", "cannot be read"),
        ("[10.0.0.5:ipv6]", "is an ipv4 address"),
        ("[::1:ipv4]", "is an ipv6 address"),
    ],
)
def test_what_is_no_binding_is_refused_with_what_was_expected(binding, says):
    with pytest.raises(Misconfigured, match=says) as caught:
        resolve(binding, HERE)
    assert repr(binding) in caught.value.message
    assert "INTERFACE:FAMILY" in caught.value.help


@pytest.mark.parametrize(
    ("binding", "says"),
    [
        ("[eth9:ipv4]:7511", "no network interface 'eth9'; it has lo, eth0, eth1"),
        ("[down0]", "no ipv4 address fits down0"),
        ("[en-x.7:ipv6]", "no ipv6 address fits en-x.7"),
    ],
)
def test_what_fits_nothing_says_what_there_is(binding, says):
    with pytest.raises(Misconfigured, match=says):
        resolve(binding, HERE)


def test_loopback_is_never_taken_silently():
    with pytest.raises(Misconfigured, match=r"no ipv4 address fits _site_.*lo 127\.0\.0\.1"):
        resolve("[_site_:ipv4]", HERE[:1])


@given(
    st.text(max_size=40) | st.from_regex(r"(tcp://)?\[?[a-z0-9_:.]{0,20}\]?(:[0-9]{0,6})?", fullmatch=True)
)
def test_any_text_is_a_binding_or_a_clear_error(text):
    try:
        host, port = resolve(text, HERE)
    except Misconfigured as error:
        assert error.help
    else:
        assert host
        assert 0 <= port <= 65535
        assert parse(text).port == port


def test_what_is_dialled_is_one_address():
    assert dialled("tcp://[fd00::2]:7511") == ("fd00::2", 7511)
    assert dialled("node-1:7510") == ("node-1", 7510)
    for wrong in ("[eth0:ipv4]:7511", "_site_:7511", "0.0.0.0:7511", "[::]:7511", "10.0.0.1:0"):
        with pytest.raises(Misconfigured):
            dialled(wrong)


def test_only_what_others_can_reach_may_be_told_them():
    assert [reachable(host) for host in ("10.0.0.1", "node-1", "fd00::1")] == [True] * 3
    assert [reachable(host) for host in ("0.0.0.0", "::", "127.0.0.1", "::1", "localhost")] == [False] * 5


def test_this_machine_has_a_loopback_with_its_address():
    assert "127.0.0.1" in next(i.addresses for i in machine_interfaces() if i.name == "lo")
    assert resolve("[_local_]", machine_interfaces())[0].startswith("127.")
