"""Stores in the words of other programs' documents: the text of the seeds, with the indentation that it had on the
page."""

from __future__ import annotations

from typing import Any

import pytest

from headwater.cluster.stores.address import Address
from headwater.cluster.stores.aliases import Taken, take
from headwater.config import load
from headwater.kit.errors import Misconfigured

COORDINATION = """
server:
  name: en-node1-us.domain.com #use unique name for each instance (e.g. hostname: en-node1-us.domain.com)
  admin_token: your_admin_token #is used in cluster information requests
destinations:
coordination:
  redis:
    host: your_redis_host
    port: 6379
    password: secret_password
    database: 0
"""
SHORTCUT = """
server:
  name: en-node1-us.domain.com
  admin_token: your_admin_token #is used in cluster information requests
destinations:
meta.storage:
  redis:
    host: your_redis_host
    port: 6379
    password: secret_password
    database: 0
coordination:
  type: redis
"""
SENTINEL = """
# eventnative.yaml
meta:
  storage:
    redis:
      host: your_sentinel_host # eg: localhost, redis-headless.redis.svc.cluster.local
      port: 26379
      sentinel_master_name: redis_dev_master
      database: 0
"""
SENTINEL_URL = """
meta:
  storage:
    redis:
      host: 'sentinel://redis_dev_master:redis_password@sentinel_host:26380'
"""
CONFIGURATOR = """
# configurator.yaml
storage:
  redis:
    host: '${env.REDIS_URL}'
    sentinel_master_name: 'redis_dev_master'
    port: 26379
    tls_skip_verify: '${env.TLS_SKIP_VERIFY|false}'
    database: 0
auth:
  redis:
    host: '${env.REDIS_URL}'
    port: 26379
    sentinel_master_name: 'redis_dev_master'
    database: 0
"""
KUZZLE = """
{"plugins": {
  "common": {"pipeWarnTime": 5000, "pipeTimeout": 10000},
  "cluster": {"privileged": true, "minimumNodes": 1, "retryJoin": 30}
 },
 "services": {
  "internalCache": {
    "database": 0,
    "nodes": [
      {"host": "redis1", "port": 6379},
      {"host": "redis2", "port": 6379},
      {"host": "redis3", "port": 6379}
    ]
  },
  "memoryStorage": {
    "database": 0,
    "nodes": [
      {"host": "redis1", "port": 6379},
      {"host": "redis2", "port": 6379},
      {"host": "redis3", "port": 6379}
    ]
  },
  "db": {"client": {"host": false, "hosts": [{"protocol": "http", "host": "elasticsearch1", "port": 9200}]}}
 }
}
"""


def taken(text: str, **environment: str) -> Taken:
    return take(load.read(text, "other.yaml", environment).data)


def target(text: str, **environment: str) -> Any:
    store = taken(text, **environment).store
    assert store is not None
    return store.target


@pytest.mark.parametrize("text", [COORDINATION, SHORTCUT])
def test_redis_with_host_port_password_and_database_is_taken(text: str) -> None:
    """Seed 000: `coordination: redis: …`, and `coordination: type: redis` with `meta.storage: redis`."""
    one = target(text)
    assert (one.kind, one.addresses, one.password, one.database) == (
        "single",
        (Address("your_redis_host", 6379),),
        "secret_password",
        0,
    )
    found = taken(text)
    assert (found.node, found.admin_token) == ("en-node1-us.domain.com", "your_admin_token")
    assert found.left == ()
    assert "your_admin_token" not in repr(found)
    assert "secret_password" not in repr(found)


def test_sentinel_is_taken_by_the_name_of_its_master() -> None:
    """Seed 000: "requires adding 'sentinel_master_name' key to the configuration"."""
    one = target(SENTINEL)
    assert (one.kind, one.master, one.addresses) == (
        "sentinel",
        "redis_dev_master",
        (Address("your_sentinel_host", 26379),),
    )
    assert target(SENTINEL.replace("port: 26379", "# no port")).addresses[0].port == 26379


def test_sentinel_is_taken_by_url() -> None:
    """Seed 000: "or configuration via sentinel URL"."""
    one = target(SENTINEL_URL)
    assert (one.kind, one.master, one.password) == ("sentinel", "redis_dev_master", "redis_password")
    assert one.addresses == (Address("sentinel_host", 26380),)
    several = target(SENTINEL_URL.replace("sentinel_host:26380", "one:1,two"))
    assert several.addresses == (Address("one", 1), Address("two", 26379))


