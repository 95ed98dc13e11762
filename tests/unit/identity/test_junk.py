"""Ids that name nobody never link anyone."""

import pytest

from headwater.identity.junk import Junk

UUID = "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0"


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            " ",
            "null",
            "NULL",
            "undefined",
            "None",
            "anonymous",
            "[object Object]",
            "x" * 10_000,
            "汉" * 200,
            "(not set)",
        ),
        *("00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff", "--"),
    ],
)
def test_what_trackers_send_when_they_know_nobody_is_junk_as_either_id(text: str) -> None:
    assert Junk().anonymous(text)
    assert Junk().user(text)


@pytest.mark.parametrize("text", ["0", "42", "1234567", "aaaa", "1111111111"])
def test_counters_and_one_sign_over_and_over_are_no_anonymous_ids(text: str) -> None:
    assert Junk().anonymous(text)


@pytest.mark.parametrize("text", ["42", "7", "ada", "ada@example.com", UUID, "x" * 200])
def test_users_may_have_short_and_numeric_ids(text: str) -> None:
    assert not Junk().user(text)


@pytest.mark.parametrize("text", [UUID, "12345678", "visitor-1", "1789456123.1789456999"])
def test_ids_of_trackers_are_anonymous_ids(text: str) -> None:
    assert not Junk().anonymous(text)


def test_the_list_can_be_made_longer() -> None:
    assert Junk(["Kiosk-7"]).anonymous("kiosk-7 ")
