"""Nodes for journeys: each in a folder of its own, ended whatever happens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.journeys.running import Running


@pytest.fixture
def make_node(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Makes nodes that are not started yet."""
    made: list[Running] = []

    def make(**options: Any) -> Running:
        folder = tmp_path / f"node{len(made)}"
        folder.mkdir()
        made.append(Running(folder, **options))
        return made[-1]

    yield make
    for node in made:
        node.close()


@pytest.fixture
def node(make_node: Callable[..., Running]) -> Running:
    """A running node with the minimal configuration."""
    running = make_node()
    running.start()
    return running
