"""Rows into a file, from a socket that plays the warehouse: the file is whole, or not there."""

from __future__ import annotations

import asyncio
import csv
import json
import os
import threading
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from headwater.cli import export
from headwater.cli.client import Node
from headwater.kit import ask
from headwater.kit.errors import Rejected, Unavailable

ROWS = pa.table(
    {
        "n": pa.array(range(5000), pa.int64()),
        "text": pa.array([None if n % 7 == 0 else f"a,{n}" for n in range(5000)]),
        "yes": pa.array([n % 2 == 0 for n in range(5000)]),
        "list": pa.array([[n, None] for n in range(5000)]),
        "at": pa.array(range(5000), pa.timestamp("us", "UTC")),
    }
)


class PlayedNode(Node):
    """A node that knows its destinations."""

    def get(self, path: str, **query: object) -> Any:
        return {"destinations": {"warehouse": {}, "other": {}}}


class Warehouse:
    """A socket that answers exports, in a thread; ``fails`` is raised behind some pieces."""

    def __init__(self, data: str) -> None:
        os.mkdir(f"{data}/run")
        self.path = f"{data}/run/deliver-warehouse.sock"
        self.fails: BaseException | None = None
        self.asked: list[dict[str, Any]] = []
        self.loop = asyncio.new_event_loop()
        self.server = self.loop.run_until_complete(ask.serve(self.path, self.answer))
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()

    async def answer(self, request: dict[str, Any]) -> tuple[dict[str, Any], Any]:
        self.asked.append(request)
        return {"rows": 5000, "truncated": "", "ms": 1.0}, self.pieces()

    async def pieces(self) -> Any:
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, ROWS.schema) as stream:
            stream.write_table(ROWS, max_chunksize=512)
        data = bytes(sink.getvalue())
        for at in range(0, len(data), 10_000):
            yield data[at : at + 10_000]
            if self.fails and at > len(data) // 2:
                raise self.fails

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self.server.close(), self.loop).result(10)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()


@pytest.fixture
def warehouse(tmp_path):
    made = Warehouse(str(tmp_path))
    yield made
    made.close()


@pytest.fixture
def run(tmp_path, warehouse, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def export_to(path, format=None, limit=None, destination=None, force=False):
        return export.export(PlayedNode(str(tmp_path)), "from x", path, format, limit, destination, force)

    return export_to


def test_parquet_and_arrow_files_hold_what_came(run):
    assert run("a.parquet")["rows"] == 5000
    assert parquet.read_table("a.parquet").equals(ROWS)
    told = run("a.arrow")
    with pa.OSFile("a.arrow") as file:
        assert pa.ipc.open_file(file).read_all().equals(ROWS)
    assert told["bytes"] == os.path.getsize("a.arrow")
    assert told["format"] == "arrow"


def test_csv_and_lines_say_what_is_printed_otherwise(run, tmp_path):
    run("a.csv")
    rows = list(csv.reader((tmp_path / "a.csv").read_text().splitlines()))
    assert rows[:3] == [
        ["n", "text", "yes", "list", "at"],
        ["0", "", "true", "[0,null]", "1970-01-01T00:00:00Z"],
        ["1", "a,1", "false", "[1,null]", "1970-01-01T00:00:00.000001Z"],
    ]
    assert len(rows) == 5001
    run("a.ndjson")
    lines = (tmp_path / "a.ndjson").read_text().splitlines()
    assert json.loads(lines[4999])["list"] == [4999, None]
    assert len(lines) == 5000


def test_row_groups_are_cut_by_rows_and_by_bytes(run, monkeypatch):
    monkeypatch.setattr(export, "GROUP_ROWS", 1000)
    run("a.parquet")
    groups = parquet.ParquetFile("a.parquet").metadata
    assert groups.row_group(0).num_rows == 1000
    assert groups.num_row_groups >= 5
    monkeypatch.setattr(export, "GROUP_BYTES", 1)
    run("b.parquet")
    assert parquet.ParquetFile("b.parquet").metadata.num_row_groups == 10


def test_the_format_overrides_the_ending(run):
    assert run("a.dat", format="parquet")["format"] == "parquet"
    assert parquet.read_table("a.dat").num_rows == 5000
    with pytest.raises(Rejected, match=r"ends with \.parquet"):
        run("b.dat")


def test_a_file_that_is_there_is_not_replaced_unasked(run, tmp_path, warehouse):
    (tmp_path / "a.parquet").write_text("mine")
    with pytest.raises(Rejected, match="there already"):
        run("a.parquet")
    assert warehouse.asked == []
    assert (tmp_path / "a.parquet").read_text() == "mine"
    run("a.parquet", force=True)
    assert parquet.read_table("a.parquet").num_rows == 5000
    with pytest.raises(Rejected, match="there already"):
        run(str(tmp_path), format="csv", force=True)
    with pytest.raises(Rejected, match="a folder that is there"):
        run("nowhere/a.parquet")


@pytest.mark.parametrize("kind", ["parquet", "arrow", "csv", "ndjson"])
@pytest.mark.parametrize(
    "fails", [Rejected("stopped after 30 s", code="sql_time"), ConnectionError("killed")]
)
def test_an_export_that_fails_leaves_no_file(run, tmp_path, warehouse, kind, fails):
    warehouse.fails = fails
    (tmp_path / "kept.csv").write_text("mine")
    before = sorted(os.listdir(tmp_path))
    with pytest.raises((Rejected, Unavailable)) as caught:
        run(f"a.{kind}")
    if isinstance(fails, Rejected):
        assert "destinations.warehouse.sql.time_max_s" in caught.value.help
    with pytest.raises((Rejected, Unavailable)):
        run("kept.csv", format=kind, force=True)
    assert sorted(os.listdir(tmp_path)) == before
    assert (tmp_path / "kept.csv").read_text() == "mine"


def test_query_limit_and_destination_are_asked_for(run, warehouse):
    run("a.parquet", limit=7, destination="warehouse")
    assert warehouse.asked == [{"op": "export", "query": "from x", "rows_max": 7}]
    with pytest.raises(Rejected, match="expected one of warehouse, other"):
        run("b.parquet", destination="nowhere")
