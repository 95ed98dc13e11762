"""Dead letters of all processors as one list."""

import datetime

import pyarrow as pa
import pytest

from headwater.destinations import refused
from headwater.kit.disk import SystemDisk
from headwater.kit.errors import Rejected
from headwater.node import dead_letters
from headwater.node.dead_letters import NodeDeadLetters, Wanted
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


def letters_in(path, *letters, processor=0):
    folder = path / f"state/{processor}"
    folder.mkdir(parents=True, exist_ok=True)
    file = DeadLetters(f"{folder}/dead.sqlite")
    file.add(pa.Table.from_pylist(list(letters)))
    file.close()


def refused_in(path, name, *seqs):
    folder = path / f"state/deliver-{name}"
    folder.mkdir(parents=True)
    kept = refused.DeadLetters(f"{folder}/dead.sqlite", name)
    rows = pa.Table.from_pylist(
        [{"_hw_writer": 1, "_hw_log": 2, "_hw_seq": seq, "_hw_row": 0, "key_id": "web"} for seq in seqs]
    )
    reason = Rejected("constraint", help="widen it")
    kept.add(rows, [refused.Refused(at, reason) for at in range(len(seqs))], 1_800_000_000_000_000_000)
    kept.close()


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"plain \\xff", {"body": "plain \\xff"}),
        (b"bad \xff", {"body": None, "body_base64": "YmFkIP8="}),
        ("ü\0".encode(), {"body": "ü\0"}),
        (
            b'{"writeKey":"hw_1","x":"\xff"}',
            {"body": None, "body_base64": "eyJ3cml0ZUtleSI6IioqKiIsIngiOiL/In0="},
        ),
    ],
)
def test_a_body_is_text_or_base64_and_never_something_that_could_be_either(tmp_path, body, told):
    letters_in(tmp_path, {**letter(1), "body": body})
    found = NodeDeadLetters(SystemDisk(), str(tmp_path)).show("m1")
    assert found is not None and {name: found[name] for name in told} == told


def test_a_letter_is_found_by_its_origin_with_and_without_its_row_and_by_its_id(tmp_path):
    letters_in(tmp_path, letter(1), letter(2))
    letters = NodeDeadLetters(SystemDisk(), str(tmp_path))
    origin = f"{1:016x}-{2:016x}-2"
    assert [found and found["seq"] for found in map(letters.show, (origin, f"{origin}-0", "m1", "none"))] == [
        2, 2, 1, None
    ]  # fmt: skip


def test_an_export_has_every_letter_once_a_page_at_a_time_and_those_of_destinations(tmp_path, monkeypatch):
    monkeypatch.setattr(dead_letters, "PAGE", 3)
    letters_in(tmp_path, *map(letter, range(7)))
    refused_in(tmp_path, "w", 3, 4)
    exported = list(NodeDeadLetters(SystemDisk(), str(tmp_path)).export())
    assert [(one.get("destination"), one["seq"]) for one in exported] == [
        *((None, seq) for seq in range(7)), ("w", 3), ("w", 4)
    ]  # fmt: skip
    assert bytes(exported[0]["body"]) == b"{}"


def test_an_export_can_be_narrowed_by_stream_reason_and_time(tmp_path):
    late = datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)
    letters_in(tmp_path, letter(1), {**letter(2), "stream": "shop"}, {**letter(3), "reason": "Expected a NAME"},
               {**letter(4), "received": late})  # fmt: skip
    letters = NodeDeadLetters(SystemDisk(), str(tmp_path))

    def seqs(**wanted):
        return [one["seq"] for one in letters.export(Wanted(**wanted))]

    assert seqs(stream="shop") == [2]
    assert seqs(reason="a name") == [3]
    assert seqs(since_ns=int(late.timestamp()) * 10**9) == [4]
    assert seqs(stream="web", reason="r", since_ns=0) == [1, 4]
    assert [one["seq"] for one in letters.list(10, None, "name")] == [3]


def test_a_letter_says_that_it_was_retried(tmp_path):
    letters_in(tmp_path, letter(1), letter(2))
    letters = NodeDeadLetters(SystemDisk(), str(tmp_path))
    key = (f"{1:016x}", f"{2:016x}", 1, 0)
    letters.retried.begin([key], "noon")
    assert [(one.get("retried_at"), one.get("retried_as")) for one in letters.export()] == [
        ("noon", None), (None, None)
    ]  # fmt: skip
    letters.retried.done({key: "r-1"})
    shown = letters.show("m1")
    assert shown is not None and shown["retried_as"] == "r-1"


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "state/0").mkdir(parents=True)
    (tmp_path / "state/0/dead.sqlite").write_bytes(b"x" * 5000)
    with pytest.raises(Rejected, match=r"state/0/dead\.sqlite"):
        NodeDeadLetters(SystemDisk(), str(tmp_path)).show("m1")
