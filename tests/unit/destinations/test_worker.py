"""The deliver process's worker: threads, its socket's answers, its report."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pytest

from headwater.destinations import registry
from headwater.destinations.deliver import Deliverer
from headwater.destinations.duckdb.file import DuckDbFile
from headwater.destinations.duckdb.settings import DuckDbSettings
from headwater.destinations.memory import MemorySettings
from headwater.destinations.port import Settling
from headwater.destinations.refused import DeadLetters
from headwater.destinations.remember import Memory
from headwater.destinations.settings import DestinationSettings
from headwater.destinations.settle import Settler
from headwater.destinations.worker import DeliverWorker, Handler
from headwater.identity.settings import IdentitySettings
from headwater.kit.clock import SystemClock
from headwater.kit.disk import SystemDisk
from headwater.kit.errors import Rejected, Unavailable
from tests.chains import ListChain, chain

PARTITIONS = (0, 1, 2, 3)


class FakeServer:
    """Stands for kit/ask.py: keeps the handler."""

    handler: Handler

    async def serve(self, path: str, handler: Handler) -> FakeServer:
        self.handler = handler
        return self

    async def close(self) -> None:
        pass


class Place:
    """A group with a DuckDB file and a destination in memory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ready = ListChain(chain([5, 3], PARTITIONS))
        self.server = FakeServer()
        self.reports: list[dict[str, Any]] = []
        self.worker = DeliverWorker(
            "all",
            [self.deliverer("warehouse", DuckDbSettings()), self.deliverer("other", MemorySettings())],
            self.reports.append,
            SystemClock(),
            str(folder / "run/all.sock"),
        )

    def deliverer(self, name: str, settings: DestinationSettings) -> Deliverer:
        own = self.folder / name
        own.mkdir()
        return Deliverer(
            name,
            registry.make(settings, registry.Place(str(self.folder), str(own), SystemClock())),
            {"0": self.ready.open},
            Memory(SystemDisk(), str(own / "state.json"), f"c/{name}/main"),
            DeadLetters(str(own / "dead.sqlite"), name),
            settings,
            SystemClock(),
            partitions=len(PARTITIONS),
            owner="me",
            node_ns=SystemClock().boot_ns,
        )

    async def ask(self, **request: Any) -> tuple[dict[str, Any], bytes]:
        told, body = await self.server.handler(request)
        if not isinstance(body, bytes):
            body = b"".join([piece async for piece in body])
        return told, body

    async def until(self, rows: int) -> dict[str, Any]:
        """The status once every destination has that many rows."""
        async with asyncio.timeout(10):
            while True:
                status, _ = await self.ask(op="status")
                found: dict[str, Any] = status["destinations"]
                if all(sum(s["rows"] for s in d["streams"].values()) == rows for d in found.values()):
                    return found
                await SystemClock().sleep(0.01)


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[Place]:
    place = Place(folder)
    task = asyncio.ensure_future(place.worker.run(place.server.serve))  # noqa: TID251 - a test's own task
    while not hasattr(place.server, "handler"):
        await SystemClock().sleep(0.001)
    try:
        yield place
    finally:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_it_delivers_answers_and_reports(tmp_path: Path) -> None:
    async with running(tmp_path) as place:
        await place.until(8)
        place.ready.entries += chain([4], PARTITIONS, 8)
        found = await place.until(12)
        assert found["warehouse"]["state"] == "delivering"
        assert found["warehouse"]["ready_passed"]["0"][1] == 3
        assert list(found["warehouse"]["vectors"].values()) == [[0, 1, 2, 3]]
        query = "select count(*) n, max(_hw_seq) last from events"
        told, body = await place.ask(op="sql", destination="warehouse", query=query)
        assert json.loads(body) == [{"n": 12, "last": "11"}]
        assert (told["rows"], told["truncated"]) == (1, "")
        _, body = await place.ask(op="sql", destination="warehouse", query=query, format="arrow")
        assert pa.ipc.open_stream(body).read_all().to_pylist() == [{"n": 12, "last": 11}]
        told, body = await place.ask(op="export", destination="warehouse", query="from events", rows_max=5)
        assert pa.ipc.open_stream(body).read_all().num_rows == 5
        assert (told["rows"], told["truncated"]) == (5, "rows")
        told, _ = await place.ask(op="positions", destination="warehouse")
        assert set(told["partitions"]) == {"0", "1", "2", "3"}
        assert told["partitions"]["0"]["streams"]["app"]["rows"] >= 1
    assert place.reports[-1]["destinations"]["other"]["streams"]["web"]["rows"] == 8
    assert json.dumps(place.reports[-1])


