"""`headwater sql --output`: all rows in a file, and no file when it fails."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from tests.journeys.running import SERVER_KEY, Running

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]
ROWS = 200_000
MADE = f"""select range as n, case when range % 3 = 0 then null else 'visitor ' || range end as name,
  range / 8 as ratio, make_timestamptz(range * 1000000) as at, [range, range + 1] as pair,
  {{'a': range, 'b': null::varchar}} as both, range % 2 = 0 as even from range({ROWS})"""


@pytest.fixture(scope="module")
def shared(make_shared_node: Callable[..., Running]) -> Running:
    node = make_shared_node()
    node.start()
    return node


def export(node: Running, *words: str) -> tuple[int, str, str]:
    done = node.command("sql", *words)
    return done.returncode, done.stdout, done.stderr


def test_two_hundred_thousand_rows_read_back_equal(shared: Running, tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    code, said, _ = export(shared, MADE, "--output", str(path))
    assert (code, said.split(" in ")[0]) == (0, f"200,000 rows, {path.stat().st_size:,} bytes")
    found = parquet.read_table(path)
    numbers = range(ROWS)
    wanted = pa.table(
        {
            "n": pa.array(numbers, pa.int64()),
            "name": pa.array([None if n % 3 == 0 else f"visitor {n}" for n in numbers]),
            "ratio": pa.array([n / 8 for n in numbers]),
            "at": pa.array([n * 1_000_000 for n in numbers], pa.timestamp("us", "UTC")),
            "pair": pa.array([[n, n + 1] for n in numbers], pa.list_(pa.int64())),
            "both": pa.array(
                [{"a": n, "b": None} for n in numbers], pa.struct({"a": pa.int64(), "b": pa.string()})
            ),
            "even": pa.array([n % 2 == 0 for n in numbers]),
        }
    )
    assert found.cast(wanted.schema).equals(wanted)
    assert found.schema.field("at").type.tz == "UTC"


def test_events_are_exported_as_sql_shows_them(shared: Running, tmp_path: Path) -> None:
    events = [{"event": "Bought", "messageId": f"m{n}", "properties": {"price": n / 2}} for n in range(300)]
    assert shared.post("/events", events, key=SERVER_KEY)[0] == 200
    shared.wait_rows(300, where="event = 'Bought'")
    query = "from events where event = 'Bought' order by _hw_seq"
    path = tmp_path / "events.ndjson"
    code, said, _ = export(shared, query, "--output", str(path), "--json")
    assert (code, json.loads(said)["rows"]) == (0, 300)
    assert [json.loads(line) for line in path.read_text().splitlines()] == shared.sql(query)
    assert export(shared, query, "--output", str(tmp_path / "events.parquet"))[0] == 0
    prices = parquet.read_table(tmp_path / "events.parquet")["price"].to_pylist()
    assert prices == [n / 2 for n in range(300)]


def test_a_limit_is_kept_and_told(shared: Running, tmp_path: Path) -> None:
    path = tmp_path / "some.csv"
    code, _, said = export(shared, MADE, "--output", str(path), "--limit", "70000")
    assert (code, said.strip()) == (0, "cut after 70000 rows, as --limit asks; there are more")
    assert len(path.read_text().splitlines()) == 70_001


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("drop table events", "only reading is possible here"),
        (
            f"select case when range < 150000 then 1 else error('row 150000') end from range({ROWS})",
            "row 150000",
        ),
    ],
)
def test_what_fails_leaves_no_file(shared: Running, tmp_path: Path, query: str, told: str) -> None:
    code, _, said = export(shared, query, "--output", str(tmp_path / "x.parquet"))
    assert code == 2
    assert told in said
    assert list(tmp_path.iterdir()) == []
