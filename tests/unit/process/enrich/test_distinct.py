import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.process.enrich import distinct

TEXTS = st.lists(st.one_of(st.none(), st.text(max_size=6)), max_size=40)


def lengths(entries_max: int = 100) -> tuple[distinct.Memo, list[tuple[str | None, ...]]]:
    seen: list[tuple[str | None, ...]] = []

    def function(*values: str | None) -> distinct.Row:
        seen.append(values)
        return "|".join(value or "∅" for value in values), sum(len(value or "") for value in values)

    fields = (distinct.Field("joined", pa.string()), distinct.Field("length", pa.int32()))
    return distinct.Memo(function, fields, entries_max=entries_max), seen


@given(TEXTS)
def test_each_row_gets_the_functions_outputs_for_its_own_value(values):
    memo, _ = lengths(entries_max=4)
    out = memo.apply(pa.array(values, pa.string()))
    assert out["joined"].to_pylist() == [value or "∅" for value in values]
    assert out["length"].to_pylist() == [len(value or "") for value in values]


@given(st.lists(st.tuples(*[st.sampled_from([None, "", "a", "b", "ab"])] * 4), max_size=60))
def test_several_columns_are_one_combined_value(rows):
    memo, seen = lengths()
    columns = [pa.array(column, pa.string()) for column in zip(*rows, strict=True)] or [
        pa.array([], pa.string())
    ]
    out = memo.apply(*columns)
    assert out["joined"].to_pylist() == ["|".join(value or "∅" for value in row) for row in rows]
    assert sorted(map(repr, seen)) == sorted(map(repr, set(rows)))


@given(TEXTS, st.integers(0, 40))
def test_batch_borders_do_not_show(values, border):
    whole, _ = lengths(entries_max=3)
    parts, _ = lengths(entries_max=3)
    column = pa.array(values, pa.string())
    left, right = parts.apply(column[:border]), parts.apply(column[border:])
    for name, array in whole.apply(column).items():
        assert array.to_pylist() == left[name].to_pylist() + right[name].to_pylist()


def test_function_runs_once_per_distinct_value_while_it_is_remembered():
    memo, seen = lengths()
    memo.apply(pa.array(["a", "b", "a", None]))
    memo.apply(pa.array(["b", "a", "c"]))
    assert sorted(map(repr, seen)) == sorted(map(repr, [("a",), ("b",), (None,), ("c",)]))
    assert (memo.misses, memo.hits) == (4, 2)


@given(st.lists(st.text(max_size=3), max_size=200), st.integers(2, 10))
def test_memory_never_exceeds_its_bound(values, entries_max):
    memo, _ = lengths(entries_max)
    memo.apply(pa.array(values, pa.string()))
    assert len(memo) <= entries_max


def test_value_in_use_is_not_forgotten():
    memo, seen = lengths(entries_max=4)
    for other in range(50):
        memo.apply(pa.array(["kept", str(other)]))
    assert seen.count(("kept",)) == 1


def test_very_long_value_is_computed_but_not_remembered():
    memo, seen = lengths()
    for _ in range(2):
        memo.apply(pa.array(["x" * (distinct.KEY_CHARS_MAX + 1)]))
    assert len(seen) == 2
    assert len(memo) == 0


def test_value_on_which_the_function_raises_is_null_and_told():
    def function(value: str | None) -> distinct.Row:
        return (10 / len(value or ""),)

    memo = distinct.Memo(function, [distinct.Field("x", pa.float64())], entries_max=10)
    assert memo.apply(pa.array(["ab", "", "a"]))["x"].to_pylist() == [5.0, None, 10.0]
    assert memo.failed == 1
    assert memo.trouble is not None and "ZeroDivisionError" in memo.trouble


@pytest.mark.parametrize("bad", ["\ud800", 7, object()])
def test_output_that_does_not_fit_its_field_is_null_and_told(bad):
    memo = distinct.Memo(lambda value: (bad if value == "b" else value,), distinct.texts("x"), entries_max=10)
    assert memo.apply(pa.array(["a", "b"]))["x"].to_pylist() == ["a", None]
    assert memo.failed == 1


def test_all_forms_of_text_columns_are_taken():
    plain = pa.array(["a", None, "b", "a"])
    forms = [
        plain,
        plain.cast(pa.large_string()),
        plain.cast(pa.string_view()),
        plain.dictionary_encode(),
        pa.chunked_array([plain[:1], plain[1:]]),
        pa.chunked_array([plain.dictionary_encode()[:2], plain.dictionary_encode()[2:]]),
    ]
    for form in forms:
        memo, _ = lengths()
        assert memo.apply(form)["length"].to_pylist() == [1, 0, 1, 1]
    memo, _ = lengths()
    assert memo.apply(pa.chunked_array([], pa.string()))["length"].to_pylist() == []
    assert memo.apply(pa.nulls(2))["length"].to_pylist() == [0, 0]


def test_invalid_utf8_becomes_replacement_characters():
    broken = pa.array([b"a\xff", None]).view(pa.string())
    memo, _ = lengths()
    assert memo.apply(broken)["joined"].to_pylist() == ["a�", "∅"]


def test_dictionary_form_holds_the_same_values():
    memo, _ = lengths()
    column = pa.array(["a", "b", "a", None])
    coded, plain = memo.apply(column, dictionary=True), memo.apply(column)
    for name, array in plain.items():
        assert pa.types.is_dictionary(coded[name].type)
        assert coded[name].dictionary_decode().equals(array)


def test_columns_of_unequal_length_are_refused():
    memo, _ = lengths()
    with pytest.raises(ValueError, match="columns of 1 and 2 rows"):
        memo.apply(pa.array(["a"]), pa.array(["a", "b"]))
