"""The grammar of a store's addresses, what fits together, and what is never shown."""

from __future__ import annotations

import io
from typing import Any

import msgspec
import pytest
from rich.console import Console

from headwater.cluster.stores import registry
from headwater.cluster.stores.address import Address
from headwater.cluster.stores.memory import MemoryStore
from headwater.cluster.stores.settings import StoreSettings
from headwater.config import docs, load
from headwater.kit.errors import Misconfigured


def target(**settings: Any) -> Any:
    return StoreSettings(**settings).target


@pytest.mark.parametrize(
    ("url", "kind", "address", "user", "password", "database", "tls"),
    [
        ("redis://h", "single", ("h", 6379), "", "", 0, False),
        ("redis://h:7/3", "single", ("h", 7), "", "", 3, False),
        ("redis://:pw@h", "single", ("h", 6379), "", "pw", 0, False),
        ("redis://me:p%40w@h", "single", ("h", 6379), "me", "p@w", 0, False),
        ("redis://me:a@b:c@h", "single", ("h", 6379), "me", "a@b:c", 0, False),
        ("rediss://[::1]:7", "single", ("::1", 7), "", "", 0, True),
        ("redis://[fe80::1%eth0]", "single", ("fe80::1%eth0", 6379), "", "", 0, False),
        ("sentinel://main@h", "sentinel", ("h", 26379), "", "", 0, False),
        ("sentinel://main:pw@h:7/2", "sentinel", ("h", 7), "", "pw", 2, False),
    ],
)
def test_a_url_says_where_redis_is(
    url: str, kind: str, address: tuple[str, int], user: str, password: str, database: int, tls: bool
) -> None:
    one = target(url=url)
    assert one.addresses == (Address(*address),)
    assert (one.kind, one.user, one.password, one.database, one.tls) == (kind, user, password, database, tls)
    assert one.master == ("main" if kind == "sentinel" else "")


def test_several_sentinels_have_the_default_port_each() -> None:
    one = target(url="sentinel://main:pw@a:1,b,[::2],a:1")
    assert one.addresses == (Address("a", 1), Address("b", 26379), Address("::2", 26379))
    assert one.place == "Redis master main of the sentinels a:1, b:26379, [::2]:26379"


def test_nodes_are_a_cluster_or_sentinels_or_an_ensemble() -> None:
    nodes = ["a", "b:7"]
    assert target(nodes=nodes).kind == "cluster"
    assert target(nodes=nodes).addresses == (Address("a", 6379), Address("b", 7))
    sentinels = target(nodes=nodes, sentinel_master_name="main", database=2)
    assert (sentinels.kind, sentinels.master, sentinels.database) == ("sentinel", "main", 2)
    assert sentinels.addresses == (Address("a", 26379), Address("b", 7))
    ensemble = target(type="zookeeper", nodes=nodes, chroot="/x/y", user="u", password="p")
    assert ensemble.addresses == (Address("a", 2181), Address("b", 7))
    assert ensemble.place == "ZooKeeper a:2181, b:7/x/y"


