"""Who an anonymous visitor was, on a real node: whatever happens to its processes, at rest the rows say it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

from tests.journeys.running import Running, wait_for

MakeNode = Callable[..., Running]


def batch(node: Running, *some: dict[str, Any]) -> None:
    """Accepted as a whole."""
    assert node.post("/v1/batch", {"batch": list(some)})[0] == 200


def view(visitor: str, message_id: str) -> dict[str, Any]:
    return {"type": "track", "event": "Viewed", "anonymousId": visitor, "messageId": message_id}


def login(visitor: str, user: str, message_id: str) -> dict[str, Any]:
    return {"type": "identify", "anonymousId": visitor, "userId": user, "messageId": message_id}


def users(node: Running) -> dict[str, str | None]:
    """Message id → user, of all rows."""
    return {row["message_id"]: row["user_id"] for row in node.sql("select message_id, user_id from events")}


def test_what_a_visitor_did_before_the_login_is_theirs_and_what_comes_later_too(make_node: MakeNode) -> None:
    node = make_node()
    node.start()
    batch(node, *(view("visitor-1", f"before-{n}") for n in range(5)), view("visitor-2", "stranger"))
    node.wait_rows(6)
    batch(node, login("visitor-1", "ada", "login"))
    wait_for(lambda: users(node).get("before-4") == "ada", 20, node.log)
    batch(node, view("visitor-1", "after"), {"type": "alias", "previousId": "visitor-2", "userId": "bob"})
    wait_for(lambda: (users(node).get("after"), users(node).get("stranger")) == ("ada", "bob"), 20, node.log)
    told = node.sql("select distinct user_id, _hw_user_own from events where message_id like 'before-%'")
    assert told == [{"user_id": "ada", "_hw_user_own": False}]
    node.wait_settled()


def test_after_a_logout_a_device_is_nobodys_until_the_next_login(make_node: MakeNode) -> None:
    node = make_node()
    node.start()
    batch(node, login("kiosk", "ada", "in"), view("kiosk", "as-ada"))
    batch(node, {"type": "reset", "anonymousId": "kiosk", "userId": "ada", "messageId": "out"})
    batch(node, view("kiosk", "between"))
    batch(node, login("kiosk", "bob", "in-again"), view("kiosk", "as-bob"))
    wait_for(lambda: users(node).get("as-bob") == "bob", 20, node.log)
    found = users(node)
    assert (found["as-ada"], found["between"]) == ("ada", None)


def test_kill_9_in_the_middle_changes_nobody(make_node: MakeNode) -> None:
    node = make_node()
    node.start()
    batch(node, *(view(f"visitor-{n}", f"before-{n}") for n in range(50)))
    node.wait_rows(50)
    batch(node, *(login(f"visitor-{n}", f"user-{n}", f"login-{n}") for n in range(50)))
    node.kill_all()
    node.start()
    batch(node, *(view(f"visitor-{n}", f"after-{n}") for n in range(50)))
    wanted = {f"{when}-{n}": f"user-{n}" for n in range(50) for when in ("before", "login", "after")}
    wait_for(lambda: users(node) == wanted, 30, node.log)


def test_processors_that_come_and_go_take_what_is_known_with_them(make_node: MakeNode) -> None:
    """The rows of each start are made by other processors than the facts before."""
    node = make_node()
    node.start()
    batch(node, *(login(f"visitor-{n}", f"user-{n}", f"login-{n}") for n in range(40)))
    node.wait_settled()
    node.stop()
    wanted = {f"login-{n}": f"user-{n}" for n in range(40)}
    for workers in (3, 2, 1):
        node.configure(more=f"process: {{workers: {workers}}}")
        node.start()
        batch(node, *(view(f"visitor-{n}", f"with-{workers}-{n}") for n in range(40)))
        wanted |= {f"with-{workers}-{n}": f"user-{n}" for n in range(40)}
        node.wait_settled()
        wait_for(lambda: users(node) == wanted, 10, node.log)  # noqa: B023
        node.stop()


def test_a_deliverer_that_is_killed_while_it_settles_goes_on(make_node: MakeNode) -> None:
    node = make_node(more="identity: {settle_rows_max: 50, settle_ids_max: 1}\n")
    node.start()
    batch(node, *(view("visitor-1", f"before-{n}") for n in range(2000)))
    node.wait_rows(2000)
    batch(node, login("visitor-1", "ada", "login"))
    wait_for(lambda: "ada" in users(node).values(), 20, node.log)
    os.kill(node.pids(" deliver ")[0], signal.SIGKILL)
    wait_for(lambda: node.command("sql", "select 1").returncode == 0, 20, node.log)
    wait_for(lambda: set(users(node).values()) == {"ada"}, 30, node.log)
