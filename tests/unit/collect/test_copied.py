"""Requests at `ack: replicated` are answered when other nodes have their block, and never before."""

from __future__ import annotations

import pytest

from headwater.collect.copied import Copied
from headwater.collect.settings import KeySettings
from headwater.kit.errors import Unavailable
from tests.unit.collect.harness import KEYS, SECOND, SERVER, Bench, post

SECRET = "replicated-secret"
EVENT = b'{"type":"track","event":"x","anonymousId":"v"}'


class Number:
    def __init__(self, value: int = 0) -> None:
        self.value = value

    def get(self) -> int:
        return self.value


class Replicating(Bench):
    """A door whose lane process is this test."""

    def __init__(self) -> None:
        super().__init__((*KEYS, KeySettings(id="rep", secret=SECRET, ack="replicated")))
        self.seq, self.others, self.rings = Number(), Number(1), 0
        self.copied = self.door.copied = Copied(
            self.seq, self.others, self.ring, lambda: self.now, copies=2, timeout_s=5.0
        )

    def ring(self) -> None:
        self.rings += 1

    def copy(self, seq: int) -> None:
        self.seq.value = seq
        self.copied.look()


@pytest.fixture
def bench() -> Replicating:
    return Replicating()


def event(secret: str = SECRET) -> bytes:
    return post(body=EVENT, key=secret)


def test_an_answer_waits_for_this_disk_and_then_for_the_copies(bench: Replicating) -> None:
    client = bench.client()
    client.send(event())
    bench.copy(1)
    assert not client.answers(), "copied, yet not known to be durable here"
    bench.seq.value = 0
    bench.log.commit()
    assert not client.answers()
    bench.copy(1)
    (answer,) = client.answers()
    assert (answer.status, answer.json["ack"]) == (200, "replicated")
    assert not bench.door.owing and not bench.copied.waits


def test_each_waits_for_its_own_events_only(bench: Replicating) -> None:
    first, second = bench.client(), bench.client()
    first.send(event())
    second.send(event())
    bench.log.commit()
    bench.copy(1)
    assert len(first.answers()) == 1 and not second.answers()
    bench.copy(2)
    assert len(second.answers()) == 1


def test_after_its_time_an_answer_says_which_level_is_true(bench: Replicating) -> None:
    client = bench.client()
    client.send(event())
    bench.log.commit()
    bench.now += 5 * SECOND - 1
    bench.copied.look()
    assert not client.answers()
    bench.now += 1
    bench.copied.look()
    (answer,) = client.answers()
    told = answer.json
    assert answer.status == 503 and int(answer.headers["retry-after"]) >= 1
    assert (told["ok"], told["error"], told["ack"]) == (False, "not_replicated", "disk")
    assert len(bench.log.records) == 1, "it is stored"
    assert bench.door.stats.refused == {"not_replicated": 1}


def test_too_few_nodes_are_said_at_once_and_to_these_keys_only(bench: Replicating) -> None:
    bench.others.value = 0
    client, other = bench.client(), bench.client()
    client.send(event())
    (answer,) = client.answers()
    assert (answer.status, answer.json["error"]) == (503, "not_enough_copies")
    assert "ack" not in answer.json and not bench.log.records, "nothing was kept"
    other.send(event(SERVER))
    bench.log.commit()
    assert other.answers()[0].status == 200


def test_others_never_wait_for_copies(bench: Replicating) -> None:
    waiting, other = bench.client(), bench.client()
    waiting.send(event())
    other.send(event(SERVER))
    bench.log.commit()
    assert other.answers()[0].json["ack"] == "disk" and not waiting.answers()


def test_answers_of_one_connection_keep_their_order_and_their_levels(bench: Replicating) -> None:
    client = bench.client()
    client.send(event(SERVER), event(), event(SERVER))
    bench.log.commit()
    assert [one.json["ack"] for one in client.answers()] == ["disk"]
    bench.now += 5 * SECOND
    bench.copied.look()
    assert [(one.status, one.json.get("ack")) for one in client.answers()] == [
        (200, "disk"),
        (503, "disk"),
        (200, "disk"),
    ]


def test_a_log_that_failed_is_told_to_those_who_would_wait(bench: Replicating) -> None:
    client = bench.client()
    client.send(event())
    bench.log.commit(Unavailable("the disk failed", code="log_failed"))
    (answer,) = client.answers()
    assert (answer.status, answer.json["error"]) == (503, "log_failed") and "ack" not in answer.json


def test_a_batch_with_refused_events_waits_too(bench: Replicating) -> None:
    client = bench.client()
    body = b'{"batch":[{"type":"track","event":"x","anonymousId":"v"},{"type":"track"}]}'
    client.send(post("/v1/batch", body=body, key=SECRET))
    bench.log.commit()
    assert not client.answers()
    bench.copy(2)
    assert client.answers()[0].json["ack"] == "replicated"


def test_the_lane_is_woken_only_while_somebody_waits(bench: Replicating) -> None:
    bench.copied.committed()
    assert bench.rings == 0
    bench.client().send(event())
    bench.copied.committed()
    assert bench.rings == 1
