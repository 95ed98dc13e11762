"""Requests at `ack: delivered` are answered when their destination has passed them, and never before."""

from __future__ import annotations

from typing import Any

import pytest

from headwater.collect.copied import Copied
from headwater.collect.settings import KeySettings
from headwater.event.slots import PARTITIONS_DEFAULT, slot_of
from headwater.kit.errors import Unavailable
from tests.unit.collect.harness import KEYS, MEMORY, SECOND, SERVER, Answer, Bench, Client, post
from tests.unit.collect.test_copied import Number

WAREHOUSE, SHOP, REPLICATED = "warehouse-secret", "shop-db-secret", "replicated-secret"
DELIVERED = (
    KeySettings(id="del", secret=WAREHOUSE, ack="delivered", ack_destination="warehouse"),
    KeySettings(id="del-shop", secret=SHOP, ack="delivered", ack_destination="shop"),
    KeySettings(id="rep", secret=REPLICATED, ack="replicated"),
)
ALL = range(PARTITIONS_DEFAULT)


class Delivering(Bench):
    """A door whose destinations are this test."""

    def __init__(self, **settings: Any) -> None:
        super().__init__((*KEYS, *DELIVERED), delivered_timeout_s=8.0, **settings)
        self.arrivals = self.door.arrivals

    def deliver(self, seq: int, name: str = "warehouse", partitions: Any = ALL, paused: bool = False) -> None:
        self.arrivals.of(name).hear(dict.fromkeys(partitions, seq), paused=paused)

    def later(self, seconds: float) -> None:
        self.now += int(seconds * SECOND)
        self.arrivals.look()


@pytest.fixture
def bench() -> Delivering:
    return Delivering()


def event(secret: str = WAREHOUSE, visitor: str = "v") -> bytes:
    return post(body=b'{"type":"track","event":"x","anonymousId":"%s"}' % visitor.encode(), key=secret)


def batch(secret: str = WAREHOUSE) -> bytes:
    body = b'{"batch":[{"type":"track","event":"x","anonymousId":"v"},{"type":"track"}]}'
    return post("/v1/batch", body=body, key=secret)


def partition_of(visitor: str) -> int:
    return slot_of(visitor) % PARTITIONS_DEFAULT


def only(client: Client) -> Answer:
    (answer,) = client.answers()
    return answer


def test_an_answer_waits_for_this_disk_and_then_for_the_destination(bench: Delivering) -> None:
    client = bench.client()
    client.send(event())
    assert not client.answers()
    bench.log.commit()
    bench.later(1)
    assert not client.answers()
    assert bench.arrivals.waited_for() == ["warehouse"]
    bench.deliver(1)
    answer = only(client)
    assert (answer.status, answer.json["ack"], answer.json["accepted"]) == (200, "delivered", 1)
    assert not bench.door.owing and not bench.arrivals.waited_for()


def test_an_event_waits_for_its_own_partition_and_a_batch_for_all(bench: Delivering) -> None:
    one, many = bench.client(), bench.client()
    one.send(event(visitor="someone"))
    many.send(batch())
    bench.log.commit()
    mine = partition_of("someone")
    bench.deliver(9, partitions=[p for p in ALL if p != mine])
    assert not one.answers() and not many.answers()
    bench.deliver(1, partitions=[mine])
    assert only(one).status == 200 and not many.answers()
    bench.deliver(3, partitions=[mine])
    assert only(many).json["ack"] == "delivered"


def test_an_event_does_not_wait_for_partitions_of_others(bench: Delivering) -> None:
    one, many = bench.client(), bench.client()
    one.send(event(visitor="someone"))
    many.send(batch())
    bench.log.commit()
    bench.deliver(3, partitions=[partition_of("someone")])
    assert only(one).status == 200 and not many.answers()


def test_an_event_without_any_id_may_be_in_any_partition(bench: Delivering) -> None:
    client = bench.client()
    client.send(post(body=b'{"type":"track","event":"x"}', key=WAREHOUSE))
    bench.log.commit()
    bench.deliver(1, partitions=list(ALL)[1:])
    assert not client.answers()
    bench.deliver(1, partitions=[0])
    assert only(client).status == 200


def test_each_waits_for_its_own_events_and_its_own_destination(bench: Delivering) -> None:
    first, second, shop = bench.client(), bench.client(), bench.client()
    first.send(event())
    second.send(event())
    shop.send(event(SHOP))
    bench.log.commit()
    bench.deliver(1)
    assert only(first).status == 200 and not second.answers() and not shop.answers()
    bench.deliver(3)
    assert only(second).status == 200 and not shop.answers()
    bench.deliver(3, "shop")
    assert only(shop).status == 200


