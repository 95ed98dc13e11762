"""Blocks of Jitsu and Kuzzle, in the documents' own words, beside ours."""

from __future__ import annotations

import pytest

from headwater.kit.errors import Misconfigured
from headwater.node import configuration
from headwater.node.configuration import Configuration
from tests.unit.cluster.stores.test_aliases import COORDINATION, SHORTCUT

SECRET = "cluster: {secret: a-secret-of-the-cluster}\n"
KUZZLE = """
"plugins": {
  "common": {"pipeWarnTime": 5000, "pipeTimeout": 10000},
  "cluster": {
    "privileged": true,
    "bindings": {"pub": "tcp://[_site_:ipv4]:7511", "router": "tcp://[_site_:ipv4]:7510"},
    "minimumNodes": 1,
    "retryJoin": 30,
    "timers": {
      "discoverTimeout": 3000,
      "joinAttemptIntervall": 2000,
      "heartbeat": 5000,
      "waitForMissingRooms": 4500
    }
  }
}
"services": {
  "internalCache": {
    "database": 0,
    "nodes": [{"host": "redis1", "port": 6379}, {"host": "redis2", "port": 6379}, {"host": "redis3", "port": 6379}]
  },
  "memoryStorage": {
    "database": 0,
    "nodes": [{"host": "redis1", "port": 6379}, {"host": "redis2", "port": 6379}, {"host": "redis3", "port": 6379}]
  },
  "db": {"client": {"host": false, "hosts": [{"protocol": "http", "host": "elasticsearch1", "port": 9200}]}}
}
"""
"""Seed 004's complete sample, its two Elasticsearch nodes cut to one."""


def read(text: str) -> Configuration:
    def no_file(path: str) -> str:
        raise FileNotFoundError(2, "No such file or directory", path)

    return configuration.parse(text, "headwater.yaml", {}, no_file)


@pytest.mark.parametrize("text", [COORDINATION, SHORTCUT])
def test_seed_000_says_where_nodes_meet(text: str) -> None:
    cluster = read(text.replace("destinations:\n", "") + SECRET).settings.cluster
    assert cluster is not None and cluster.store is not None
    assert cluster.node == "en-node1-us.domain.com"
    assert cluster.admin_token == "your_admin_token"
    assert cluster.store.target.place == "Redis at your_redis_host:6379"
    assert cluster.store.password == "secret_password"


def test_seed_004_is_understood_as_it_stands() -> None:
    found = read(KUZZLE + SECRET)
    cluster = found.settings.cluster
    assert cluster is not None and cluster.store is not None
    assert (cluster.listen, cluster.lane) == ("tcp://[_site_:ipv4]:7510", "tcp://[_site_:ipv4]:7511")
    assert (cluster.heartbeat_s, cluster.join_retry_s, cluster.join_retry_max) == (5.0, 2.0, 30)
    assert cluster.store.target.place == "Redis Cluster redis1:6379, redis2:6379, redis3:6379"
    assert [one.key for one in found.left] == ["services.db", "plugins.common"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("server: {name: a, port: 8000}\n", "server.port: unknown; of `server` these are understood"),
        ("plugins: {other: {}}\n", "plugins.other: unknown"),
        ("plugins: {cluster: {minimunNodes: 3}}\n", "did you mean `minimumNodes`?"),
        ("plugins: {cluster: 5}\n", "plugins.cluster: expected a block"),
        ("server: {name: a}\n", "cluster.secret: is missing"),
        ("coordination: {type: etcd}\n", "coordination.type: expected redis"),
    ],
)
def test_what_is_wrong_in_it_is_said_with_its_place(text: str, said: str) -> None:
    with pytest.raises(Misconfigured) as refused:
        read(f"process: {{}}\n{text}")
    assert str(refused.value).startswith("headwater.yaml:2: ")
    assert said in str(refused.value)


def test_two_words_for_one_thing_must_say_the_same() -> None:
    both = "server: {{name: a}}\ncluster: {{node: {}, secret: a-secret-of-the-cluster}}\n"
    assert read(both.format("a")).settings.cluster is not None
    with pytest.raises(Misconfigured, match=r"cluster\.node: says something else"):
        read(both.format("b"))
