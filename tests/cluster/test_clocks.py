"""A node of three whose clock is wrong: every node says so, once, and it is said when it is over."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.nodes import ClusterNode, begin, cluster_of, wait_view
from tests.journeys.running import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]
HOOK = Path(__file__).parents[1] / "journeys" / "jump"
START_S, SEEN_S = 60, 30
AHEAD_S = 40


class Three:
    """a and b go by the machine's clock, c by one that is set."""

    def __init__(self, nodes: list[ClusterNode], clock: Path) -> None:
        self.nodes, self.clock = nodes, clock
        path = os.environ.get("PYTHONPATH", "")
        nodes[-1].environment |= {"PYTHONPATH": f"{HOOK}:{path}", "HEADWATER_TEST_CLOCK": str(clock)}
        self.set(AHEAD_S)

    def set(self, offset_s: int) -> None:
        later = self.clock.with_suffix(".new")
        later.write_text(str(offset_s))
        later.rename(self.clock)

    def warned(self, node: ClusterNode) -> list[str]:
        """What this node warns of."""
        return list((node.status() or {}).get("warnings", []))

    def lines(self, node: ClusterNode, happening: str) -> list[str]:
        """The names of those whose clocks it told of in its log."""
        found = [json.loads(line) for line in node.log_text().splitlines() if f'"{happening}"' in line]
        return [str(one["node_name"]) for one in found]


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Three]:
    folder = tmp_path_factory.mktemp("clocks")
    with cluster_of(folder, 3) as nodes:
        made = Three(nodes, folder / "clock")
        begin(nodes)
        wait_view(nodes, START_S)
        yield made


def test_a_wrong_clock_is_named_by_every_node_and_once_in_each_log_until_it_is_set_right(
    three: Three,
) -> None:
    for node in three.nodes:
        wait_for(lambda node=node: bool(three.warned(node)), SEEN_S, node.log)  # type: ignore[misc]
        (warning,) = three.warned(node)
        assert "the clock of c is 4" in warning or "the clock of c is 39" in warning, warning
        assert "ahead of that of most nodes" in warning
        assert three.lines(node, "cluster_clock_wrong") == ["c"]
    a = three.nodes[0]
    shown = a.command("cluster", "status").stdout
    assert "warning: the clock of c is" in shown and re.search(r"\+(39|4\d)", shown), shown
    metrics = a.ask("GET", "/metrics", port=a.ops).body.decode()
    (line,) = [one for one in metrics.splitlines() if 'clock_ahead_seconds{node="c"}' in one]
    assert AHEAD_S - 2 < float(line.rpartition(" ")[2]) < AHEAD_S + 2
    assert all(node.status_of(node.ops, "/ready") == 200 for node in three.nodes), "nothing waits for it"
    three.set(0)
    for node in three.nodes:
        wait_for(lambda node=node: not three.warned(node), SEEN_S, node.log)  # type: ignore[misc]
        wait_for(lambda node=node: three.lines(node, "cluster_clock_right") == ["c"], SEEN_S, node.log)  # type: ignore[misc]
        assert three.lines(node, "cluster_clock_wrong") == ["c"]
