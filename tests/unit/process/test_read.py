"""Reading: the fast and the tolerant way give the same cells, whatever stands in the lines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headwater.process.read import Census, Parsed, Reader
from headwater.process.schema import Key, LearnedSchema


def reader(folder: Path, **options: Any) -> Reader:
    return Reader(
        LearnedSchema(str(folder / "schema.ndjson"), columns_max=options.pop("columns_max", 500)), depth_max=3
    )


def cells(parsed: Parsed) -> list[dict[str, Any]]:
    """The cells that are not null, line by line."""
    rows: list[dict[str, Any]] = [{} for _ in range(parsed.lines)]
    for name, column in parsed.columns.items():
        for number, value in enumerate(column.to_pylist()):
            if value is not None:
                rows[number][name] = value
    return rows


def lines_of(*events: Any) -> list[bytes]:
    return [json.dumps(e).encode() for e in events]


def test_each_property_becomes_a_column_named_after_it(tmp_path: Path) -> None:
    found = cells(
        reader(tmp_path).read(
            lines_of({"type": "track", "event": "Bought", "properties": {"price": 9.5, "a": {"b": True}}})
        )
    )
    assert found == [{"type": "track", "event": "Bought", "@price": 9.5, "@a_b": True}]


def test_a_property_that_clashes_with_a_standard_column_gets_its_root_in_front(tmp_path: Path) -> None:
    found = cells(
        reader(tmp_path).read(
            lines_of({"properties": {"event": "x", "user_id": "7"}, "traits": {"name": "Ada"}})
        )
    )
    assert found == [{"@properties_event": "x", "@properties_user_id": "7", "@traits_name": "Ada"}]


def test_a_second_kind_of_one_name_goes_to_a_variant_column(tmp_path: Path) -> None:
    found = cells(
        reader(tmp_path).read(lines_of({"properties": {"size": 4}}, {"properties": {"size": "large"}}))
    )
    assert found == [{"@size": 4.0}, {"@size|text": "large"}]


def test_a_number_as_text_is_cast_where_the_column_holds_numbers(tmp_path: Path) -> None:
    found = cells(
        reader(tmp_path).read(lines_of({"properties": {"size": 4}}, {"properties": {"size": "5.5"}}))
    )
    assert found == [{"@size": 4.0}, {"@size": 5.5}]


def test_text_that_spells_no_finite_number_is_never_read_as_one(tmp_path: Path) -> None:
    found = cells(
        reader(tmp_path).read(
            lines_of(
                {"properties": {"size": 4}}, {"properties": {"size": "NaN"}}, {"properties": {"size": "inf"}}
            )
        )
    )
    assert found == [{"@size": 4.0}, {"@size|text": "NaN"}, {"@size|text": "inf"}]


def test_lists_are_kept_as_their_json_text(tmp_path: Path) -> None:
    found = cells(
        reader(tmp_path).read(
            lines_of({"properties": {"tags": ["a", {"b": 1}], "n": 1}}, {"properties": {"n": 2}})
        )
    )
    assert found == [{"@tags": '["a",{"b":1}]', "@n": 1.0}, {"@n": 2.0}]


def test_objects_below_the_depth_are_kept_as_json(tmp_path: Path) -> None:
    found = cells(reader(tmp_path).read(lines_of({"properties": {"a": {"b": {"c": {"d": 1}}}}})))
    assert found == [{"@a_b_c": '{"d":1}'}]


def test_what_comes_after_the_column_limit_goes_to_unmapped(tmp_path: Path) -> None:
    events = lines_of({"properties": {"a": 1}}, {"properties": {"b": 2, "c": "x"}})
    found = cells(reader(tmp_path, columns_max=1).read(events[:1] + events[1:]))
    assert found[0] == {"@a": 1.0}
    assert json.loads(found[1]["_unmapped"]) == {"properties.b": 2.0, "properties.c": "x"}


def test_a_line_that_is_no_event_is_dead_and_harms_no_other(tmp_path: Path) -> None:
    parsed = reader(tmp_path).read(
        [b'{"event":"a"}', b'{"event":', b"[1]", b'{"event":"\\ud800"}', b'{"event":"b"}']
    )
    assert cells(parsed) == [{"event": "a"}, {}, {}, {}, {"event": "b"}]
    assert set(parsed.dead) == {1, 2, 3}


def test_a_line_with_a_nul_is_dead_and_does_not_end_the_process(tmp_path: Path) -> None:
    parsed = reader(tmp_path).read([b'{"event":"a"}', bytes(20), b'{"event":"x\0"}', b'{"event":"b"}'])
    assert cells(parsed) == [{"event": "a"}, {}, {}, {"event": "b"}]
    assert set(parsed.dead) == {1, 2}


def test_a_numeric_user_id_is_kept_as_text(tmp_path: Path) -> None:
    assert cells(reader(tmp_path).read([b'{"userId":123,"event":"x"}'])) == [{"userId": "123", "event": "x"}]


def test_new_columns_are_learned_once_and_read_fast_from_then_on(tmp_path: Path) -> None:
    read = reader(tmp_path)
    events = lines_of(*({"properties": {"n": i, "t": "x"}} for i in range(100)))
    read.read(events)
    read.read(events)
    assert (read.fast_lines, read.slow_lines) == (200, 0)


def test_a_restarted_reader_knows_what_was_learned(tmp_path: Path) -> None:
    reader(tmp_path).read(lines_of({"properties": {"size": 4}}))
    assert cells(reader(tmp_path).read(lines_of({"properties": {"size": "x"}}))) == [{"@size|text": "x"}]


def test_a_torn_line_of_the_schema_file_is_written_over(tmp_path: Path) -> None:
    reader(tmp_path).read(lines_of({"properties": {"size": 4}}))
    with (tmp_path / "schema.ndjson").open("ab") as file:
        file.write(b'{"path":["properties","to')
    again = LearnedSchema(str(tmp_path / "schema.ndjson"), columns_max=10)
    again.learn([Key(("properties", "b"), "text")])
    assert len(LearnedSchema(str(tmp_path / "schema.ndjson"), columns_max=10).entries) == 2


@pytest.mark.parametrize("nul", [b"\\u0000", b"\0"])
def test_a_nul_where_a_number_is_expected_does_not_end_the_process(tmp_path: Path, nul: bytes) -> None:
    read = reader(tmp_path)
    read.read(lines_of({"properties": {"n": 1}}))
    parsed = read.read([b'{"properties":{"n":"a' + nul + b'b"}}', b'{"properties":{"n":2}}'])
    assert cells(parsed)[1] == {"@n": 2.0}


@pytest.mark.parametrize(
    ("text", "values"),
    [
        (b'{"a":1,"b":null}', 1),
        (b'{"a": 1, "b": null, "c": {}}', 2),
        (b'{"a":"x:y","b":{"c":"\\":"}}', 4),  # text that looks like a key: too many, so a survey is made
        (b'{"a":"Prix : 3"}', 1),
        (b'{"a" :1}', -1),
        (b'{"a"\n\t:1}', -1),
        (b'{"a":  null}', -1),
    ],
)
def test_the_census_never_counts_too_few_values(text: bytes, values: int) -> None:
    assert Census(text).values == values


scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(10**12), 10**12)
    | st.floats(allow_nan=False, allow_infinity=False, width=32)
)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8) | st.sampled_from(
    ["12", "NaN", '":null', "a : b", "-.5", "1e5", "a\0b"]
)
names = st.sampled_from(["a", "b", "size", "Size", "event", "x y", "ünï", "a.b"])
values = st.recursive(
    scalars | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=6,
)
events = st.fixed_dictionaries(
    {},
    optional={
        "event": texts | st.integers(0, 99),
        "userId": texts | st.integers(0, 99) | st.none(),
        "properties": st.dictionaries(names, values, max_size=4) | texts,
        "traits": st.dictionaries(names, values, max_size=2),
        "context": st.fixed_dictionaries(
            {}, optional={"ip": texts, "screen": st.fixed_dictionaries({"width": scalars}), "odd": values}
        ),
        "integrations": values,
        "extra": values,
    },
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(events, min_size=1, max_size=24), st.booleans())
def test_fast_and_tolerant_reading_agree(tmp_path: Path, batch: list[Any], spaced: bool) -> None:
    schema = tmp_path / "schema.ndjson"
    schema.unlink(missing_ok=True)
    lines = [
        json.dumps(e, separators=None if spaced else (",", ":"), ensure_ascii=False).encode() for e in batch
    ]
    whole = reader(tmp_path)
    whole.read(lines)  # learns; from here on the schema stands still
    fast = cells(whole.read(lines))
    slow = cells(whole._slow(lines))
    alone = [cells(whole.read([line]))[0] for line in lines]
    assert [unordered(r) for r in fast] == [unordered(r) for r in slow] == [unordered(r) for r in alone]


def unordered(row: dict[str, Any]) -> dict[str, Any]:
    """JSON texts compared as values: keys of one object have no order, and 1 is 1.0."""
    return {
        n: json.loads(v) if n == "_unmapped" or (isinstance(v, str) and v[:1] in "[{" and is_json(v)) else v
        for n, v in row.items()
    }


def is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def test_a_value_nested_too_deeply_to_be_written_again_is_dead_and_does_not_end_the_process(
    tmp_path: Path,
) -> None:
    deep = [b'{"event":"d","properties":{"p%d":%s1%s}}' % (n, b"[" * n, b"]" * n) for n in (300, 900)]
    objects = [b'{"event":"d","properties":{"o":%s1%s}}' % (b'{"a":' * n, b"}" * n) for n in (300, 900)]
    parsed = reader(tmp_path).read([b'{"event":"a"}', *deep, *objects, b'{"event":"b"}'])
    assert [c.get("event") for c in cells(parsed)] == ["a", None, None, None, None, "b"]
    assert set(parsed.dead) == {1, 2, 3, 4}
    alone = reader(tmp_path).read(deep[:1])
    assert set(alone.dead) == {0}


def test_a_path_of_two_kinds_is_read_fast_again_after_it_is_known(tmp_path: Path) -> None:
    read = reader(tmp_path)
    batch = lines_of(
        *({"userId": 7 if i == 3 else "u", "properties": {"n": "x" if i == 5 else i}} for i in range(200))
    )
    read.read(batch)
    slow = read.slow_lines
    found = cells(read.read(batch))
    assert read.slow_lines == slow
    assert (found[3]["userId"], found[5]["@n|text"], found[6]["@n"]) == ("7", "x", 6.0)


def test_ignored_values_of_any_shape_cost_one_survey_and_are_never_stored(tmp_path: Path) -> None:
    read = reader(tmp_path)
    some = {
        "_metadata": {"nodeVersion": "v20", "bundled": ["a"]},
        "integrations": {"All": True, "X": {"on": 1}},
    }
    odd = {"_metadata": {"bundled": [1]}, "integrations": {"All": {"deep": {"er": {"still": 1}}}, "X": False}}
    for _ in range(3):
        found = cells(
            read.read(lines_of({**some, "event": "a"}, {**odd, "event": "b"}, {**some, "event": "c"}))
        )
        assert found == [{"event": "a"}, {"event": "b"}, {"event": "c"}]
    before = read.slow_lines
    read.read(lines_of(*[{**some, "event": "a"}] * 50))
    assert read.slow_lines == before


@pytest.mark.parametrize("where", ["properties", "integrations"])
@pytest.mark.parametrize("beside", [b'{"event":"x"}', b'{"event":"\\u0000"}', b'{"properties":{"n":"word"}}'])
def test_a_number_beyond_a_double_never_decides_whether_a_line_is_an_event(
    tmp_path: Path, where: str, beside: bytes
) -> None:
    read = reader(tmp_path)
    read.read([b'{"properties":{"n":1}}'])
    huge = f'{{"messageId":"m","{where}":{{"n":1e999,"m":{"9" * 400}}},"anonymousId":"a"}}'.encode()
    parsed = read.read([huge, beside] * 5)
    assert not parsed.dead
    found = cells(parsed)
    assert [one["messageId"] for one in found[::2]] == ["m"] * 5
    if where == "properties":
        assert found[0]["@n|text"] == "1e999" and found[0]["@m"] == "9" * 400
