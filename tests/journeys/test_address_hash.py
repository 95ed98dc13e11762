"""Visitors without addresses: one visitor is one hash until the salt goes, on all workers and after a restart."""

from __future__ import annotations

import json
import signal
import stat
from collections.abc import Callable

import pytest

from tests.journeys.running import SERVER_KEY, WEB_KEY, Running, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

HASHING = '  - {id: shop, secret: "shop-secret-of-this-test", origins: ["*"], client_address: hashed}'


def send(node: Running, name: str, source: str, key: str, **more: object) -> None:
    headers = {"X-Write-Key": key}
    event = {"event": name, **more}
    assert node.ask("POST", "/events", event, headers, source=source).status == 200


def addresses(node: Running, name: str, count: int) -> set[str]:
    node.wait_rows(count, where=f"event = '{name}'")
    return {str(row["ip"]) for row in node.sql(f"select ip from events where event = '{name}'")}


def test_a_visitor_is_one_hash_until_the_salt_goes(make_node: Callable[..., Running]) -> None:
    node = make_node(workers=2, keys=HASHING)
    node.start()
    salt = node.data / "run/address-salt.json"
    assert stat.S_IMODE(salt.stat().st_mode) == 0o600
    for _ in range(12):  # connections of their own, so that both workers are asked
        send(node, "first", "127.0.0.7", "shop-secret-of-this-test", context={"ip": "198.51.100.9"})
    send(node, "other", "127.0.0.8", "shop-secret-of-this-test")
    send(node, "plain", "127.0.0.7", SERVER_KEY)
    (mine,) = addresses(node, "first", 12)
    assert len(bytes.fromhex(mine)) == 16
    assert addresses(node, "other", 1) != {mine}
    assert addresses(node, "plain", 1) == {"127.0.0.7"}

    assert node.stop() == 0
    node.start()
    send(node, "restarted", "127.0.0.7", "shop-secret-of-this-test")
    assert addresses(node, "restarted", 1) == {mine}

    before = json.loads(salt.read_text())
    salt.write_text(json.dumps({**before, "period": before["period"] - 1}))  # as if it were yesterday's
    wait_for(lambda: json.loads(salt.read_text())["period"] == before["period"], 10, node.log)
    assert before["salt"] not in salt.read_text()

    def changed() -> bool:
        send(node, "rotated", "127.0.0.7", "shop-secret-of-this-test")
        return addresses(node, "rotated", 1) != {mine}

    wait_for(changed, 20, node.log, interval_s=0.2)
    node.configure(keys="")
    node.signal(signal.SIGHUP)
    wait_for(lambda: not salt.exists(), 10, node.log)
    assert node.post("/events", {"event": "plain"}, key=WEB_KEY)[0] == 200
