"""What every test can rely on: real parts by marker, one real part at a time, a fixed Hypothesis profile."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis.database import DirectoryBasedExampleDatabase
from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

from tests import parts
from tests.rigs import postgres as postgres_rig
from tests.thorough import THOROUGH

TESTS = Path(__file__).resolve().parent
# Tests of these kinds start real processes: of a file of them, one worker runs all, one after the other.
REAL_KINDS = frozenset({"cluster", "contracts", "journeys"})
DEFAULT_PORTS = frozenset({"test_demo.py", "test_main_road.py"})
"""Files that start a node with the ports of the defaults: one worker runs them all."""

# No deadline: a unit of work takes as long as a shared machine lets it. Examples that failed are kept.
settings.register_profile(
    "headwater",
    deadline=None,
    print_blob=True,
    database=DirectoryBasedExampleDatabase(parts.ROOT / ".cache" / "hypothesis"),
)
settings.load_profile("headwater")


LEFT_OUT: list[int] = []


class ByFile(LoadScopeScheduling):  # type: ignore[misc]
    """How pytest-xdist shares tests out. (Its own groups, `--dist loadgroup`, do nothing with pytest 9.2.)"""

    def _split_scope(self, nodeid: str) -> str:
        """What one worker runs: of real kinds a file, so that what its tests share is made once; else a test."""
        path = nodeid.partition("::")[0]
        _, kind, *_, name = path.split("/")
        if name in DEFAULT_PORTS:
            return "default ports"
        return path if kind in REAL_KINDS else nodeid


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByFile:
    return ByFile(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    thorough = [item for item in items if item.get_closest_marker("thorough")]
    if thorough and not THOROUGH:
        left = set(thorough)
        items[:] = [item for item in items if item not in left]
        config.hook.pytest_deselected(items=thorough)
        LEFT_OUT.append(len(thorough))
    for item in items:
        if not item.path.is_relative_to(TESTS):
            continue
        kind = item.path.relative_to(TESTS).parts[0]
        if kind == "journeys":
            item.add_marker(pytest.mark.journey)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if LEFT_OUT:
        terminalreporter.write_line(f"{sum(LEFT_OUT)} long tests were left out: `make thorough` runs them")


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker in item.iter_markers("real"):
        for name in marker.args:
            parts.require_part(name)


@pytest.fixture(scope="session")
def postgres() -> Iterator[postgres_rig.Server]:
    """A PostgreSQL server for the whole run; each test takes a schema of its own."""
    with postgres_rig.started() as server:
        yield server
