"""Fitting rows to a table as it is (destinations/duckdb/table.py), on a real DuckDB."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from headwater.destinations.duckdb import table
from headwater.destinations.duckdb.settings import DuckDbSettings
from headwater.destinations.duckdb.write import DuckDbDestination
from headwater.kit.clock import SystemClock
from tests.chains import rows

PARTITIONS = (0, 1)


def made(folder: Path, **settings: Any) -> DuckDbDestination:
    destination = DuckDbDestination(
        DuckDbSettings(**settings), str(folder / "w.duckdb"), str(folder), SystemClock()
    )
    destination.open(create=True)
    return destination


@pytest.fixture
def warehouse(tmp_path: Path) -> Iterator[DuckDbDestination]:
    destination = made(tmp_path)
    yield destination
    destination.close()


def load(destination: DuckDbDestination, first: int, **more: pa.Array) -> None:
    """Insert rows with these columns ("price__text" stands for "price|text")."""
    count = len(next(iter(more.values())))
    table_ = rows(
        first, count, PARTITIONS, {name.replace("__", "|"): column for name, column in more.items()}
    )
    destination.fit({"events": [table_.schema]})
    destination.note(destination.insert("events", table_))


def read(destination: DuckDbDestination, columns: str) -> list[dict[str, Any]]:
    return destination.sql.query(f"select {columns} from events order by _hw_seq").rows.to_pylist()


def test_types_are_those_of_arrow_and_times_are_utc(warehouse: DuckDbDestination) -> None:
    load(
        warehouse, 0, price=pa.array([1.5]), ok=pa.array([True]), colour=pa.array(["red"]).dictionary_encode()
    )
    types = warehouse.columns["events"]
    assert types["received_at"] == "TIMESTAMP WITH TIME ZONE"
    assert types["_hw_writer"] == "UBIGINT"
    assert types["_hw_partition"] == "USMALLINT"
    assert (types["price"], types["ok"], types["colour"]) == ("DOUBLE", "BOOLEAN", "VARCHAR")
    assert types["_unmapped"] == "JSON"


def test_a_second_kind_is_cast_where_it_fits_and_kept_where_not(warehouse: DuckDbDestination) -> None:
    load(
        warehouse,
        0,
        price=pa.array([1.5, None, None, None]),
        price__text=pa.array([None, "2.5", "dear", None]),
    )
    found = read(warehouse, "price, _unmapped")
    assert [row["price"] for row in found] == [1.5, 2.5, None, None]
    assert [row["_unmapped"] and json.loads(row["_unmapped"]) for row in found] == [
        None,
        None,
        {"price": "dear"},
        None,
    ]
    drift = warehouse.drift()
    assert [(d.table, d.column, d.count, d.example) for d in drift] == [("events", "price", 1, "dear")]


def test_drift_counts_on_and_keeps_the_first_example(warehouse: DuckDbDestination) -> None:
    load(warehouse, 0, price=pa.array([1.5]))
    load(warehouse, 1, price__text=pa.array(["a", "b"]))
    load(warehouse, 3, price__text=pa.array(["c", "4"]))
    (drift,) = warehouse.drift()
    assert drift.count == 3
    assert drift.example in ("a", "b")
    assert [row["price"] for row in read(warehouse, "price")] == [1.5, None, None, None, 4.0]


def test_any_kind_fits_a_text_column_and_whole_numbers_stay_whole(warehouse: DuckDbDestination) -> None:
    load(warehouse, 0, size=pa.array(["XL"]))
    load(warehouse, 1, size__number=pa.array([42.0, 1.5, 1e20]))
    load(warehouse, 4, size__boolean=pa.array([True]))
    assert [row["size"] for row in read(warehouse, "size")] == ["XL", "42", "1.5", "1e+20", "true"]
    assert warehouse.drift() == ()


def test_a_number_that_would_lose_digits_is_kept_aside(warehouse: DuckDbDestination) -> None:
    load(warehouse, 0, n=pa.array([1], pa.int32()))
    load(warehouse, 1, n=pa.array([2.0, 2.5, 1e12, float("nan")]))
    found = read(warehouse, "n, _unmapped")
    assert [row["n"] for row in found] == [1, 2, None, None, None]
    assert json.loads(found[2]["_unmapped"]) == {"n": 2.5}


def test_a_truth_is_no_number(warehouse: DuckDbDestination) -> None:
    load(warehouse, 0, n=pa.array([1.0]))
    load(warehouse, 1, n__boolean=pa.array([True]))
    assert [(row["n"], row["_unmapped"]) for row in read(warehouse, "n, _unmapped")][1] == (
        None,
        '{"n":true}',
    )


def test_json_that_does_not_fit_is_kept_whole(warehouse: DuckDbDestination) -> None:
    """A merge patch would drop the null inside."""
    load(warehouse, 0, n=pa.array([1.0]))
    field = pa.field("n|json", pa.string(), metadata={"kind": "json"})
    table_ = rows(1, 1, PARTITIONS).append_column(field, pa.array(['{"a":null,"b":[1]}']))
    warehouse.fit({"events": [table_.schema]})
    warehouse.insert("events", table_)
    assert json.loads(read(warehouse, "_unmapped")[1]["_unmapped"]) == {"n": {"a": None, "b": [1]}}


def test_what_rows_bring_in_unmapped_is_kept_beside(warehouse: DuckDbDestination) -> None:
    load(warehouse, 0, n=pa.array([1.0]))
    load(
        warehouse, 1, n__text=pa.array(["x", None, "y"]), _unmapped=pa.array(['{"q":1}', '{"r":null}', None])
    )
    found = [row["_unmapped"] for row in read(warehouse, "_unmapped")]
    assert [f and json.loads(f) for f in found] == [None, {"q": 1, "n": "x"}, {"r": None}, {"n": "y"}]


def test_a_frozen_table_keeps_new_columns_aside(tmp_path: Path) -> None:
    first = made(tmp_path)
    load(first, 0, price=pa.array([1.5]))
    first.close()
    frozen = made(tmp_path, schema="freeze")
    load(frozen, 1, price=pa.array([2.5, None]), colour=pa.array(["red", None]))
    assert "colour" not in frozen.columns["events"]
    assert [(r["price"], r["_unmapped"]) for r in read(frozen, "price, _unmapped")] == [
        (1.5, None),
        (2.5, '{"colour":"red"}'),
        (None, None),
    ]
    frozen.close()


def test_names_that_differ_in_case_only_share_a_column_and_lose_nothing(warehouse: DuckDbDestination) -> None:
    load(warehouse, 0, Price=pa.array([1.0]), price=pa.array([2.0]))
    assert [(r["Price"], r["_unmapped"]) for r in read(warehouse, "Price, _unmapped")] == [
        (1.0, '{"price":2.0}')
    ]


@pytest.mark.parametrize("name", ['a"b', "select", "a;drop table events", "ü ", "'x'", "c1", "rows"])
def test_a_name_is_only_ever_an_identifier(warehouse: DuckDbDestination, name: str) -> None:
    load(warehouse, 0, **{name: pa.array(["v"])})
    load(warehouse, 1, **{name: pa.array([1.0])})
    assert [row[name] for row in read(warehouse, table.quoted(name))] == ["v", "1"]
    load(warehouse, 2, **{name + "__boolean": pa.array([True])})


def test_chunks_with_dictionaries_of_their_own_load_right(warehouse: DuckDbDestination) -> None:
    first = rows(0, 3, PARTITIONS, {"c": pa.array(["x", "y", "x"]).dictionary_encode()})
    second = rows(3, 3, PARTITIONS, {"c": pa.array(["z", None, "y"]).dictionary_encode()})
    joined = pa.concat_tables([first, second])
    warehouse.fit({"events": [joined.schema]})
    warehouse.insert("events", joined)
    assert [row["c"] for row in read(warehouse, "c")] == ["x", "y", "x", "z", None, "y"]


def test_growing_is_repeatable_against_a_table_that_somebody_else_grew(warehouse: DuckDbDestination) -> None:
    """INV-DST-4: another owner added the column meanwhile, as text."""
    load(warehouse, 0, a=pa.array([1.0]))
    warehouse.write.execute("alter table events add column b varchar")
    schema = rows(1, 1, PARTITIONS, {"b": pa.array([2.0])})
    warehouse.fit({"events": [schema.schema]})
    warehouse.insert("events", schema)
    assert [row["b"] for row in read(warehouse, "b")] == [None, "2"]


def test_an_unknown_arrow_type_becomes_json() -> None:
    assert table.duck_type(pa.field("x", pa.list_(pa.int8()))) == "JSON"
    with duckdb.connect() as base:
        base.register("v", pa.table({"c0": pa.array([[1, 2]])}))
        fitting = table.fit(pa.schema([("x", pa.list_(pa.int64()))]), {"x": "JSON", "_unmapped": "JSON"})
        assert base.execute(f"select {fitting.values[0]} from v").fetchall() == [("[1,2]",)]