def test_after_its_time_an_answer_says_that_the_events_are_on_disk(bench: Delivering) -> None:
    client = bench.client()
    client.send(event())
    bench.now += 60 * SECOND
    bench.log.commit()  # its time begins when it is durable
    bench.later(8 - 1e-6)
    assert not client.answers()
    bench.later(1e-6)
    answer = only(client)
    told = answer.json
    assert answer.status == 503 and int(answer.headers["retry-after"]) >= 1
    assert (told["ok"], told["error"], told["ack"]) == (False, "not_delivered", "disk")
    assert "on this node's disk and will be delivered" in told["reason"] and "warehouse" in told["reason"]
    assert "paused" not in told["reason"]
    assert len(bench.log.records) == 1, "it is stored"
    assert bench.door.stats.refused == {"not_delivered": 1}
    assert not bench.door.owing and not bench.arrivals.waited_for()


def test_a_paused_destination_is_named_as_such(bench: Delivering) -> None:
    client = bench.client()
    client.send(event())
    bench.log.commit()
    bench.deliver(0, paused=True)
    bench.later(8)
    assert "warehouse, which is paused;" in only(client).json["reason"]


def test_others_never_wait_for_a_destination(bench: Delivering) -> None:
    waiting, disk, memory = bench.client(), bench.client(), bench.client()
    waiting.send(event())
    disk.send(event(SERVER))
    memory.send(event(MEMORY))
    assert only(memory).json["ack"] == "memory"
    bench.log.commit()
    assert only(disk).json["ack"] == "disk" and not waiting.answers()
    assert list(bench.door.owing) == [waiting.connection]


def test_answers_of_one_connection_keep_their_order_whatever_they_wait_for(bench: Delivering) -> None:
    copied = Number()
    bench.door.copied = Copied(copied, Number(1), lambda: None, lambda: bench.now, copies=2, timeout_s=60.0)
    client = bench.client()
    client.send(event(SERVER), event(REPLICATED), event(SHOP), event(), event(MEMORY), event(SERVER))
    bench.log.commit()
    assert [one.json["ack"] for one in client.answers()] == ["disk"]
    bench.deliver(6)
    bench.deliver(6, "shop")
    assert len(client.answers()) == 1, "the one before has no copies yet"
    copied.value = 6
    bench.door.copied.look()
    told = [one.json["ack"] for one in client.answers()]
    assert told == ["disk", "replicated", "delivered", "delivered", "memory", "disk"]
    assert not bench.door.owing


def test_positions_never_go_back(bench: Delivering) -> None:
    bench.deliver(5)
    bench.deliver(0)
    client = bench.client()
    client.send(event())
    bench.log.commit()
    bench.later(0.05)
    assert only(client).status == 200


def test_a_log_that_failed_is_told_to_those_who_would_wait(bench: Delivering) -> None:
    client = bench.client()
    client.send(event())
    bench.log.commit(Unavailable("the disk failed", code="log_failed"))
    answer = only(client)
    assert (answer.status, answer.json["error"]) == (503, "log_failed") and "ack" not in answer.json
    assert not bench.arrivals.waited_for()


def test_so_many_may_wait_and_no_more_and_of_the_next_one_nothing_is_kept() -> None:
    bench = Delivering()
    assert bench.arrivals.waiting_max == bench.settings.connections_max
    bench.arrivals.waiting_max = 3
    waiting = [bench.client() for _ in range(3)]
    for client, secret in zip(waiting, (WAREHOUSE, WAREHOUSE, SHOP), strict=True):
        client.send(event(secret))
    bench.log.commit()
    late = bench.client()
    late.send(event())
    answer = only(late)
    assert (answer.status, answer.json["error"], len(bench.log.records)) == (503, "too_many_waiting", 3)
    assert "ack" not in answer.json
    bench.deliver(2)
    late.send(event())
    bench.log.commit()
    bench.deliver(4)
    assert late.answers()[1].status == 200


def test_who_still_waits_when_the_door_closes_is_told_what_is_true(bench: Delivering) -> None:
    client, other = bench.client(), bench.client()
    client.send(event())
    other.send(batch(SHOP))
    bench.log.commit()
    bench.arrivals.give_up()
    for one in (client, other):
        assert (only(one).json["error"], bench.door.stats.refused["not_delivered"]) == ("not_delivered", 2)
    assert not bench.door.owing and not bench.arrivals.waited_for()


def test_a_client_that_has_gone_holds_nothing_up(bench: Delivering) -> None:
    gone, other = bench.client(), bench.client()
    gone.send(event())
    other.send(event())
    bench.log.commit()
    gone.connection.connection_lost(None)
    bench.deliver(2)
    assert only(other).status == 200 and not bench.door.owing
