"""Nodes for journeys: each in a folder of its own, ended whatever happens."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.journeys.running import Running
from tests.journeys.three import Three
from tests.parts import require_part

CHROMIUM_ARGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--disable-quic",
]


NODES = int(os.environ.get("HEADWATER_JOURNEYS_NODES", "1"))
"""3: what these tests know as a node is one of a cluster (three.py)."""
TIMES = 3
LAUNCH_MS = 90_000
"""The first start of a browser on a cold, busy machine takes more than Playwright's 30 s."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Three nodes on the same machine take longer."""
    for item in items if NODES > 1 else ():
        marker = item.get_closest_marker("timeout")
        usual_s = marker.args[0] if marker is not None else float(item.config.getini("timeout"))
        item.add_marker(pytest.mark.timeout(TIMES * usual_s), append=False)


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker in item.iter_markers("one_node"):
        if NODES > 1:
            pytest.skip(f"one node alone: {marker.args[0]}")


@contextmanager
def maker(base: Path) -> Iterator[Callable[..., Running]]:
    """Makes nodes that are not started yet, below ``base``."""
    made: list[Running] = []

    def make(**options: Any) -> Running:
        folder = base / f"node{len(made)}"
        folder.mkdir()
        made.append((Three if NODES == 3 else Running)(folder, **options))
        return made[-1]

    try:
        yield make
    finally:
        for node in made:
            node.close()


@pytest.fixture
def make_node(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Makes nodes that are not started yet."""
    with maker(tmp_path) as make:
        yield make


@pytest.fixture(scope="module")
def make_shared_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Running]]:
    """The same for nodes that the tests of a module share: starting one costs seconds."""
    with maker(tmp_path_factory.mktemp("shared")) as make:
        yield make


@pytest.fixture
def node(make_node: Callable[..., Running]) -> Running:
    """A running node with the minimal configuration."""
    running = make_node()
    running.start()
    return running


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A browser; each test takes a context of its own from it."""
    path = require_part("chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=str(path), args=CHROMIUM_ARGS, timeout=LAUNCH_MS)
        yield running
        running.close()
