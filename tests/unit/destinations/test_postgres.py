"""A PostgreSQL destination without a server: settings, names, and how rows become bytes."""

from __future__ import annotations

import importlib.util
import re
from typing import Any

import pyarrow as pa
import pytest

from headwater.config import load
from headwater.config.explain import explain
from headwater.destinations import registry
from headwater.destinations.postgres import cast, encode, table
from headwater.destinations.postgres.settings import PostgresSettings
from headwater.kit.errors import Misconfigured
from headwater.node.settings import Settings
from tests.chains import rows

HERE = "postgresql://me@127.0.0.1/db"
AWAY = "postgresql://me@db.example:5433,db2.example/db?target_session_attrs=read-write"
SECRET = "hunter2-hunter2"


def parsed(text: str) -> tuple[Settings, load.Document]:
    document = load.read(text, "h.yaml", {"PG": SECRET})
    return load.convert(document, document.data, Settings), document


def block(**more: str) -> str:
    told = {"type": "postgres", "url": f'"{HERE}"', **more}
    return "destinations:\n  pg: {" + ", ".join(f"{name}: {value}" for name, value in told.items()) + "}\n"


def test_the_password_is_never_shown() -> None:
    settings, document = parsed(block(password='"${env.PG}"'))
    told = {one.key: one.value for one in explain(settings, document, "destinations.pg")}
    assert told["destinations.pg.password"] == "…"
    assert told["destinations.pg.url"] == HERE
    one = settings.destinations["pg"]
    assert isinstance(one, PostgresSettings) and one.password == SECRET
    assert SECRET not in f"{told} {one!r} {settings!r} {list(one.__rich_repr__())}"


@pytest.mark.parametrize(
    ("more", "key"),
    [
        ({"url": f'"postgresql://me:{SECRET}@h/db"'}, "url"),
        ({"url": f'"postgresql://h/db?password={SECRET}"'}, "url"),
        ({"url": f'"postgresql://h/db?sslpassword={SECRET}"'}, "url"),
        ({"url": '"postgresql://h/db?sslmode=disable"'}, "url"),
        ({"url": '"postgresql://h/db?options=-csearch_path%3Dx"'}, "url"),
        ({"url": f'"mysql://me:{SECRET}@h/db"'}, "url"),
        ({"url": f'"host=h password={SECRET}"'}, "url"),
        ({"password": '"${env.PG}"', "password_file": "p"}, "password_file"),
        ({"schema": "Upper"}, "schema"),
        ({"schema": "pg_own"}, "schema"),
        ({"tls_cert": "c.pem"}, "tls_key"),
        ({"lock_timeout_s": "0"}, "lock_timeout_s"),
    ],
)
def test_wrong_settings_are_named_and_no_secret_is_repeated(more: dict[str, str], key: str) -> None:
    with pytest.raises(Misconfigured) as raised:
        parsed(block(**more))
    assert raised.value.fields["key"] == f"destinations.pg.{key}", raised.value
    assert str(raised.value).startswith("h.yaml:2: ") and SECRET not in str(raised.value)


def test_the_nearest_key_is_one_of_its_own_kind() -> None:
    with pytest.raises(Misconfigured, match="did you mean `statement_timeout_s`"):
        parsed(block(statement_timeout="5"))
    with pytest.raises(Misconfigured, match=re.escape("expected auto | off | require | verify")):
        parsed(block(tls="full"))


def test_two_destinations_cannot_share_a_schema() -> None:
    one = f'type: postgres, url: "{HERE}"'
    with pytest.raises(Misconfigured, match="is the schema of `a`"):
        parsed(f"destinations:\n  a: {{{one}}}\n  b: {{{one}}}\n")
    parsed(f"destinations:\n  a: {{{one}}}\n  b: {{{one}, schema: other}}\n")


def test_a_missing_driver_is_said_with_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "psycopg" else find(name, *more)
    )
    with pytest.raises(Misconfigured, match=re.escape("pip install 'headwater[postgres]'")) as raised:
        parsed(block())
    assert "destinations.pg.type" in str(raised.value)
    with pytest.raises(Misconfigured, match=re.escape("pip install 'headwater[postgres]'")):
        registry.check_driver(PostgresSettings(url=HERE))


