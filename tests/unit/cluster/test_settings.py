"""The block `cluster:` says what is wrong with it, where, and takes Kuzzle's names for the same things."""

from __future__ import annotations

import importlib.util
from typing import Any
from unittest import mock

import pytest

from headwater.cluster.settings import ClusterSettings, KafkaLaneSettings
from headwater.kit.errors import Misconfigured
from headwater.node import configuration
from headwater.node.reload import compare
from headwater.node.settings import Settings

SECRET = "a-secret-of-the-cluster"
KUZZLE = """\
cluster:
  secret: a-secret-of-the-cluster
  privileged: true
  bindings: {pub: "tcp://[_site_:ipv4]:7511", router: "tcp://[_site_:ipv4]:7510"}
  minimumNodes: 2
  peers: ["10.0.0.1:7510"]
  retryJoin: 12
  timers: {discoverTimeout: 4000, joinAttemptIntervall: 2000, heartbeat: 5000, waitForMissingRooms: 4500}
"""


def read(text: str, files: dict[str, str] | None = None) -> Settings:
    """The settings of a configuration's text."""

    def read_text(path: str) -> str:
        if files is None or path not in files:
            raise FileNotFoundError(2, "No such file or directory", path)
        return files[path]

    return configuration.parse(text, "headwater.yaml", {}, read_text).settings


def cluster(**changed: Any) -> ClusterSettings:
    return ClusterSettings(secret=SECRET, **changed)


def refusal(text: str, files: dict[str, str] | None = None) -> str:
    with pytest.raises(Misconfigured) as refused:
        read(text, files)
    return str(refused.value)


def test_without_the_block_there_is_no_cluster() -> None:
    assert read("{}").cluster is None


@pytest.mark.parametrize(
    ("inside", "line", "said"),
    [
        ("name: a", 1, "cluster.secret: is missing"),
        ("secret: short", 2, "cluster.secret: expected at least 16 characters, got 5"),
        (f"secret: {SECRET}\n  secret_file: x", 3, "cluster.secret_file: stands beside `secret`"),
        (f"secret: {SECRET}\n  minimum_nodes: 2", 3, "2 nodes cannot find each other"),
        (f"secret: {SECRET}\n  weight: 101", 3, "cluster.weight: expected 0 to 100, got 101"),
        (f"secret: {SECRET}\n  lane: tcp://0.0.0.0:7510", 3, "has the port of cluster.listen"),
        (f"secret: {SECRET}\n  lane: tcp://[eth0:ipv4]:8421", 3, "has the port of ops.listen"),
        (f"secret: {SECRET}\n  listen: tcp://[eth0:ipv9]:1", 3, "'ipv9' is no family"),
        (f"secret: {SECRET}\n  store: {{url: 'nonsense'}}", 3, "cluster.store.url"),
        (f"secret: {SECRET}\n  peers: ['[eth0]']", 3, "expected a list of HOST:PORT"),
        (f"secret: {SECRET}\n  lease_ttl_s: 5", 3, "expected at least 3 heartbeats (6 s), got 5"),
        (f"secret: {SECRET}\n  advertise: 0.0.0.0", 3, "no address that others could dial"),
        (f"secret: {SECRET}\n  name: a b", 3, "expected 1 to 64 letters"),
        ("tls: {key: a}", 2, "certificate: is needed"),
        (
            "tls: {certificate: a, key: b, authority: c}\n  kafka: {servers: 'k:1'}",
            3,
            "signed with cluster.secret, and there is none",
        ),
        (f"secret: {SECRET}\n  kafka: {{}}", 3, "servers: expected HOST:PORT"),
        (f"secret: {SECRET}\n  kafka: {{servers: kafka}}", 3, "got 'kafka'"),
        (f"secret: {SECRET}\n  kafka: {{servers: 'k:1', topic: 'a b'}}", 3, "topic: expected 1 to 249"),
        (f"secret: {SECRET}\n  kafka: {{servers: 'k:1', user: u}}", 3, "user, password: give both"),
        (
            f"secret: {SECRET}\n  kafka: {{servers: 'k:1', partitions: 0}}",
            3,
            "partitions: expected 1 to 10000",
        ),
        (f"secret: {SECRET}\n  kafka: {{servers: 'k:1', server: k}}", 3, "did you mean `servers`?"),
        (
            f"secret: {SECRET}\n  kafka: {{servers: 'k:1', properties: {{acks: '1'}}}}",
            3,
            "acks may not be set",
        ),
        (
            f"secret: {SECRET}\n  kafka: {{servers: 'k:1', properties: {{sasl.password: x}}}}",
            3,
            "give `password`",
        ),
        (f"secret: {SECRET}\n  minimun_nodes: 3", 3, "did you mean `minimum_nodes`?"),
    ],
)
def test_a_wrong_block_is_refused_with_its_place(inside: str, line: int, said: str) -> None:
    told = refusal(f"cluster:\n  {inside}\n")
    assert told.startswith(f"headwater.yaml:{line}: cluster"), told
    assert said in told


