"""Membership with real processes: three nodes on loopback, each whole, with a static list or with a real Redis.

The ids are those of reference/kuzzle.md §8.3. H is the default heartbeat, 2 s.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from headwater.cluster.member import Member
from headwater.cluster.settings import ClusterSettings
from headwater.cluster.table import NodeRecord
from headwater.kit.clock import SystemClock
from headwater.kit.counters import Counters
from headwater.kit.disk import SystemDisk
from headwater.kit.tasks import Group
from headwater.peer.identity import Identity
from tests.cluster.nodes import ADMIN_TOKEN, SECRET, ClusterNode, begin, cluster_of, wait_view
from tests.journeys.running import wait_for
from tests.parts import free_ports
from tests.rigs.redis import Single

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

H = 2.0
SHARES_S = 30.0
"""Until partitions are shared out evenly: an eighth moves at once, and state goes before it."""
START_S = 60.0
"""Of three nodes of five processes each on a machine that may be busy; what a test promises is measured apart."""


@pytest.fixture(scope="module")
def static(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[ClusterNode]]:
    """Three nodes with a list of each other."""
    with cluster_of(tmp_path_factory.mktemp("static"), 3) as nodes:
        yield nodes


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Single]:
    """A real Redis."""
    server = Single(tmp_path_factory.mktemp("redis"))
    server.up()
    try:
        yield server
    finally:
        server.close()


@pytest.fixture(scope="module")
def stored(redis: Single, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[ClusterNode]]:
    """Three nodes that find each other in Redis."""
    store = f"  store: {{url: 'redis://127.0.0.1:{redis.port}'}}"
    with cluster_of(tmp_path_factory.mktemp("stored"), 3, store) as nodes:
        yield nodes


@pytest.fixture(
    params=["static", pytest.param("stored", marks=[pytest.mark.real("redis"), pytest.mark.thorough])]
)
def trio(request: pytest.FixtureRequest) -> list[ClusterNode]:
    """Three nodes that see each other, however they found each other; what an earlier test ended runs again."""
    return together(request.getfixturevalue(request.param))


def together(nodes: list[ClusterNode]) -> list[ClusterNode]:
    """All of them run, and see each other."""
    begin([node for node in nodes if node.process is None or node.process.poll() is not None])
    wait_view(nodes, START_S + 15)
    return nodes


def measured(condition: Callable[[], bool], within_s: float, about: Callable[[], str]) -> float:
    """Seconds until it is so."""
    began = time.monotonic()
    wait_for(condition, within_s, about)
    return time.monotonic() - began


def about(nodes: Sequence[ClusterNode]) -> Callable[[], str]:
    """What failures show."""
    return lambda: "\n".join(f"{node.name}: {json.dumps(node.status())}\n{node.log()}" for node in nodes)


def told_of(node: ClusterNode, name: str) -> dict[str, Any]:
    """What a node tells of another one."""
    (one,) = [one for one in node.status()["nodes"] if one["name"] == name]
    return dict(one)


def owned(node: ClusterNode) -> dict[str, int]:
    """Partitions of each node, as this one sees it."""
    return {one["name"]: one["partitions"] for one in node.status()["nodes"]}


# -- join


def test_j3_nodes_that_start_at_once_have_one_view(trio: list[ClusterNode]) -> None:
    def tables() -> set[tuple[int, str, str]]:
        told = (node.status() for node in trio)
        return {(one["epoch"], one["leader"], one["cluster_id"]) for one in told}

    wait_for(lambda: sorted(owned(trio[0]).values()) == [21, 21, 22], SHARES_S, about(trio))
    wait_for(lambda: len(tables()) == 1, SHARES_S, about(trio))
    assert len({one["id"] for one in trio[0].status()["nodes"]}) == 3


def test_j1_the_first_node_is_ready_at_once_and_alone_in_the_activity(tmp_path: Path) -> None:
    with cluster_of(tmp_path, 1) as (node,):
        node.begin()
        wait_for(lambda: node.alive() and node.status() is not None, START_S, node.log)
        assert measured(lambda: node.status_of(node.ops, "/ready") == 200, 3 * H, node.log) <= H
        told = node.read("/cluster/_status")["result"]
        assert told["activeNodes"] == 1
        assert [one["event"] for one in told["activity"] if one["event"] == "joined"] == ["joined"]
        assert node.read("/_plugin/cluster/health")["result"] == "ok"


def test_j2_p1_below_the_minimum_nothing_is_accepted_until_it_is_met(tmp_path: Path) -> None:
    quick = H / 2
    with cluster_of(tmp_path, 3, more=f"  minimum_nodes: 3\n  heartbeat_s: {quick}") as nodes:
        a, b, c = nodes
        a.begin()
        wait_for(
            lambda: a.alive() and a.status() is not None and a.status_of(a.collect, "/ping") == 200, START_S
        )
        wait_for(lambda: "not enough nodes: 1 of at least 3 see each other" in a.reasons(), 5, a.reasons)
        assert a.status_of(a.ops, "/ready") == 503
        assert a.status_of(a.ops, "/ping") == a.status_of(a.collect, "/ping") == 200
        assert a.status_of(a.ops, "/_plugin/cluster/health") == 404
        status, told = a.post("/v1/track", {"event": "x", "anonymousId": "v"})
        assert (status, told["error"]) == (503, "not_enough_nodes"), told
        done = a.command("cluster", "status")
        assert done.returncode == 1 and "not viable" in done.stdout

        begin([b, c])
        wait_view(nodes, START_S)
        wait_for(lambda: all(n.status_of(n.ops, "/ready") == 200 for n in nodes), 1.0, about(nodes))
        assert a.post("/v1/track", {"event": "x", "anonymousId": "v"})[0] == 200

        c.kill_all()
        took_s = measured(lambda: a.status_of(a.ops, "/ready") == 503, 3 * H + 3, about([a, b]))
        assert took_s <= 3 * quick + 1, "P1: readiness fails within 3H"
        wait_for(lambda: a.post("/v1/track", {"event": "x", "anonymousId": "v"})[0] == 503, 0.5)
        c.begin()
        wait_for(
            lambda: a.post("/v1/track", {"event": "x", "anonymousId": "v"})[0] == 200, START_S, about(nodes)
        )


@pytest.mark.thorough
def test_p1_a_node_that_spools_accepts_into_its_own_log(tmp_path: Path) -> None:
    more = "  minimum_nodes: 3\n  below_minimum: spool"
    with cluster_of(tmp_path, 3, more=more) as (a, *_):
        a.begin()
        wait_for(lambda: a.alive() and a.status() is not None, START_S, a.log)
        wait_for(lambda: a.status_of(a.ops, "/ready") == 200, 5, a.log)
        assert a.post("/v1/track", {"event": "x", "anonymousId": "v"})[0] == 200
        assert not a.status()["viable"] and a.status()["waits_for"]


@pytest.mark.parametrize(
    ("setting", "said"),
    [("  name: another", "is of the cluster 'another'"), ("", "does not have this cluster's secret")],
)
def test_j6_a_stranger_is_refused_with_the_reason(
    tmp_path: Path, static: list[ClusterNode], setting: str, said: str
) -> None:
    nodes = together(static)
    with beside(nodes, tmp_path, "stranger", setting) as stranger:
        if not setting:
            stranger.secret = "another-secret-than-the-others"
            stranger.configure()
        stranger.begin()
        wait_for(lambda: said in stranger.waits_for(), START_S, about([*nodes, stranger]))
        told = stranger.status()
        assert not told["viable"] and told["epoch"] == 0, "no state leaked"
        assert [one["name"] for one in told["nodes"]] == ["stranger"]
        assert "stranger" not in nodes[0].here()
        assert "another-secret" not in nodes[0].log_text() + stranger.log_text()


@contextmanager
def beside(nodes: Sequence[ClusterNode], folder: Path, name: str, setting: str = "") -> Iterator[ClusterNode]:
    """One more node with the others in its list, not started."""
    peers = json.dumps([f"127.0.0.1:{node.member}" for node in nodes])
    node = ClusterNode(folder, name, f"  peers: {peers}\n{setting}")
    node.configure()
    try:
        yield node
    finally:
        node.close()


# -- failure


def test_f1_a_killed_node_is_evicted_within_7_s_with_the_reason(trio: list[ClusterNode]) -> None:
    """H1."""
    (leader,) = [node for node in trio if node.status()["leads"]]
    others = [node for node in trio if node is not leader]
    known = told_of(others[0], leader.name)["id"]
    leader.kill_all()
    names = [node.name for node in others]
    took_s = measured(lambda: all(node.sees(*names) for node in others), 15, about(others))
    assert took_s <= 7.0
    for node in others:
        last = node.events("evicted")[-1]
        assert (last["id"], last["name"], last["reason"]) == (known, leader.name, "heartbeat timeout")
        wait_for(lambda node=node: [owned(node)[name] for name in names] == [32, 32], SHARES_S, about(others))  # type: ignore[misc]


def test_f2_a_node_that_is_stopped_leaves_and_is_not_evicted(trio: list[ClusterNode]) -> None:
    a, b, c = trio
    wait_for(
        lambda: sorted(owned(a).values()) == [21, 21, 22], SHARES_S, about(trio)
    )  # it has what to hand over
    before = len(a.events("evicted"))
    assert c.process is not None
    c.signal(signal.SIGTERM)
    wait_for(lambda: a.sees("a", "b") and b.sees("a", "b"), 10, about([a, b]))
    assert c.process.wait(20) == 0
    assert [one["name"] for one in a.events("left")][-1] == "c"
    assert [one["name"] for one in a.events("draining")][-1] == "c"
    assert len(a.events("evicted")) == before


@pytest.mark.thorough
def test_f3_a_node_that_stood_still_briefly_stays(static: list[ClusterNode]) -> None:
    """F4: the member is a process of its own, so only this can stall it."""
    a, _, c = together(static)
    before, evicted = told_of(a, "c")["incarnation"], len(a.events("evicted"))
    pid = c.member_pid()
    os.kill(pid, signal.SIGSTOP)
    time.sleep(1.5 * H)
    os.kill(pid, signal.SIGCONT)
    time.sleep(H)
    assert told_of(a, "c")["incarnation"] == before
    assert len(a.events("evicted")) == evicted
    assert c.member_pid() == pid


def test_f3_a_node_that_stood_still_for_long_joins_again_in_the_same_process(trio: list[ClusterNode]) -> None:
    """H2."""
    a, b, c = trio
    before, pid = told_of(a, "c")["incarnation"], c.member_pid()
    os.kill(pid, signal.SIGSTOP)
    began = time.monotonic()
    took_s = measured(lambda: a.sees("a", "b"), 5 * H, about([a, b]))
    assert took_s <= 7.0
    time.sleep(max(0.0, 5 * H - (time.monotonic() - began)))
    os.kill(pid, signal.SIGCONT)
    wait_view(trio, 5 * H)
    assert told_of(a, "c")["incarnation"] > before
    assert c.member_pid() == pid
    told = [(one["event"], one["name"]) for one in a.status()["activity"]]
    assert told.index(("evicted", "c")) < len(told) - 1 - told[::-1].index(("joined", "c"))


@pytest.mark.real("redis")
@pytest.mark.thorough
def test_f5_while_the_store_is_down_the_cluster_goes_on(redis: Single, stored: list[ClusterNode]) -> None:
    """M5."""
    nodes = together(stored)
    before = [(node.status()["epoch"], len(node.events("evicted"))) for node in nodes]
    redis.down()
    try:
        end = time.monotonic() + 10
        while time.monotonic() < end:
            for node in nodes:
                answer = node.ask("GET", "/ready", port=node.ops)
                assert answer.status == 200, f"{node.name}: {answer.body.decode()}\n{about(nodes)()}"
            time.sleep(0.5)
        assert "Redis at" in nodes[0].waits_for()
    finally:
        redis.up()
    assert [(node.status()["epoch"], len(node.events("evicted"))) for node in nodes] == before
    wait_for(lambda: "Redis" not in nodes[0].waits_for(), 10, about(nodes))
    time.sleep(H)
    assert all(node.sees("a", "b", "c") for node in nodes)


# -- status and orders


def test_t1_t2_all_nodes_tell_the_same_in_all_forms(trio: list[ClusterNode]) -> None:
    told = [node.read("/cluster/_status")["result"] for node in trio]
    assert {one["activeNodes"] for one in told} == {3}
    assert (
        len(
            {
                json.dumps(sorted((n["id"], n["address"], n["birthdate"]) for n in one["nodes"]))
                for one in told
            }
        )
        == 1
    )
    assert all({"state", "epoch", "lag", "incarnation"} <= set(one) for one in told)
    plugin = trio[0].read("/_plugin/cluster/status")["result"]
    assert plugin["count"] == 3 and len(plugin["pool"]) == 2
    assert plugin["current"]["router"] == f"tcp://127.0.0.1:{trio[0].member}"


def test_a_drained_node_owns_nothing_until_it_is_taken_back(static: list[ClusterNode]) -> None:
    """H8."""
    a, b, c = together(static)
    assert a.command("cluster", "drain", "b").stdout == "b is draining\n"
    wait_for(lambda: owned(a)["b"] == 0 and owned(c)["b"] == 0, 3 * H, about(static))
    assert b.status_of(b.ops, "/ready") == 200, "it accepts events all the same"
    assert told_of(a, "b")["member"]
    assert a.command("cluster", "drain", "b", "--back").returncode == 0
    wait_for(lambda: sorted(owned(a).values()) == [21, 21, 22], 3 * H, about(static))


def test_orders_are_refused_in_words(static: list[ClusterNode]) -> None:
    a, _, _ = together(static)
    living, nobody = a.command("cluster", "evict", "b"), a.command("cluster", "drain", "nobody")
    assert (living.returncode, "b is alive" in living.stderr) == (2, True), living.stderr
    assert (nobody.returncode, "known are a (" in nobody.stderr) == (2, True), nobody.stderr
    assert a.order("drain", {"node": "b"}, token=f"{ADMIN_TOKEN}x") == 401
    assert a.order("evict", {"node": "b"}) == 400
    assert ADMIN_TOKEN not in a.log_text() + json.dumps(a.status())


def test_a_dead_node_is_evicted_at_once_when_an_operator_says_so(static: list[ClusterNode]) -> None:
    a, b, c = together(static)
    b.kill_all()
    wait_for(lambda: "b" not in a.here() or a.order("evict", {"node": "b"}) == 200, 3 * H, about([a, c]))
    wait_for(lambda: a.sees("a", "c"), 3.0, about([a, c]))


@pytest.mark.real("redis")
@pytest.mark.thorough
def test_t2_after_a_reset_everything_stands_in_the_store_again(
    redis: Single, stored: list[ClusterNode]
) -> None:
    a, *_ = nodes = together(stored)
    assert a.order("reset", {}) == 200
    wait_for(lambda: all(node.sees("a", "b", "c") for node in nodes), 3 * H, about(nodes))
    a.kill_all()  # who starts now finds the others through the store alone
    (a.data / "state" / "member" / "table").unlink()
    together(nodes)


def test_a_copied_data_folder_is_refused_while_the_first_one_lives(
    tmp_path: Path, static: list[ClusterNode]
) -> None:
    """J6, M4."""
    a, b, c = nodes = together(static)
    with beside(nodes, tmp_path, "copied") as copied:
        shutil.copytree(b.data, copied.data, ignore=shutil.ignore_patterns("run", "lock"))
        copied.begin()
        wait_for(lambda: bool(copied.status()), START_S, copied.log)
        wait_for(
            lambda: "is its data folder a copy?" in copied.waits_for(),
            START_S,
            about([*nodes, copied]),
        )
        assert not copied.status()["viable"]
        assert copied.status_of(copied.ops, "/ready") == 503
        assert all(node.sees("a", "b", "c") for node in (a, b, c))


async def test_j3_ten_members_that_start_at_once_have_one_view_within_10_s(tmp_path: Path) -> None:
    """The membership alone, on real sockets, in one process: ten whole nodes would only measure this machine."""
    count = 10
    with free_ports(count) as ports:
        pass
    peers = [f"127.0.0.1:{port}" for port in ports]
    async with Group("test", lambda *told: None) as group:
        members = [await member_on(tmp_path / str(n), ports[n], peers, group) for n in range(count)]
        began = time.monotonic()
        while not all(len(one.core.table.members) == count and one.page()["viable"] for one in members):
            assert time.monotonic() - began < 10.0, [one.page() for one in members]
            for one in members:
                one.tick()
            await SystemClock().sleep(0.05)
        assert len({one.core.table.order for one in members}) == 1
        for one in members:
            await one.links.close()


async def member_on(folder: Path, port: int, peers: list[str], group: Group) -> Member:
    """A member in this process."""
    (folder / "run").mkdir(parents=True)
    node = f"{port:012x}0000"
    settings = ClusterSettings(secret=SECRET, listen=f"tcp://127.0.0.1:{port}", peers=peers)
    member = Member(
        settings,
        NodeRecord(node=node, name=f"n{port}", incarnation=1, member_address=f"127.0.0.1:{port}"),
        Identity(node=node, incarnation=1, folder=node, cluster="headwater", secret=SECRET.encode()),
        None, data=str(folder), partitions=64, own_hosts={"127.0.0.1"}, disk=SystemDisk(), clock=SystemClock(),
        counters=Counters(), group=group, happened=lambda activity, name: None,
    )  # fmt: skip
    await member.start()
    return member
