"""An operator's pause: durable, told with its reason, and nothing but loads stops."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from headwater.destinations.pause import Pause
from headwater.kit.clock import SystemClock
from headwater.kit.disk import SystemDisk
from headwater.kit.errors import Rejected
from tests.chains import chain
from tests.unit.destinations.test_worker import PARTITIONS, Place, running

WALL_NS = 1_790_000_000_000_000_000
SINCE = "2026-09-21T14:13:20Z"


def pause_at(folder: Path) -> Pause:
    return Pause(SystemDisk(), f"{folder}/paused.json")


def test_a_pause_outlives_its_process_and_keeps_its_beginning(tmp_path: Path) -> None:
    first = pause_at(tmp_path)
    assert first.held is None
    first.begin("copying the file", WALL_NS)
    again = pause_at(tmp_path)
    assert again.held is not None
    assert again.held.text() == f"by operator since {SINCE} because copying the file"
    held = again.begin("", WALL_NS + 10**12)
    assert (held.since, held.reason) == (SINCE, "copying the file")
    again.end()
    assert pause_at(tmp_path).held is None
    with pytest.raises(Rejected, match="nothing to resume"):
        again.end()


def test_a_pause_that_cannot_be_read_is_a_pause(tmp_path: Path) -> None:
    (tmp_path / "paused.json").write_text("{")
    held = pause_at(tmp_path).held
    assert held is not None and "cannot be read" in held.reason


@pytest.mark.parametrize("reason", ["two\nlines", "\x1b[2J", "x" * 501])
def test_a_reason_is_one_line(tmp_path: Path, reason: str) -> None:
    with pytest.raises(Rejected, match="one line"):
        pause_at(tmp_path).begin(reason, WALL_NS)
    assert pause_at(tmp_path).held is None


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    async with running(tmp_path) as found:
        for name, deliverer in found.worker.deliverers.items():
            deliverer.pause = pause_at(tmp_path / name)
        yield found


async def rows_of(place: Place) -> int:
    _, body = await place.ask(op="sql", destination="warehouse", query="select count(*) n from events")
    count: int = json.loads(body)[0]["n"]
    return count


async def other_has(place: Place, rows: int) -> dict[str, Any]:
    """The status once the destination that is not paused has so many rows."""
    while True:
        found: dict[str, Any] = (await place.ask(op="status"))[0]["destinations"]
        if sum(s["rows"] for s in found["other"]["streams"].values()) == rows:
            return found
        await SystemClock().sleep(0.01)


async def test_a_paused_destination_answers_sql_and_loads_nothing_while_the_others_go_on(
    place: Place,
) -> None:
    """INV-DST-3."""
    await place.until(8)
    told, _ = await place.ask(op="pause", destination="warehouse", reason="noon")
    assert told["reason"] == "noon"
    place.ready.entries += chain([4], PARTITIONS, 8)
    found = await other_has(place, 12)
    assert await rows_of(place) == 8
    assert (found["warehouse"]["state"], found["warehouse"]["code"]) == ("paused", "paused_by_operator")
    assert found["warehouse"]["reason"].endswith("because noon")
    assert found["warehouse"]["command"] == "headwater destination resume warehouse"
    assert (found["other"]["state"], found["other"]["reason"]) == ("delivering", None)
    await place.ask(op="resume", destination="warehouse")
    await place.until(12)
    assert await rows_of(place) == 12


async def test_a_destination_that_starts_paused_is_open_and_says_where_it_stands(tmp_path: Path) -> None:
    async with running(tmp_path) as first:
        await first.until(8)
    (tmp_path / "again").mkdir()
    for name in ("warehouse", "other"):
        (tmp_path / name).rename(tmp_path / "again" / name)
    pause_at(tmp_path / "again" / "warehouse").begin("", WALL_NS)

    class Started(Place):
        def deliverer(self, name: str, settings: Any) -> Any:
            made = super().deliverer(name, settings)
            made.pause = pause_at(tmp_path / "again" / name)
            return made

    place = Started(tmp_path)
    place.ready.entries += chain([4], PARTITIONS, 8)
    deliverer = place.worker.deliverers["warehouse"]
    for _ in range(3):
        deliverer.round()
    assert deliverer.seen.rows and deliverer.seen.vectors
    assert sum(counts.rows for counts in deliverer.seen.streams.values()) == 8
    place.worker.close()
