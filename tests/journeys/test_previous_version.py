"""A data folder that an earlier version wrote, and was killed over, is gone on with: everything is there once."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.journeys.previous import make as previous
from tests.journeys.running import Running, unique
from tests.parts import ROOT

pytestmark = pytest.mark.one_node(
    "a folder of one node goes on in its destinations where that node founds the cluster; here anybody may"
)
HERE = Path(__file__).parent / "previous"
PREVIOUS = "701d3ae"
"""There is no tag yet; the last commit before the upkeep of the logs began."""


def goes_on(node: Running, *, fresh: bool = False) -> None:
    """Start this version on the folder: all is delivered once, what comes again within the window is known, and the
    ledger holds. ``fresh``: the events in it were received within the window."""
    node.start()
    if fresh:
        assert (
            node.post("/v1/batch", {"batch": previous.events("accepted")})[0] == 200
        )  # a client's late retry
    assert node.post("/v1/track", {"event": "E", "messageId": "new", "userId": "u"})[0] == 200
    streams = node.wait_settled()
    rows = node.sql("select message_id, number, text, deep_flag from events")
    assert unique(row["message_id"] for row in rows) == {*previous.ids(), "new"}
    for row in rows:
        if row["message_id"] != "new":
            number = int(row["message_id"].split("-")[1])
            assert (row["number"], row["text"] or "", row["deep_flag"]) == (
                number,
                "x" * number,
                number % 2 == 0,
            )
    assert [(stream["dead"], stream["holds"]) for stream in streams if stream["stream"] == "web"] == [
        (1, True)
    ]
    assert previous.DEAD in node.command("dead", "list").stdout
    assert node.command("reconcile").returncode == 0
    assert "log_damaged" not in node.log_text()


@pytest.mark.parametrize("fixture", sorted(HERE.glob("*.tar.zst")), ids=lambda path: path.name)
def test_a_kept_data_folder_of_an_earlier_version_is_gone_on_with(
    make_node: Callable[..., Running], fixture: Path
) -> None:
    node = make_node(more=previous.SMALL)
    previous.unpack(fixture, node.data)
    goes_on(node)


@pytest.mark.slow
def test_a_data_folder_that_the_previous_version_writes_now_is_gone_on_with(
    make_node: Callable[..., Running], tmp_path: Path
) -> None:
    found = subprocess.run(
        ["git", "cat-file", "-e", f"{PREVIOUS}^{{tree}}"], cwd=ROOT, capture_output=True, check=False
    )
    if found.returncode:
        pytest.skip(f"the history with {PREVIOUS} is not here: {found.stderr.decode().strip()}")
    node = make_node(more=previous.SMALL)
    shutil.copytree(previous.make(PREVIOUS, tmp_path), node.data, ignore=shutil.ignore_patterns("run"))
    goes_on(node, fresh=True)


def test_a_backup_of_an_earlier_folder_is_restored_by_this_version(
    make_node: Callable[..., Running], tmp_path: Path
) -> None:
    old, node = make_node(), make_node(more=previous.SMALL)
    previous.unpack(HERE / f"{PREVIOUS}.tar.zst", old.data)
    done = old.command("backup", "--json", str(tmp_path / "old.tar.zst"))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["facts"]["events"] == 4 * len(previous.events("accepted")) + 1
    restored = node.command("restore", str(tmp_path / "old.tar.zst"))
    assert restored.returncode == 0, restored.stderr
    goes_on(node)