def test_a_redis_url_with_a_masters_name_is_a_sentinels() -> None:
    one = target(url="redis://h", sentinel_master_name="main", password="pw")
    assert (one.kind, one.addresses, one.password) == ("sentinel", (Address("h", 26379),), "pw")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "url: is missing"),
        ({"url": "h:6379"}, "url: expected redis://"),
        ({"url": "http://hidden@h"}, "url: expected redis://"),
        ({"url": "redis://"}, "url: expected redis://"),
        ({"url": "redis://h?db=1"}, "url: expected redis://"),
        ({"url": "redis://:hidden@h:99999"}, "url: expected HOST[:PORT]"),
        ({"url": "redis://:hidden@h h"}, "url: expected HOST[:PORT]"),
        ({"url": "redis://:hidden@[h]"}, "url: expected HOST[:PORT]"),
        ({"url": "redis://:hidden@h/x"}, "url: expected the number of a database"),
        ({"url": "redis://a,b"}, "url: names several hosts"),
        ({"url": "sentinel://h"}, "url: the name of the master is missing"),
        ({"url": "sentinel://a@h", "sentinel_master_name": "b"}, "sentinel_master_name: url names another"),
        ({"url": "redis://:hidden@h", "password": "hidden2"}, "password: url names another"),
        ({"url": "redis://h/1", "database": 2}, "database: url names another"),
        ({"url": "redis://h", "nodes": ["a"]}, "nodes: stands beside url"),
        ({"url": "redis://h", "chroot": "/x"}, "chroot: is known to type zookeeper only"),
        ({"url": "redis://h", "call_timeout_s": 0}, "call_timeout_s: expected 0.1 to 60"),
        ({"url": "redis://h", "tls_key_file": "k"}, "tls_key_file: stands without tls_cert_file"),
        ({"nodes": ["a:b"]}, "nodes: expected HOST[:PORT] or [V6]:PORT, got 'a:b'"),
        ({"nodes": ["x:hidden@h"]}, "nodes: expected HOST[:PORT]"),
        ({"nodes": ["a"] * 101}, "nodes: expected at most 100"),
        ({"nodes": ["a"], "database": 1}, "database: a Redis Cluster has database 0 only"),
        ({"type": "zookeeper"}, "nodes: is missing"),
        ({"type": "zookeeper", "nodes": ["a"], "url": "redis://h"}, "url: is known to type redis only"),
        ({"type": "zookeeper", "nodes": ["a"], "chroot": "x"}, "chroot: expected a path"),
        ({"type": "zookeeper", "nodes": ["a"], "user": "u"}, "password: is missing"),
        ({"type": "zookeeper", "nodes": ["a"], "password": "hidden"}, "user: is missing"),
        ({"type": "zookeeper", "nodes": ["a"], "session_timeout_s": 60}, "session_timeout_s: expected 0.5 to 40"),
        ({"type": "memory", "database": 1}, "database: is known to type redis only"),
    ],
)  # fmt: skip
def test_what_does_not_fit_names_the_setting_and_no_password(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=":") as caught:
        StoreSettings(**settings)
    assert str(caught.value).startswith(said)
    assert "hidden" not in str(caught.value)


class Root(msgspec.Struct, forbid_unknown_fields=True):
    store: StoreSettings = StoreSettings(type="memory")


def converted(text: str) -> StoreSettings:
    document = load.read(text, "headwater.yaml", {})
    return load.convert(document, document.data, Root).store


def test_a_file_names_line_and_key() -> None:
    with pytest.raises(Misconfigured, match=r"headwater.yaml:3: store\.url: expected HOST") as caught:
        converted("store:\n  type: redis\n  url: 'redis://:hidden@h:x'\n")
    assert "hidden" not in str(caught.value)
    with pytest.raises(Misconfigured, match="did you mean `password`") as caught:
        converted("store: {url: 'redis://h', pasword: hidden}")
    assert "hidden" not in str(caught.value)


def test_no_password_is_shown() -> None:
    settings = StoreSettings(
        url="sentinel://main:hidden@h", sentinel_password="hidden", sentinel_master_name="main"
    )
    shown = io.StringIO()
    Console(file=shown, width=1000).print(settings)
    said = [repr(settings), str(settings), shown.getvalue(), repr(settings.target), settings.target.place]
    said.append(repr(msgspec.structs.replace(settings, url="redis://h", password="hidden")))
    assert not [text for text in said if "hidden" in text]
    assert "main" in said[0]


def test_a_password_in_a_url_or_under_a_longer_name_is_hidden_where_settings_are_explained() -> None:
    assert docs.is_secret("sentinel_password")
    assert not docs.is_secret("secret_file")
    assert docs.without_password("sentinel://main:hid@den@h:1,i/2") == "sentinel://main:…@h:1,i/2"
    assert docs.without_password("redis://:hidden@h") == "redis://:…@h"
    assert docs.without_password("redis://h:6379/0") == "redis://h:6379/0"
    assert docs.without_password(7) == 7


def test_the_registry_makes_each_kind_without_connecting() -> None:
    assert isinstance(registry.make(StoreSettings(type="memory")), MemoryStore)
    assert registry.make(StoreSettings(url="redis://:hidden@h.invalid")).place == "Redis at h.invalid:6379"
    with pytest.raises(Misconfigured, match=r"cluster\.name: expected 1 to 64 letters"):
        registry.make(StoreSettings(type="memory"), "a/b")