@pytest.mark.parametrize(
    ("url", "tls", "mode"),
    [
        (HERE, "auto", "prefer"),
        ("postgresql://me@[::1]:5432/db", "auto", "prefer"),
        ("postgresql:///db?host=/var/run/postgresql", "auto", "prefer"),
        (AWAY, "auto", "verify-full"),
        ("postgresql://127.0.0.1,db.example/db", "auto", "verify-full"),
        ("postgresql://127.0.0.1/db?host=db.example", "auto", "verify-full"),
        (AWAY, "require", "require"),
        (AWAY, "off", "disable"),
        (HERE, "verify", "verify-full"),
    ],
)
def test_tls_is_verified_wherever_the_server_is_not_this_machine(url: str, tls: Any, mode: str) -> None:
    assert PostgresSettings(url=url, tls=tls).mode == mode


def test_names_that_begin_alike_stay_apart_within_63_bytes() -> None:
    long = ["ä" * 31 + end for end in ("äa", "äb", "ä")]
    made = [table.own_name(name) for name in (*long, "xmin", "price", "ä" * 31)]
    assert len(set(made)) == len(made)
    assert all(len(name.encode()) <= 63 for name in made)
    assert made[-2:] == ["price", "ä" * 31]


def test_slices_are_bounded_by_rows_and_by_bytes() -> None:
    many = rows(0, 2 * encode.SLICE_ROWS + 1, (0,))
    assert [some.num_rows for some in encode.slices(many)] == [encode.SLICE_ROWS, encode.SLICE_ROWS, 1]
    text = pa.array(["x" * (encode.SLICE_BYTES_MAX // 4)] * 10)
    large = list(encode.slices(rows(0, 10, (0,), {"label": text})))
    assert sum(some.num_rows for some in large) == 10
    assert all(some.nbytes <= encode.SLICE_BYTES_MAX for some in large)


def test_escapes_that_jsonb_refuses_are_replaced_and_all_others_kept() -> None:
    given = r'{"a":"\u0000\\u0000 \ud83d\ude00 \ud83d \udc00\n \u00e4 \\\u0000"}'
    assert (
        cast.without_refused(given)
        == '{"a":"\ufffd\\\\u0000 \\ud83d\\ude00 \ufffd \ufffd\\n \\u00e4 \\\\\ufffd"}'
    )


def test_values_of_a_slice_are_its_own_bytes() -> None:
    column = pa.array(["ab", None, "", "cde", "f"]).slice(1, 3)
    assert bytes(cast.values_of(column)) == b"cde"
    assert bytes(cast.values_of(column.slice(0, 0))) == b""


@pytest.mark.parametrize(
    ("wanted", "held"),
    [
        ("float8", [5.0, -0.5, 1000.0, None, None, None, None, None]),
        ("int4", [5, None, None, None, None, None, None, None]),
        ("bool", [None, None, None, True, False, None, None, None]),
        ("date", [None] * 8),
    ],
)
def test_text_is_read_as_what_it_spells_or_not_at_all(wanted: str, held: list[Any]) -> None:
    texts = pa.array([" 5 ", "-.5", "1e3", "True", "f", "1e999", "5x", None])
    assert cast.fitted(texts, "text", wanted).to_pylist() == held


def test_whole_numbers_beyond_a_type_do_not_fit_it() -> None:
    large = pa.array([0, 2**15, 2**53 + 1, 2**64 - 1], pa.uint64())
    assert cast.fitted(large, "numeric", "numeric").to_pylist() == large.to_pylist()
    assert cast.fitted(large, "numeric", "int8").to_pylist() == [0, 2**15, 2**53 + 1, None]
    assert cast.fitted(large, "numeric", "int2").to_pylist() == [0, None, None, None]
    assert cast.fitted(large, "numeric", "float8").to_pylist() == [0.0, 2.0**15, None, None]


def test_any_value_becomes_json() -> None:
    assert cast.as_json(pa.array([1.0, 0.5, float("nan"), None]), "float8").to_pylist() == [
        "1",
        "0.5",
        '"nan"',
        None,
    ]
    assert cast.as_json(pa.array(['a"\\', "b\n\u0001", None]), "text").to_pylist() == [
        '"a\\"\\\\"',
        '"b\\n\\u0001"',
        None,
    ]
    assert cast.as_json(pa.array([True, None]), "bool").to_pylist() == ["true", None]
    assert cast.as_json(pa.array([[1, 2], None]), "jsonb").to_pylist() == ["[1, 2]", None]
    assert cast.as_json(pa.array([b"\x00\xff"]), "bytea").to_pylist() == ['"00ff"']
