"""``headwater replay`` against a node that is played."""

from __future__ import annotations

import json

import pytest

from headwater.cli.when import WHEN
from tests.unit.cli.test_commands import node, run  # noqa: F401 - the fixture

PATH = "/api/destinations/w/replay"
PLAN = {"id": "4", "events": 9000, "missing": "", "table": "events", "rate": 100.0, "seconds": 90.0}
ONE = {
    "id": "4", "state": "running", "reason": "", "table": "events", "from_ns": 0, "to_ns": 10**18, "events": 200,
    "done": 50, "rate": 10.0, "seconds_left": 15.0, "rows": 48, "gained": 1, "lost": 0, "refused": 0, "too_young": 2,
    "unread": 3,
}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1970-01-02", 86_400),
        ("1970-01-01T01:00", 3600),
        ("1970-01-01T01:00:00.25Z", 3600.25),
        ("1970-01-01T01:00+01:00", 0),
    ],
)
def test_times_are_utc_unless_they_say_otherwise(text, seconds):
    assert WHEN.convert(text, None, None) == seconds * 10**9


def test_times_ago():
    now = WHEN.convert("now", None, None)
    assert 0 <= WHEN.convert("now", None, None) - now < 60e9
    for text, seconds in (("90s", 90), ("15m", 900), ("3h", 10_800), ("2d", 172_800)):
        assert abs(now - WHEN.convert(text, None, None) - seconds * 10**9) < 60e9


def test_what_is_no_time_or_missing_is_said(node):  # noqa: F811
    done = run("replay", node.data, "--from", "soon", "--to", "now")
    assert done.exit_code == 2 and "'soon' is no time: expected 30m" in done.output
    done = run("replay", node.data, "--from", "3h")
    assert done.exit_code == 2 and "--to are both needed" in done.output


def test_a_replay_is_begun_in_the_first_destination(node):  # noqa: F811
    node.answers = {"/api/status": (200, {"destinations": {"w": {}, "v": {}}}), PATH: (200, PLAN)}
    done = run("replay", node.data, "--from", "1970-01-01", "--to", "1970-01-01T00:00:01", "--rate", "7")
    assert done.exit_code == 0
    assert (
        "replay 4: 9000 events into events, about 90 s" in done.output
        and "replay status --data" in done.output
    )
    assert node.asked[-1] == (
        PATH,
        {
            "do": "start",
            "from_ns": 0,
            "to_ns": 10**9,
            "into": "",
            "rate": 7.0,
            "partial": False,
            "dry_run": False,
        },
    )


def test_a_dry_run_says_what_is_missing(node):  # noqa: F811
    node.answers = {PATH: (200, {**PLAN, "id": None, "missing": "it is whole from 10:00 on"})}
    words = (
        "replay",
        node.data,
        "--from",
        "2d",
        "--to",
        "1d",
        "--dry-run",
        "--destination",
        "w",
        "--into",
        "x",
    )
    done = run(*words)
    assert (
        "not all of it is there: it is whole from 10:00 on" in done.output
        and "would replay 9000" in done.output
    )
    assert node.asked[-1][1]["into"] == "x" and node.asked[-1][1]["dry_run"] is True
    assert json.loads(run(*words, "--json").output)["id"] is None


def test_what_is_under_way_is_shown(node):  # noqa: F811
    node.answers = {PATH: (200, {"replays": [{**ONE, "id": "3", "state": "done"}, ONE]})}
    done = run("replay", "status", node.data, "--destination", "w")
    assert "50 of 200 (25 %)" in done.output and "15 s" in done.output
    assert "2 dead letters would be rows now" in done.output and "3 events are damaged" in done.output
    told = json.loads(run("replay", "status", node.data, "--destination", "w", "--json").output)
    assert [one["id"] for one in told] == ["4"]
    told = json.loads(run("replay", "list", node.data, "--destination", "w", "--json").output)
    assert [one["id"] for one in told] == ["3", "4"]
    node.answers = {PATH: (200, {"replays": []})}
    assert "no replay is under way" in run("replay", "status", node.data, "--destination", "w").output


def test_replays_are_cancelled_resumed_and_dropped(node):  # noqa: F811
    node.answers = {PATH: (200, {**ONE, "dropped": "events_x"})}
    for word, name in (("cancel", "4"), ("resume", "4"), ("drop", "x")):
        assert run("replay", word, name, node.data, "--destination", "w").exit_code == 0
    assert [asked for _, asked in node.asked] == [
        {"do": "cancel", "id": "4"}, {"do": "resume", "id": "4"}, {"do": "drop", "into": "x"}
    ]  # fmt: skip
