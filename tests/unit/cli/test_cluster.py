"""What `headwater cluster` shows, and what it says when there is no cluster."""

from __future__ import annotations

from typing import Any

import pytest
from click.testing import CliRunner, Result

from headwater.cli.client import Node
from headwater.cli.main import main
from headwater.kit.errors import Rejected
from tests.unit.ops.test_cluster import A, B, page

HOME = {"bytes": 2048, "silent": False, "trouble": "no room"}


def told(**changed: Any) -> dict[str, Any]:
    return {**page(**changed), "lanes": {}}


def run(monkeypatch: pytest.MonkeyPatch, answer: Any, *words: str) -> Result:
    """A command on a node that answers this."""

    def request(self: Node, *asked: Any, **options: Any) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(Node, "request", request)
    return CliRunner().invoke(main, ["cluster", *words])


def test_the_page_names_nodes_and_not_their_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    done = run(monkeypatch, told(), "status")
    assert done.exit_code == 0
    assert "Cluster headwater, 2 nodes here, viable; epoch 7, led by b" in done.stdout
    assert "a *" in done.stdout and "itself" in done.stdout and "0.1 s ago" in done.stdout
    assert "2026-11-21T13:00:00Z  a joined" in done.stdout


def test_what_is_waited_for_stands_there_and_the_answer_is_no(monkeypatch: pytest.MonkeyPatch) -> None:
    done = run(
        monkeypatch, told(viable=False, why="too few", waits_for=["too few", "10.0.0.9 is away"]), "status"
    )
    assert done.exit_code == 1
    assert "waits for: 10.0.0.9 is away" in done.stdout
    assert "headwater: too few" in done.stderr


def test_lanes_are_told_by_the_node_that_they_come_from(monkeypatch: pytest.MonkeyPatch) -> None:
    streams = {"process-0": {"partitions": 3, "bytes": 2048, "homes": {B: HOME}}}
    done = run(monkeypatch, {**told(), "lanes": {"streams": streams, "sent_bytes": 5}}, "status")
    (row,) = [line for line in done.stdout.splitlines() if "process-0" in line]
    assert row.split() == ["process-0", "3", "b", "2.0", "KiB", "no", "no", "room"]


def test_a_node_alone_says_what_to_write(monkeypatch: pytest.MonkeyPatch) -> None:
    for words in (["status"], ["drain", "b"], ["evict", "b"], ["reset"]):
        done = run(monkeypatch, Rejected("no path '/cluster' here", code="not_found"), *words)
        assert done.exit_code == 2
        assert "this node is not part of a cluster" in done.stderr and "cluster:" in done.stderr


@pytest.mark.parametrize(("words", "forgotten"), [(["forget", "b"], False), (["forget", "b", "--yes"], True)])
def test_forgetting_says_first_what_it_gives_up(
    monkeypatch: pytest.MonkeyPatch, words: list[str], forgotten: bool
) -> None:
    done = run(monkeypatch, {"node": A, "name": "b", "forgotten": forgotten}, *words)
    assert done.exit_code == (0 if forgotten else 1)
    assert (f"b ({A}) is forgotten" in done.stdout) is forgotten
    assert ("given up, uncounted" in done.stderr and "--yes" in done.stderr) is not forgotten


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["drain", "b"], "b is draining\n"),
        (["drain", "b", "--back"], "b takes partitions again\n"),
        (["evict", "b"], "b is evicted\n"),
        (["reset"], "the cluster says everything again\n"),
    ],
)
def test_orders_say_what_was_done(monkeypatch: pytest.MonkeyPatch, words: list[str], said: str) -> None:
    done = run(monkeypatch, {"node": A, "name": "b"}, *words)
    assert (done.exit_code, done.stdout) == (0, said)
