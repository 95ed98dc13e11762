"""Chaos on several nodes in its short form; the long one is `make chaos ARGS='--nodes 3 …'` (tests/chaos/many.py)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos import many
from tests.chaos.run import Report

pytestmark = [pytest.mark.thorough, pytest.mark.slow, pytest.mark.timeout(240)]
SEED = 20261121


@pytest.mark.parametrize(
    ("store", "destination", "names"),
    [
        ("static", "duckdb", ["kill a process", "kill the node with the file", "cut a link one way"]),
        pytest.param("redis", "postgres", ["store away, back empty", "freeze a node for 5 heartbeats"],
                     marks=pytest.mark.real("redis", "postgres")),
    ],
)  # fmt: skip
def test_what_three_nodes_acknowledged_arrives_once_and_in_order_whatever_happens(
    tmp_path: Path, store: str, destination: str, names: list[str]
) -> None:
    report = Report(SEED)
    many.run(tmp_path, report, [0], 3, store=store, destination=destination, names=names)
    assert report.acknowledged > 100 and not (report.lost or report.doubled)
