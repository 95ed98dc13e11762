"""Undo: who an anonymous visitor was is shown with the event that says so, and taken back with all its rows."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.journeys.running import SERVER_KEY, Running, wait_for


@pytest.fixture(scope="module")
def node(make_shared_node: Callable[..., Running]) -> Iterator[Running]:
    made = make_shared_node()
    made.start()
    yield made


def send(node: Running, *events: dict[str, Any]) -> None:
    status, told = node.post("/v1/batch", {"batch": list(events)}, key=SERVER_KEY)
    assert status == 200, told


def views(visitor: str, count: int, begin: int = 0) -> list[dict[str, Any]]:
    """Events of a visitor who names nobody."""
    return [
        {"type": "track", "event": "View", "anonymousId": visitor, "messageId": f"{visitor}-{n}"}
        for n in range(begin, begin + count)
    ]


def login(visitor: str, user: str, message_id: str) -> dict[str, Any]:
    return {"type": "identify", "anonymousId": visitor, "userId": user, "messageId": message_id}


def asked(node: Running, *words: str) -> tuple[int, Any]:
    """The exit code of a command of identity, and its JSON."""
    done = node.command("identity", *words, "--json")
    return done.returncode, json.loads(done.stdout) if done.stdout.strip() else done.stderr


def visitor_of(node: Running, visitor: str) -> dict[str, Any]:
    code, told = asked(node, "show", visitor)
    assert code == 0, told
    return next(dict(one) for one in told["visitors"] if one["anonymous_id"] == visitor)


def recognised(node: Running, visitor: str, user: str, count: int) -> bool:
    """Whether so many rows carry a user that their events do not name."""
    found = node.sql(
        f"select count(*) as n from events where anonymous_id = '{visitor}' and user_id = '{user}' "
        "and not _hw_user_own"
    )
    return bool(found[0]["n"] == count)


def logged_in(node: Running, visitor: str, user: str, count: int) -> None:
    """A visitor who browsed before they logged in, and whose rows followed."""
    send(node, *views(visitor, count))
    send(node, login(visitor, user, f"login-{visitor}"))
    wait_for(lambda: recognised(node, visitor, user, count), 30, node.log, interval_s=0.2)


def test_show_says_who_is_linked_since_when_and_by_which_event(node: Running) -> None:
    logged_in(node, "visitor-1", "ada", 3)
    wait_for(lambda: bool(visitor_of(node, "visitor-1")["settled"]), 20)
    visitor = visitor_of(node, "visitor-1")
    (link,) = visitor["links"]
    assert (visitor["state"], visitor["rows_anonymous"]) == ("linked", 0)
    assert (link["user_id"], link["state"], link["kind"], link["message_id"]) == (
        "ada", "linked", "login", "login-visitor-1",
    )  # fmt: skip
    assert (link["rows_own"], link["rows_recognised"]) == (1, 3)
    received = node.sql("select received_at from events where message_id = 'login-visitor-1'")
    assert link["since"][:19] <= received[0]["received_at"][:19].replace(" ", "T")
    code, told = asked(node, "show", "ada")
    assert code == 0 and [one["anonymous_id"] for one in told["visitors"]] == ["visitor-1"]
    text = node.command("identity", "show", "visitor-1").stdout
    assert "visitor-1: linked" in text and "login-visitor-1" in text


def test_what_nobody_knows_is_no_with_the_reason(node: Running) -> None:
    assert asked(node, "show", "never-seen")[0] == 1
    done = node.command("identity", "show", "undefined")
    assert done.returncode == 1 and "junk" in done.stderr
    assert asked(node, "unlink", "never-seen", "ada", "--yes")[0] == 1


def test_unlink_makes_the_rows_anonymous_again_and_the_ledger_holds(node: Running) -> None:
    logged_in(node, "visitor-2", "bob", 4)
    code, told = asked(node, "unlink", "visitor-2", "bob", "--yes", "--wait", "30")
    assert code == 0, told
    assert told["state"] == "unlinked" and told["message_id"].startswith("unlink-")
    assert recognised(node, "visitor-2", "bob", 0)
    assert node.sql(
        "select user_id, _hw_user_own as own, count(*) as n from events where anonymous_id = 'visitor-2' "
        "group by all order by n"
    ) == [{"user_id": "bob", "own": True, "n": 1}, {"user_id": None, "own": False, "n": 4}]

    visitor = visitor_of(node, "visitor-2")
    (link,) = visitor["links"]
    assert (visitor["state"], visitor["rows_anonymous"], link["state"]) == ("unlinked", 4, "unlinked")
    assert link["unlinked_by"] == told["message_id"]

    send(node, *views("visitor-2", 2, begin=10))  # what comes later is anonymous, too
    node.wait_rows(2, where="message_id in ('visitor-2-10', 'visitor-2-11') and user_id is null")

    ledgers = {one["stream"]: one for one in node.wait_settled()}
    assert all(one["holds"] for one in ledgers.values()), ledgers
    own = ledgers["(operator)"]
    assert own["filtered"] > 0 and own["filtered"] + own["duplicate"] == own["accepted"]
    assert not node.sql("select 1 from events where type = 'unlink'")
    deep = node.command("reconcile", "--deep", "--json")
    assert deep.returncode == 0, deep.stdout

    again, before = asked(node, "unlink", "visitor-2", "bob", "--yes")
    assert (again, before["state"]) == (0, "unlinked_before")
    assert before["message_id"] == told["message_id"]

    send(node, login("visitor-2", "bob", "login-again"))  # a new login counts
    wait_for(lambda: visitor_of(node, "visitor-2")["state"] == "linked", 20, node.log)
    wait_for(lambda: recognised(node, "visitor-2", "bob", 6), 20, node.log, interval_s=0.2)


def test_it_asks_and_does_nothing_unless_the_answer_is_yes(node: Running) -> None:
    logged_in(node, "visitor-3", "cyd", 2)
    for says in ("", "n\n"):  # nobody there; no
        assert answered(node, says, "visitor-3", "cyd").returncode == 1
        assert visitor_of(node, "visitor-3")["state"] == "linked"
    done = answered(node, "y\n", "visitor-3", "cyd")
    assert done.returncode == 0 and "login-visitor-3" in done.stdout, done
    assert "2 rows lost the user" in done.stdout
    assert visitor_of(node, "visitor-3")["state"] == "unlinked"


def answered(node: Running, says: str, *words: str) -> subprocess.CompletedProcess[str]:
    """The command that takes a link back, with somebody's answer."""
    return subprocess.run(
        [sys.executable, "-m", "headwater", "identity", "unlink", *words, "--data", str(node.data)],
        env=node.environment, input=says, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_the_log_lists_the_newest_facts_first(node: Running) -> None:
    logged_in(node, "visitor-4", "dan", 1)
    code, told = asked(node, "unlink", "visitor-4", "dan", "--yes", "--wait", "30")
    assert code == 0, told
    code, facts = asked(node, "log", "--since", "10m", "--limit", "2")
    assert code == 0
    assert [(one["kind"], one["anonymous_id"], one["user_id"]) for one in facts] == [
        ("unlink", "visitor-4", "dan"), ("login", "visitor-4", "dan"),
    ]  # fmt: skip
    assert facts[0]["message_id"] == told["message_id"]
    assert asked(node, "log", "--since", "2099-01-01T00:00")[1] == []


def test_what_was_sent_twice_counts_once_and_explain_tells_its_story(node: Running) -> None:
    logged_in(node, "visitor-5", "eve", 1)
    asked_twice = {"anonymous_id": "visitor-5", "user_id": "eve", "message_id": "my-unlink"}
    for _ in range(2):
        assert over_the_socket(node, "/api/identity/unlink", asked_twice)["message_id"] == "my-unlink"
    wait_for(lambda: visitor_of(node, "visitor-5")["state"] == "unlinked", 20, node.log)
    wait_for(lambda: recognised(node, "visitor-5", "eve", 0), 20, node.log, interval_s=0.2)
    ledgers = {one["stream"]: one for one in node.wait_settled()}
    assert ledgers["(operator)"]["duplicate"] == 1 and ledgers["(operator)"]["holds"]
    story = json.loads(node.command("explain", "my-unlink", "--json").stdout)
    assert "filtered" in {copy["processing"]["state"] for copy in story["copies"]}


def test_nobody_outside_can_take_a_link_back(node: Running) -> None:
    logged_in(node, "visitor-6", "fay", 1)
    event = {"type": "unlink", "anonymousId": "visitor-6", "userId": "fay", "messageId": "outside"}
    status, told = node.post("/events", event, key=SERVER_KEY)
    assert status == 400, told
    body = {"anonymous_id": "visitor-6", "user_id": "fay"}
    headers = {"Content-Type": "application/json"}
    answer = node.ask("POST", "/api/identity/unlink", body, headers, port=node.ops)
    assert answer.status == 403
    node.wait_settled()
    assert visitor_of(node, "visitor-6")["state"] == "linked"


def over_the_socket(node: Running, path: str, body: dict[str, Any]) -> Any:
    """What the node's own socket answers."""
    from headwater.cli.client import Node

    return Node(str(node.data)).post(path, body)