def test_a_secret_is_never_in_a_refusal() -> None:
    assert "tooshort" not in refusal("cluster:\n  secret: tooshort\n")
    assert "tooshort" not in refusal("cluster:\n  secret_file: s\n", {"s": "tooshort"})


def test_files_of_secrets_are_looked_at_before_the_start() -> None:
    assert "cluster.secret_file: cannot read s" in refusal("cluster:\n  secret_file: s\n")
    assert read("cluster:\n  secret_file: s\n", {"s": f"{SECRET}\n"}).cluster is not None


def test_kuzzles_names_say_the_same() -> None:
    found = read(KUZZLE).cluster
    assert found is not None
    assert (found.listen, found.lane) == ("tcp://[_site_:ipv4]:7510", "tcp://[_site_:ipv4]:7511")
    assert (found.minimum_nodes, found.join_retry_max) == (2, 12)
    assert (found.heartbeat_s, found.join_retry_s, found.dial_timeout_s) == (5.0, 2.0, 4.0)
    assert found.lease_ttl_s == 15.0  # the default would be too short for such heartbeats


def test_both_spellings_of_the_misspelt_key_are_read() -> None:
    for spelling in ("joinAttemptInterval", "joinAttemptIntervall"):
        text = f"cluster: {{secret: {SECRET}, timers: {{{spelling}: 7000}}}}"
        found = read(text).cluster
        assert found is not None
        assert found.join_retry_s == 7.0


def test_two_names_that_differ_are_refused() -> None:
    told = refusal(f"cluster:\n  secret: {SECRET}\n  heartbeat_s: 3\n  timers: {{heartbeat: 5000}}\n")
    assert "cluster.timers.heartbeat: says 5.0, and cluster.heartbeat_s says 3.0" in told


def test_nothing_of_the_block_reloads() -> None:
    change = compare(Settings(cluster=cluster()), Settings(cluster=cluster(weight=50)))
    assert change.refused == ["cluster.weight"]


def test_the_kafka_lane_has_a_topic_of_the_cluster_and_speaks_as_it_is_told() -> None:
    told = cluster(name="main", kafka=KafkaLaneSettings(servers="a:1, b:2"))
    assert (told.kafka_topic, cluster(kafka=KafkaLaneSettings(servers="a:1", topic="t")).kafka_topic) == (
        "headwater-main",
        "t",
    )
    secured = KafkaLaneSettings(
        servers="a:1", tls=True, tls_ca_file="ca.pem", user="u", password="p", properties={"client.id": "x"}
    )
    assert secured.all_properties == {
        "security.protocol": "SASL_SSL",
        "ssl.ca.location": "ca.pem",
        "sasl.username": "u",
        "sasl.password": "p",
        "sasl.mechanism": "SCRAM-SHA-512",
        "client.id": "x",
    }


def test_the_kafka_lane_without_its_driver_is_refused_with_what_to_install() -> None:
    with mock.patch.object(importlib.util, "find_spec", return_value=None):
        told = refusal(f"cluster:\n  secret: {SECRET}\n  kafka: {{servers: 'k:1'}}\n")
    assert "cluster.kafka: needs the package confluent_kafka" in told
