"""A generated key gets a new secret while its clients go on sending."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.journeys.running import WEB_KEY, Running, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

GENERATED = '  - {id: shop, secret_file: keys/shop.secret, origins: ["*"]}'


@pytest.fixture(scope="module")
def shared(make_shared_node: Callable[..., Running]) -> Running:
    node = make_shared_node(keys=GENERATED, workers=2)
    node.start()
    return node


def secrets(node: Running) -> list[str]:
    return (node.data / "keys/shop.secret").read_text().split()


def statuses(node: Running, secret: str) -> set[int]:
    """Of several connections, so that both workers are asked."""
    return {node.post("/events", {"event": "Rotated"}, key=secret)[0] for _ in range(12)}


def rotations(node: Running) -> set[tuple[int, str | None]]:
    """What the list of keys says about each."""
    listed = json.loads(node.command("keys", "list", "--json").stdout)
    return {(key["secrets"], key["old_secret_until"]) for key in listed}


def test_both_secrets_are_valid_until_the_old_ones_time_is_over(shared: Running) -> None:
    (old,) = secrets(shared)
    done = shared.command("keys", "rotate", "shop", "--grace", "8s")
    assert done.returncode == 0, done.stderr
    assert "until 20" in done.stdout
    new, kept = secrets(shared)
    assert kept == old
    assert new not in done.stdout
    assert statuses(shared, new) == statuses(shared, old) == {200}
    listed = {key["id"]: key for key in json.loads(shared.command("keys", "list", "--json").stdout)}
    assert (listed["shop"]["secrets"], listed["web"]["secrets"]) == (2, 1)
    assert listed["shop"]["old_secret_until"].startswith("20")
    assert "the old secret is valid until 20" in shared.command("keys", "list").stdout
    again = shared.command("keys", "rotate", "shop")
    assert (again.returncode, "under way" in again.stderr) == (1, True)
    wait_for(lambda: statuses(shared, old) == {401}, 20, shared.log, interval_s=0.5)
    assert statuses(shared, new) == {200}
    assert secrets(shared) == [new]
    assert '"key_rotated"' in shared.log_text()
    wait_for(lambda: rotations(shared) == {(1, None)}, 10, shared.log, interval_s=0.5)


def test_the_old_secret_can_be_ended_at_once(shared: Running) -> None:
    (old,) = secrets(shared)
    assert shared.command("keys", "rotate", "shop").returncode == 0
    new, _ = secrets(shared)
    done = shared.command("keys", "rotate", "shop", "--finish")
    assert done.returncode == 0, done.stderr
    assert statuses(shared, old) == {401}
    assert statuses(shared, new) == {200}
    done = shared.command("keys", "rotate", "shop", "--finish")
    assert (done.returncode, "no rotation" in done.stderr) == (1, True)


def test_a_secret_in_the_configuration_is_explained_and_not_touched(shared: Running) -> None:
    done = shared.command("keys", "rotate", "web")
    assert done.returncode == 1
    assert str(shared.config) in done.stdout
    assert "${env." in done.stdout
    assert WEB_KEY not in done.stdout + done.stderr
    assert statuses(shared, WEB_KEY) == {200}


def test_a_key_that_is_not_there_is_an_answer(shared: Running) -> None:
    done = shared.command("keys", "rotate", "nope")
    assert done.returncode == 1
    assert done.stderr == "headwater: no key 'nope' here: there are server, shop, web\n"
    assert json.loads(shared.command("keys", "list", "--json").stdout)


def test_without_a_running_node_the_new_secret_is_valid_from_the_next_start(
    make_node: Callable[..., Running],
) -> None:
    node = make_node(keys=GENERATED)
    node.start()
    node.stop()
    (old,) = secrets(node)
    done = node.command("keys", "rotate", "shop", "--config", str(node.config))
    assert done.returncode == 0, done.stderr
    assert "next start" in done.stdout
    node.start()
    assert statuses(node, old) == statuses(node, secrets(node)[0]) == {200}
