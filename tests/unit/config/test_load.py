from typing import Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.config import load
from headwater.kit.errors import Misconfigured


class Inner(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A block."""

    listen: str = "x"
    """Where.
    On two lines."""
    workers: int = 1
    """How many."""
    names: list[str] = []

    def __post_init__(self) -> None:
        if self.workers < 0:
            raise ValueError(f"workers: expected 0 or more, got {self.workers}")


class Key(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    id: str
    secret: str = ""
    ack: Literal["disk", "memory"] = "disk"

    def __post_init__(self) -> None:
        if self.id == "bad":
            raise Misconfigured("keys[bad].secret: is bad", field="keys[bad].secret")


class Root(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    collect: Inner = Inner()
    keys: list[Key] = []
    places: dict[str, Inner] = {}
    delay: float = 0.0


def read(text, **environment):
    document = load.read(text, "hw.yaml", environment)
    return load.convert(document, document.data, Root)


def refused(text, **environment):
    with pytest.raises(Misconfigured) as caught:
        read(text, **environment)
    return str(caught.value)


def test_an_empty_file_is_all_defaults():
    assert read("") == Root()
    assert read("# nothing\n") == Root()


def test_a_variable_of_the_environment_takes_the_place_of_its_template():
    assert read('keys: [{id: a, secret: "x-${env.KEY}-y"}]', KEY="k").keys[0].secret == "x-k-y"


def test_a_default_is_taken_when_the_variable_is_not_set():
    assert read('collect: {listen: "${env.L|127.0.0.1:1}"}').collect.listen == "127.0.0.1:1"
    assert read('collect: {listen: "${env.L|}"}').collect.listen == ""
    assert read('collect: {listen: "${env.L|x}"}', L="set").collect.listen == "set"


def test_a_templated_number_is_a_number_quoted_or_not():
    assert read('collect: {workers: "${env.W|3}"}').collect.workers == 3
    assert read("collect:\n  workers: ${env.W|3}\n").collect.workers == 3
    assert read("delay: ${env.D}", D="2.5").delay == 2.5


def test_a_secret_of_digits_stays_text():
    assert read('keys: [{id: a, secret: "${env.S}"}]', S="0012").keys[0].secret == "0012"


def test_a_doubled_dollar_is_a_plain_one():
    assert read('collect: {listen: "$${env.X}"}').collect.listen == "${env.X}"


def test_a_missing_variable_names_the_line_the_key_and_the_way_out():
    told = refused('collect: {}\nkeys:\n  - id: a\n    secret: "${env.WEB_KEY}"\n')
    assert "hw.yaml:4: keys[0].secret: the environment variable WEB_KEY is not set" in told
    assert "${env.WEB_KEY|default}" in told


def test_what_is_no_template_is_refused():
    assert "is no template" in refused('collect: {listen: "${WEB_KEY}"}')


def test_an_unknown_key_names_the_nearest_one():
    assert "hw.yaml:2: collect.lisen: unknown key (did you mean `listen`?)" in refused(
        "collect:\n  lisen: x\n"
    )
    assert "did you mean `keys`" in refused("kyes: []")
    assert "hw.yaml:3: keys[1].sercet: unknown key" in refused("keys:\n  - {id: a}\n  - {id: b, sercet: c}\n")


def test_an_unknown_key_without_a_near_one_lists_what_is_known():
    assert "known here: listen, workers, names" in refused("collect: {zzz: 1}")


def test_an_unknown_key_in_a_named_block_is_found():
    assert "unknown key (did you mean `workers`?)" in refused("places:\n  north: {wokers: 1}\n")


def test_a_wrong_value_in_a_named_block_says_in_which_one_and_its_line():
    text = "places:\n  north:\n    workers: 1\n  south:\n    listen: b\n    workers: {}\n"
    assert "hw.yaml:6: places.south.workers: expected integer, got text 'many'" in refused(
        text.format("many")
    )
    assert "hw.yaml:6: places.south.workers: expected 0 or more, got -1" in refused(text.format(-1))
    assert "hw.yaml:6: places.south.wokers: unknown key" in refused(
        text.format(1).replace("b\n    workers", "b\n    wokers")
    )


def test_a_wrong_type_says_what_was_expected_and_where():
    told = refused("collect:\n  listen: a\n  workers: many\n")
    assert "hw.yaml:3: collect.workers: expected integer, got text 'many'" in told


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("delay: soon", "hw.yaml:1: delay: expected number, got text 'soon'"),
        ("collect: {workers: 1.5}", "collect.workers: expected integer, got number 1.5"),
        ("collect: {workers: true}", "collect.workers: expected integer, got true"),
        ("collect: {workers: }", "collect.workers: expected integer, got nothing"),
        ("collect: {workers: [1]}", "collect.workers: expected integer, got a list"),
        ("collect: {listen: 8420}", "collect.listen: expected text, got integer 8420 (in quotes it is text)"),
        (
            "collect: {listen: 2026-11-21T18:00:00Z}",
            "listen: expected text, got a time (in quotes it is text)",
        ),
        ("collect: {listen: 2026-11-21}", "collect.listen: expected text, got a date (in quotes it is text)"),
        ("collect: {names: x}", "collect.names: expected a list, got text"),
        ("collect: 3", "collect: expected a block of `key: value`, got integer"),
        ("places: {north: {workers: x}}", "places.north.workers: expected integer, got text 'x'"),
    ],
)
def test_a_wrong_type_is_told_in_the_words_of_the_documents(text, told):
    assert refused(text).endswith(told)


@pytest.mark.parametrize(
    "text", ["keys: [{id: a, secret: 31415926}]", "keys: [31415926]", 'collect: {workers: "${env.N}"}']
)
def test_what_could_be_a_secret_is_not_in_the_complaint(text):
    told = refused(text, N="x31415926")
    assert "expected" in told and "31415926" not in told


def test_a_wrong_choice_says_what_there_is_to_choose():
    told = refused("keys: [{id: a, ack: telepathy}]")
    assert "hw.yaml:1: keys[0].ack: invalid enum value 'telepathy' (expected disk | memory)" in told


def test_a_missing_key_is_named():
    assert "hw.yaml:1: keys[0]: `id` is missing" in refused("keys: [{secret: x}]")


def test_a_structs_own_check_gets_the_place():
    assert "hw.yaml:3: collect.workers: expected 0 or more, got -1" in refused("\ncollect:\n  workers: -1\n")
    assert "hw.yaml:4: keys[bad].secret: is bad" in refused("keys:\n  - id: a\n  - id: bad\n    secret: x\n")


def test_a_key_that_stands_twice_is_refused():
    told = refused("collect:\n  workers: 1\n  workers: 2\n")
    assert "hw.yaml:3: collect.workers: stands twice; the first is in line 2" in told


@pytest.mark.parametrize("text", ["- a", "just text", "a: [", "a: &x 1\n<<: *x", "? [a]\n: 1", "a: 'x", "\t"])
def test_what_is_no_block_of_keys_is_refused_with_the_line(text):
    assert "hw.yaml" in refused(text)


def test_an_unquoted_template_in_braces_says_to_quote_it():
    assert "must be quoted" in refused("collect: {listen: ${env.X|a}}")


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused_in_words(text):
    try:
        load.read(text, "hw.yaml", {})
    except Misconfigured as error:
        assert "hw.yaml" in str(error)
