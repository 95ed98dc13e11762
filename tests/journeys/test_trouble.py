"""Trouble is visible and repairable: where an event is and why, dead letters that come right, a pause, counted rows."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.journeys.running import WEB_KEY, Running, wait_for

SMALL, LARGE = "event_bytes_max: 600", "event_bytes_max: 6000"


def explained(node: Running, *words: str) -> dict[str, Any]:
    done = node.command("explain", *words, "--json")
    assert done.returncode == 0, done.stderr
    story: dict[str, Any] = json.loads(done.stdout)
    return story


def fates(story: dict[str, Any]) -> list[tuple[str, str]]:
    return [
        (one["processing"]["state"], one["destinations"]["warehouse"]["state"]) for one in story["copies"]
    ]


def letters(node: Running) -> dict[str, dict[str, Any]]:
    """Dead letters by message id."""
    return {one["message_id"]: one for one in json.loads(node.command("dead", "list", "--json").stdout)}


def wait_letters(node: Running, count: int) -> dict[str, dict[str, Any]]:
    wait_for(lambda: len(letters(node)) == count, 15, node.log, interval_s=0.3)
    return letters(node)


def retried(node: Running, *words: str) -> dict[str, dict[str, Any]]:
    done = node.command("dead", "retry", *words, "--json")
    assert done.stdout, done.stderr
    return {one["origin"]: one for one in json.loads(done.stdout)}


@pytest.fixture(scope="module")
def shared(make_shared_node: Callable[..., Running]) -> Running:
    node = make_shared_node()
    node.start()
    return node


def test_explain_tells_of_each_copy_what_became_of_it(shared: Running) -> None:
    first = {"type": "track", "event": "A", "messageId": 'é/"1', "anonymousId": "a"}
    status, told = shared.post("/v1/batch", {"batch": [first, {"type": "track", "messageId": "refused"}]})
    assert status == 200
    shared.post("/events", first)
    shared.wait_settled()
    story = explained(shared, 'é/"1')
    assert fates(story) == [("row", "there"), ("duplicate", "nothing")]
    assert story["copies"][1]["processing"]["of"] == story["copies"][0]["position"]
    assert story["copies"][0]["request"] == "POST /v1/batch (segment), event 1 of 2"
    assert story["copies"][0]["destinations"]["warehouse"]["row"]["event"] == "A"
    story = explained(shared, "refused")
    assert fates(story) == [("dead", "nothing")]
    assert story["copies"][0]["processing"]["field"] == "event"
    by_receipt = explained(shared, told["receipt"])
    assert [(one["message_id"], one["found_by"]) for one in by_receipt["copies"]][:2] == [
        ('é/"1', "receipt"), ("refused", "receipt")
    ]  # fmt: skip
    done = shared.command("explain", "never")
    assert (done.returncode, "never seen here" in done.stderr, "searched: " in done.stdout) == (1, True, True)


def test_a_pause_holds_one_destination_over_a_restart_and_loses_nothing(
    make_node: Callable[..., Running],
) -> None:
    node = make_node()
    node.start()
    node.post("/events", {"event": "A", "messageId": "before"})
    node.wait_rows(1)
    assert node.command("destination", "pause", "warehouse", "--reason", "a copy").returncode == 0
    node.post("/events", {"event": "B", "messageId": "held"})
    wait_for(lambda: fates(explained(node, "held")) == [("row", "pending")], 15, node.log, interval_s=0.2)
    assert node.stop() == 0
    assert "not asked: warehouse" in node.command("explain", "held").stdout
    node.start()
    wait_for(lambda: "is paused by operator" in node.command("status").stdout, 15, node.log)
    status = node.command("status")
    assert "warehouse is paused by operator since" in status.stdout, status.stdout
    assert "because a copy" in status.stdout
    assert "headwater destination resume warehouse --data" in status.stdout
    assert status.returncode == 0, "a pause behind the door does not turn events away"
    node.post("/events", {"event": "C", "messageId": "held too"})
    assert node.sql("select count(*) n from events")[0]["n"] == 1, "SQL answers, and nothing was loaded"
    assert all(ledger["holds"] for ledger in node.reconcile())
    assert node.command("destination", "resume", "warehouse").returncode == 0
    (ledger,) = [one for one in node.wait_settled() if one["accepted"]]
    assert (ledger["delivered"], ledger["holds"]) == (3, True)
    assert fates(explained(node, "held")) == [("row", "there")]
    assert node.command("destination", "resume", "warehouse").returncode == 2


def test_dead_letters_come_right_once_and_the_ledger_says_so(
    make_node: Callable[..., Running], tmp_path: Any
) -> None:
    node = make_node(door=SMALL)
    node.start()
    large = {"userId": "u", "messageId": "large", "traits": {"x": "y" * 700}, "timestamp": "2026-01-01T00:00:00Z",
             "sentAt": "2026-01-01T00:00:00Z"}  # fmt: skip
    node.post("/v1/identify", large)
    node.post(
        "/v1/batch", {"batch": [{"type": "track", "event": "A"}, {"type": "track", "messageId": "nameless"}]}
    )
    node.ask("POST", "/events", b'{"event":"\xff","messageId":"odd"}', {"X-Write-Key": WEB_KEY})
    known = wait_letters(node, 3)
    assert node.stop() == 0
    node.configure(door=LARGE)
    node.start()

    results = retried(node, "--all")
    assert {one: results[known[one]["origin"]]["state"] for one in known} == {
        "large": "there", "nameless": "refused", "odd": "refused"
    }  # fmt: skip
    (row,) = node.sql("select type, user_id, timestamp, ip from events where message_id = 'large'")
    assert row == {"type": "identify", "user_id": "u", "timestamp": "2026-01-01T00:00:00Z", "ip": "127.0.0.1"}
    assert explained(node, "large")["copies"][1]["retry_of"] == known["large"]["origin"]
    assert retried(node, "--all")[known["large"]["origin"]]["state"] == "retried_before"

    exported = tmp_path / "letters.ndjson"
    assert node.command("dead", "export", str(exported)).returncode == 0
    lines = {one["message_id"]: one for one in map(json.loads, exported.read_text().splitlines())}
    assert (lines["odd"]["body"], "body_base64" in lines["odd"]) == (None, True)
    nameless = lines["nameless"]
    nameless["body"] = nameless["body"].replace('"track"', '"track", "event": "Named"')
    exported.write_text(json.dumps(nameless))
    assert [one["state"] for one in retried(node, "--edit", str(exported)).values()] == ["there"]
    assert [one["state"] for one in retried(node, "--edit", str(exported), "--again").values()] == [
        "duplicate"
    ]

    (ledger,) = [one for one in node.wait_settled() if one["accepted"]]
    numbers = {name: ledger[name] for name in ("accepted", "delivered", "dead", "duplicate", "holds")}
    assert numbers == {"accepted": 7, "delivered": 3, "dead": 3, "duplicate": 1, "holds": True}
    assert node.command("reconcile", "--deep").returncode == 0


def test_a_retried_letter_does_not_double_what_the_client_corrected_itself(shared: Running) -> None:
    shared.post("/events", {"type": "track", "messageId": "corrected"})
    wait_for(lambda: "corrected" in letters(shared), 15, shared.log, interval_s=0.3)
    shared.post("/events", {"event": "Right", "messageId": "corrected"})
    shared.wait_settled()
    letter = json.loads(shared.command("dead", "show", "corrected", "--json").stdout)
    letter["body"] = '{"event": "Late", "messageId": "corrected"}'
    done = shared.command("dead", "retry", "--dry-run", letter["origin"])
    assert (done.returncode, "still refused" in done.stdout) == (1, True)
    file = shared.folder / "late.ndjson"
    file.write_text(json.dumps(letter))
    assert [one["state"] for one in retried(shared, "--edit", str(file)).values()] == ["duplicate"]
    assert [
        one["event"] for one in shared.sql("select event from events where message_id = 'corrected'")
    ] == ["Right"]


def test_rows_that_somebody_deleted_are_found_by_counting(make_node: Callable[..., Running]) -> None:
    node = make_node()
    node.start()
    for number in range(5):
        node.post("/events", {"event": "A", "messageId": f"m{number}"})
    node.wait_settled()
    assert node.command("reconcile", "--deep").returncode == 0
    assert node.stop() == 0
    import duckdb

    with duckdb.connect(str(node.data / "warehouse.duckdb")) as base:
        base.execute("delete from events where message_id = 'm3'")
    node.start()
    assert node.command("reconcile").returncode == 0, "the counters still agree"
    done = node.command("reconcile", "--deep")
    assert done.returncode == 1
    assert "warehouse: the table holds 4 rows, the position rows account for 5" in done.stderr
    story = explained(node, "m3")
    assert [one["processing"]["state"] for one in story["copies"]] == ["unknown"]
    assert "deleted by hand" in story["copies"][0]["processing"]["says"]
