"""Two versions of Headwater in one cluster: nodes are upgraded one by one under load (protocol.md §12), and a node that
speaks no protocol of the others stays outside and says why.

The previous version is real: its code comes out of the history of this repository.
"""

from __future__ import annotations

import io
import json
import re
import shutil
import signal
import subprocess
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.chaos.load import Roaming
from tests.cluster.nodes import ClusterNode, cluster_of, wait_view
from tests.journeys.running import unique, wait_for
from tests.parts import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
PREVIOUS = "75e5350"
"""There is no tag yet; the last commit that spoke protocol 1 only."""
WAREHOUSE = (
    "destinations:\n  warehouse: {type: duckdb, node: a, path: warehouse.duckdb, sql: {rows_max: 1000000}}\n"
)
START_S, SETTLED_S, STOP_S = 60, 90, 60
CLIENTS = 3


@pytest.fixture(scope="module")
def previous(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The code of the previous version."""
    archive = subprocess.run(["git", "archive", PREVIOUS, "src"], cwd=ROOT, capture_output=True, check=False)
    if archive.returncode:
        pytest.skip(f"the history with {PREVIOUS} is not here: {archive.stderr.decode().strip()}")
    code = tmp_path_factory.mktemp("previous")
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as tar:
        tar.extractall(code)
    return code / "src"


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[list[ClusterNode]]:
    """Three, not started; the warehouse is a's."""
    with cluster_of(tmp_path, 3, sections=WAREHOUSE) as every:
        for node in every:
            node.environment["PYTHONPATH"] = str(ROOT / "src")
        yield every


def started(nodes: Sequence[ClusterNode]) -> None:
    """All there and ready."""
    for node in nodes:
        node.begin()
    ready(nodes)


def ready(nodes: Sequence[ClusterNode]) -> None:
    """All see each other, serve, and share the partitions."""
    wait_view(nodes, START_S)
    wait_for(lambda: all(shared(node) and node.status_of(node.ops, "/ready") == 200 for node in nodes), START_S,
             lambda: log(nodes), interval_s=0.2)  # fmt: skip


def shared(node: ClusterNode) -> bool:
    """Whether partitions and their standbys are spread over all nodes."""
    rows = node.status()["nodes"]
    owned, stood = ([row[name] for row in rows] for name in ("partitions", "standby"))
    return max(owned) - min(owned) <= 1 and min(stood) > 0


def log(nodes: Sequence[ClusterNode]) -> str:
    return "\n".join(f"--- {node.name} {json.dumps(node.status())}\n{node.log()}" for node in nodes)


def stands_by(node: ClusterNode) -> bool:
    """Whether the state of all that this node owns is on other nodes' disks."""
    told = node.status()["lanes"].get("standbys", {}).values()
    return bool(told) and all(one["told"] == one["partitions"] for one in told)


def protocols(node: ClusterNode) -> dict[str, int]:
    """What this node knows that everybody speaks."""
    return {row["name"]: row["protocol"] for row in node.status()["nodes"]}


def upgrade(node: ClusterNode) -> None:
    """Drain it when others have its state, and start it with today's code."""
    assert node.process is not None
    wait_for(lambda: stands_by(node), START_S, node.log, interval_s=0.2)
    node.signal(signal.SIGTERM)
    assert node.process.wait(STOP_S) == 0, node.log()
    node.environment["PYTHONPATH"] = str(ROOT / "src")
    node.begin()


def pending(told: str) -> bool:
    """Whether the JSON of a reconciliation has something under way."""
    return any(one["pending"] for one in json.loads(told))


def settled(nodes: Sequence[ClusterNode]) -> None:
    """Every node says that nothing is under way, and that the sums hold."""
    said = ""

    def holds() -> bool:
        nonlocal said
        for node in nodes:
            done = node.command("reconcile", "--json")
            said = done.stdout + done.stderr
            if (
                done.returncode
                or not done.stdout.startswith("[")
                or any(one["pending"] for one in json.loads(done.stdout))
            ):
                return False
        return True

    wait_for(holds, SETTLED_S, lambda: f"{said}\n{log(nodes)}", interval_s=0.3)


def arrived(node: ClusterNode, load: Roaming) -> None:
    """What was acknowledged is there, everything at most once."""
    done = node.command(
        "sql", "--json", "--limit", "1000000", f"select message_id from events where event = 'R{load.round}'"
    )
    assert done.returncode == 0, done.stderr
    there = unique(row["message_id"] for row in json.loads(done.stdout))
    assert load.acknowledged <= there <= load.sent.keys(), f"lost: {sorted(load.acknowledged - there)[:5]}"


@pytest.mark.thorough
@pytest.mark.timeout(600)
def test_a_cluster_is_upgraded_node_by_node_under_load_and_nothing_is_lost_or_doubled(
    nodes: list[ClusterNode], previous: Path
) -> None:
    a, b, c = nodes
    for node in nodes:
        node.environment["PYTHONPATH"] = str(previous)
    started(nodes)
    load = Roaming(*nodes, clients=CLIENTS, pause_s=0.05)
    nodes_new = [c, a, b]
    for number, node in enumerate(nodes_new):
        load.begin(number)
        upgrade(node)
        ready(nodes)
        assert set(protocols(node).values()) == ({1, 2} if node is not b else {2})
        load.rest()
        new = nodes_new[: number + 1]
        settled(new)
        arrived(new[0], load)
        assert len(load.acknowledged) > 50


def test_a_node_that_speaks_no_protocol_of_the_others_stays_outside_and_says_why(
    nodes: list[ClusterNode], tmp_path: Path
) -> None:
    a, b, c = nodes
    code = tmp_path / "code"
    shutil.copytree(ROOT / "src", code, ignore=shutil.ignore_patterns("__pycache__"))
    identity = code / "headwater" / "peer" / "identity.py"
    told = re.sub(r"^PROTOCOL = .*$", "PROTOCOL = (77, 79)", identity.read_text(), flags=re.MULTILINE)
    identity.write_text(told)
    c.environment["PYTHONPATH"] = str(code)
    for node in nodes:
        node.begin()
    wait_view([a, b], START_S)
    wait_for(lambda: "speaks protocols" in c.waits_for(), START_S, c.log)
    said = (
        "protocols 1 to 2, this one 77 to 79",
        "protocols 77 to 79, this one 1 to 2",
    )  # by whoever looked first
    assert any(one in c.waits_for() for one in said), c.waits_for()
    wait_for(lambda: all(node.status_of(node.ops, "/ready") == 200 for node in (a, b)), START_S, a.log)
    refused = 'headwater_peer_refused_total{reason="foreign_version"'
    assert refused in a.ask("GET", "/metrics", port=a.ops).body.decode()
    assert c.status_of(c.ops, "/ready") == 503
