"""Ledgers with what was counted: what is a problem, and what is said about it."""

import pytest

from headwater.ops import deep

KINDS = ("accepted", "delivered", "pending", "dead", "duplicate", "filtered", "erased", "damaged")
ZEROS = dict.fromkeys(KINDS, 0)


def ledger(stream="web", holds=True, problems=()):
    destinations = {"w": {**ZEROS, "holds": holds}}
    return {
        "stream": stream,
        **ZEROS,
        "holds": holds,
        "problems": list(problems),
        "destinations": destinations,
    }


def counts(**given):
    return {"w": {"streams": {"web": {**deep.nothing(), **given}}}}


def test_what_agrees_holds_and_has_its_numbers():
    (told,) = deep.with_counts([ledger()], counts(counted=5, said=5))
    assert (told["holds"], told["problems"]) == (True, [])
    assert told["destinations"]["w"]["deep"]["counted"] == 5


@pytest.mark.parametrize(
    ("differences", "remedy"),
    [
        ([(1, 5, 4)], "restore a copy of the file"),
        ([(1, 4, 5)], "delete those"),
        ([(1, 4, 5), (2, 5, 4)], "changed by hand"),
    ],
)
def test_a_difference_is_a_problem_with_its_place_and_a_remedy(differences, remedy):
    given = [{"partition": p, "said": said, "counted": found} for p, said, found in differences]
    (told,) = deep.with_counts([ledger()], counts(counted=4, said=5, differences=given))
    (problem,) = told["problems"]
    assert not told["holds"] and not told["destinations"]["w"]["holds"]
    assert problem.startswith("w: the table holds 4 rows") and "partition 1:" in problem and remedy in problem


def test_rows_of_one_origin_are_a_problem_and_copies_of_an_id_are_a_note():
    found = counts(counted=5, said=5, doubled_rows=1, doubled_examples=["a-b-1-0"])
    (told,) = deep.with_counts([ledger()], found)
    assert not told["holds"] and "a-b-1-0" in told["problems"][0]
    (told,) = deep.with_counts([ledger()], counts(counted=5, said=5, copies=2, copies_apart_s=4000.0))
    assert told["holds"]
    assert deep.notes([told])[0].startswith(
        "web: w: 2 rows more than message ids, the closest two received 4000 s apart"
    )


def test_a_destination_that_could_not_be_counted_proves_nothing():
    (told,) = deep.with_counts([ledger()], {"w": {"error": "no answer"}})
    assert (told["holds"], told["problems"]) == (False, ["w: its rows could not be counted: no answer"])


def test_rows_of_a_stream_that_no_log_knows_are_told():
    found = counts(counted=5, said=5)
    found["w"]["streams"]["strange"] = {
        **deep.nothing(), "counted": 1, "differences": [{"partition": 3, "said": 0, "counted": 1}]
    }  # fmt: skip
    known, strange = deep.with_counts([ledger()], found)
    assert (known["holds"], strange["stream"], strange["holds"]) == (True, "strange", False)


def test_problems_that_were_there_stay():
    (told,) = deep.with_counts([ledger(holds=False, problems=["one is lost"])], counts(counted=5, said=5))
    assert (told["holds"], told["problems"]) == (False, ["one is lost"])