async def test_a_query_at_the_start_waits_for_the_file(tmp_path: Path) -> None:
    async with running(tmp_path) as place:
        _, body = await place.ask(op="sql", destination="warehouse", query="select 1 a")
        assert json.loads(body) == [{"a": 1}]


async def test_one_trouble_stays_its_own(tmp_path: Path) -> None:
    """INV-DST-3: the other destination goes on."""
    (tmp_path / "warehouse.duckdb").write_bytes(b"x" * 5000)
    async with running(tmp_path) as place:
        async with asyncio.timeout(10):
            while True:
                status, _ = await place.ask(op="status")
                found = status["destinations"]
                if found["warehouse"]["state"] == "paused" and found["other"]["streams"]:
                    break
                await SystemClock().sleep(0.01)
        assert found["warehouse"]["code"] == "file_version"
        assert sum(s["rows"] for s in found["other"]["streams"].values()) == 8


async def test_requests_that_make_no_sense_are_told_why(tmp_path: Path) -> None:
    async with running(tmp_path) as place:
        for request in (
            {"op": "dance"},
            {"op": "sql", "query": "select 1"},
            {"op": "sql", "query": "select 1", "destination": "other"},
            {"op": "positions", "destination": "nowhere"},
            {"op": "adopt", "destination": "other", "from": "yesterday"},
        ):
            with pytest.raises(Rejected):
                await place.ask(**request)


async def test_a_copy_for_a_backup_is_one_state_of_rows_and_positions(tmp_path: Path) -> None:
    folder = tmp_path / "run/backup/1"
    folder.mkdir(parents=True)
    async with running(tmp_path) as place:
        await place.until(8)
        told, _ = await place.ask(op="copy", destination="warehouse", folder=str(folder))
        assert (told["files"], told["held_ms"] > 0) == (["warehouse.duckdb"], True)
        place.ready.entries += chain([4], PARTITIONS, 8)
        await place.until(12)  # delivery goes on
    copied = DuckDbFile(DuckDbSettings(), str(folder / "warehouse.duckdb"), str(tmp_path))
    copied.open_file(create=False, first="select 1")
    assert copied.write.execute("select count(*) from events").fetchall() == [(8,)]
    assert copied.write.execute('select sum("rows")::int from headwater_positions').fetchall() == [(8,)]
    copied.close_file()


async def test_a_copy_goes_nowhere_but_into_a_snapshot(tmp_path: Path) -> None:
    (tmp_path / "run/backup").mkdir(parents=True)
    async with running(tmp_path) as place:
        await place.until(8)
        for folder in (tmp_path, tmp_path / "run/backup", tmp_path / "run/backup/../.."):
            with pytest.raises(Rejected, match="expected one below run/backup"):
                await place.ask(op="copy", destination="warehouse", folder=str(folder))
        with pytest.raises(Rejected, match="keeps nothing in a file"):
            await place.ask(op="copy", destination="other", folder=str(tmp_path / "run/backup/1"))


async def test_a_file_that_is_not_open_is_not_copied(tmp_path: Path) -> None:
    """Somebody else may be writing it."""
    (tmp_path / "run/backup/1").mkdir(parents=True)
    (tmp_path / "warehouse.duckdb").write_bytes(b"x" * 5000)
    async with running(tmp_path) as place:
        with pytest.raises(Unavailable, match="is not open"):
            await place.ask(op="copy", destination="warehouse", folder=str(tmp_path / "run/backup/1"))


async def test_what_is_known_of_people_is_told_by_a_destination_that_keeps_facts(tmp_path: Path) -> None:
    async with running(tmp_path) as place:
        await place.until(8)
        warehouse = place.worker.deliverers["warehouse"]
        with pytest.raises(Rejected, match="keeps no facts"):
            await place.ask(op="identity", do="show", id="v1", destination="other")
        warehouse.settler = Settler(cast(Settling, warehouse.destination), IdentitySettings(), SystemClock())
        _, body = await place.ask(op="identity", do="show", id="v1", destination="warehouse")
        assert json.loads(body) == {"id": "v1", "visitors": [], "more": False, "junk": False}
        _, body = await place.ask(op="identity", do="show", id="undefined", destination="warehouse")
        assert json.loads(body)["junk"]
        _, body = await place.ask(op="identity", do="log", destination="warehouse")
        assert json.loads(body) == {"facts": []}
        for wrong in (
            {"do": "show"},
            {"do": "show", "id": ""},
            {"do": "log", "limit": -1},
            {"do": "dance", "id": "x"},
        ):
            with pytest.raises(Rejected):
                await place.ask(op="identity", destination="warehouse", **wrong)