def test_the_configurators_file_is_taken() -> None:
    """Seed 000: `storage: redis` with `${env.REDIS_URL}`; `auth: redis` is the same server."""
    one = target(CONFIGURATOR, REDIS_URL="one.example,two.example")
    assert one.kind == "sentinel"
    assert one.addresses == (Address("one.example", 26379), Address("two.example", 26379))
    assert not one.tls
    found = taken(CONFIGURATOR, REDIS_URL="rediss://:hidden@one.example", TLS_SKIP_VERIFY="true")
    assert found.store is not None
    assert found.store.tls_skip_verify
    assert found.store.target.tls
    (left,) = found.left
    assert left.key == "auth.redis"  # it says nothing of TLS
    assert "storage.redis says where nodes meet" in left.why


def test_a_redis_cluster_is_taken_by_its_node_array() -> None:
    """Seed 004: "Cluster node arrays", `services.internalCache` and `services.memoryStorage`."""
    one = target(KUZZLE)
    assert (one.kind, one.database) == ("cluster", 0)
    assert one.addresses == (Address("redis1", 6379), Address("redis2", 6379), Address("redis3", 6379))
    left = dict(taken(KUZZLE).left)
    assert sorted(left) == ["plugins.cluster", "plugins.common", "services.db"]
    assert "Elasticsearch" in left["services.db"]


def test_another_memory_storage_is_named_as_left() -> None:
    other = KUZZLE.replace('"memoryStorage": {\n    "database": 0', '"memoryStorage": {\n    "database": 1')
    assert "services.memoryStorage" in dict(taken(other).left)


def test_a_redis_cluster_with_another_database_is_refused() -> None:
    """Seed 004: "Single database only … make sure to set only one database index (0)"."""
    with pytest.raises(Misconfigured, match=r"services\.internalCache: database: a Redis Cluster has"):
        taken(KUZZLE.replace('"database": 0', '"database": 1'))


def test_one_node_of_kuzzle_is_taken() -> None:
    one = target("services: {internalCache: {node: {host: redis, port: 6380}, database: 2}}")
    assert (one.kind, one.addresses, one.database) == ("single", (Address("redis", 6380),), 2)


def test_a_document_without_a_store_has_none() -> None:
    assert taken("server: {name: a}") == Taken(node="a")
    assert taken("destinations: {}").store is None


def test_keys_that_mean_nothing_here_are_named() -> None:
    left = taken("meta.storage: {redis: {host: h, ttl_minutes: {anonymous_events: 1}}}").left
    assert [one.key for one in left] == ["meta.storage.redis.ttl_minutes"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("coordination: {type: redis}", "coordination.type: says redis, and neither"),
        ("coordination: {type: etcd}", "coordination.type: expected redis"),
        ("coordination: {etcd: {endpoint: e}}", "coordination.etcd: expected redis"),
        ("coordination: redis", "coordination: expected a block"),
        ("coordination: {redis: {port: 1}}", "coordination.redis: expected a block with `host`"),
        ("coordination: {redis: here}", "coordination.redis: expected a block with `host`"),
        ("coordination: {redis: {host: h, port: many}}", "coordination.redis.port: expected a whole number"),
        ("coordination: {redis: {host: 'http://u:hidden@h'}}", "coordination.redis.host: expected a host or a URL"),
        ("coordination: {redis: {host: 'redis://u:hidden@h:x'}}", "coordination.redis: url: expected HOST"),
        ("coordination: {redis: {host: 'h h'}}", "coordination.redis: url: expected HOST"),
        ("storage: {redis: {host: h, tls_skip_verify: maybe}}", "storage.redis.tls_skip_verify: expected true"),
        ("services: {internalCache: {nodes: []}}", "services.internalCache.nodes: expected a list"),
        ("services: {internalCache: {nodes: [{port: 1}]}}", "services.internalCache.nodes[0]: expected `host`"),
        ("services: {internalCache: {}}", "services.internalCache: expected a block"),
        ("server: {name: [a]}", "server.name: expected text"),
    ],
)  # fmt: skip
def test_what_cannot_be_taken_names_the_key_and_no_password(text: str, said: str) -> None:
    with pytest.raises(Misconfigured) as caught:
        taken(text)
    assert caught.value.message.startswith(said)
    assert "hidden" not in str(caught.value)
