"""Dead letters of all processors as one list."""

import datetime

import pyarrow as pa
import pytest

from headwater.kit.disk import SystemDisk
from headwater.node.dead_letters import NodeDeadLetters
from headwater.process.dead import DeadLetters


def letter(seq):
    at = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    texts = {"stream": "web", "reason": "r", "field": None, "message_id": f"m{seq}"}
    return {"writer": 1, "log": 2, "seq": seq, "row": 0, **texts, "received": at, "body": b"{}"}


def test_a_letter_that_was_taken_over_is_listed_once_while_it_is_in_two_files(tmp_path):
    for number, seqs in ((0, (1,)), (2, (2, 3))):
        (tmp_path / f"state/{number}").mkdir(parents=True)
        letters = DeadLetters(f"{tmp_path}/state/{number}/dead.sqlite")
        letters.add(pa.Table.from_pylist([letter(seq) for seq in seqs]))
        letters.close()
    first = DeadLetters(f"{tmp_path}/state/0/dead.sqlite")
    for _ in range(2):  # a crash repeats it
        first.take_over(f"{tmp_path}/state/2/dead.sqlite")
    assert [one["seq"] for one in NodeDeadLetters(SystemDisk(), str(tmp_path)).list(10, None)] == [3, 2, 1]
    first.close()


def test_of_letters_taken_over_the_oldest_go_when_there_are_too_many(tmp_path):
    other = DeadLetters(f"{tmp_path}/other.sqlite")
    other.add(pa.Table.from_pylist([letter(seq) for seq in range(5)]))
    other.close()
    own = DeadLetters(f"{tmp_path}/own.sqlite", letters_max=3)
    own.take_over(f"{tmp_path}/other.sqlite")
    assert own.connection.execute("select count(*) from dead").fetchone() == (3,)
    own.close()


SECRET = "hw_0123456789"


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        ('{"a": 1, "writeKey": "%s", "b": 2}', '{"a": 1, "writeKey": "***", "b": 2}'),
        ('{"writeKey":"%s","batch":[{"writeKey" : "%s"}]}', '{"writeKey":"***","batch":[{"writeKey" : "***"}]}'),
        ('{"writeKey":"%s', '{"writeKey":"***'),
        ("event=a&writeKey=%s&n=1", "event=a&writeKey=***&n=1"),
        ("key=%s&event=a", "key=***&event=a"),
        ('{"url": "/?key=1&event=a"}', '{"url": "/?key=1&event=a"}'),
    ],
)  # fmt: skip
def test_a_body_is_shown_without_write_keys(tmp_path, body, shown):
    (tmp_path / "state/0").mkdir(parents=True)
    letters = DeadLetters(f"{tmp_path}/state/0/dead.sqlite")
    letters.add(pa.Table.from_pylist([{**letter(1), "body": body.replace("%s", SECRET).encode()}]))
    letters.close()
    told = NodeDeadLetters(SystemDisk(), str(tmp_path)).show("m1")
    assert told is not None and told["body"] == shown
