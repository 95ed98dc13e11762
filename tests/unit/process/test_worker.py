"""One processor against a crash at every step: INV-PROC-1, INV-PROC-2, INV-PROC-3, INV-PROC-4, INV-ORD-1."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from headwater.event.commit import Commit
from headwater.event.position import EMPTY, Position, WriterId, writer_id
from headwater.event.record import DEAD, SINGLE, STAMP, Head, encode_head, encode_payload
from headwater.event.slots import slot_of
from headwater.kit.clock import SystemClock
from headwater.kit.disk import SystemDisk
from headwater.kit.errors import Misconfigured
from headwater.kit.threads import inline
from headwater.log import recover
from headwater.log.block import Secret
from headwater.log.ready import ReadyReader, ReadyWriter
from headwater.log.write import BlockWriter
from headwater.process import dead, idruns, state, unmapped
from headwater.process.enrich.settings import EnrichSettings
from headwater.process.gather import Events, Gatherer
from headwater.process.read import Parsed, Reader
from headwater.process.run import Runner, id_in
from headwater.process.schema import LearnedSchema
from headwater.process.settings import ProcessSettings
from headwater.process.shape import Shaper
from headwater.process.worker import ProcessWorker

SECRET = Secret(0x5EC2E7)

FOLDER_ID = 0xABCDEF0000
SEGMENT = 8 * 1024 * 1024


class Node:
    """A data folder, and what a node does around its processors."""

    def __init__(self, path: Path) -> None:
        self.data = str(path)
        self.disk, self.clock = SystemDisk(), SystemClock()
        self.offset_ns = self.clock.wall_ns() - self.clock.boot_ns()
        for name in ("raw", "ready", "state"):
            (path / name).mkdir()
        self.log_ids = iter(range(1, 1000))
        self.collectors: dict[int, BlockWriter] = {}
        self.workers = 1
        self.epoch = 1
        self.reports: dict[int, dict[str, Any]] = {}

    def start(self) -> int:
        return 1

    def block_writer(self, folder: str, writer: int) -> BlockWriter:
        return BlockWriter(
            self.disk,
            self.clock,
            folder,
            WriterId(writer),
            next(self.log_ids),
            start=1,
            offset_ns=self.offset_ns,
            segment_bytes=SEGMENT,
            submit=inline,
            secret=SECRET,
        )

    def accept(self, *events: dict[str, Any], worker: int = 0) -> None:
        """Acknowledge events: one block, one record each."""
        writer = writer_id(FOLDER_ID, worker)
        if worker not in self.collectors:
            self.collectors[worker] = self.block_writer(f"{self.data}/raw/{writer:016x}", writer)
        bodies = [json.dumps(e).encode() for e in events]
        now = self.clock.boot_ns() + self.offset_ns
        stamps = [
            STAMP.pack(now, bytes(16), len(b), 0, 1, 0, slot_of(e.get("anonymousId", "x")), SINGLE, 0)
            for e, b in zip(events, bodies, strict=True)
        ]
        head = encode_head(Head("web", "plain", "POST", "/events"))
        payload = encode_payload(stamps, bodies, [head], [], {"web": (len(events), len(events))}, len(events))
        self.collectors[worker].write(payload, records=len(events), events=len(events))

    def processor(self, number: int = 0) -> ProcessWorker:
        """Start a processor as the supervisor does: recover its log first."""
        folder = f"{self.data}/ready/{number}"
        recover.recover_all(self.disk, folder, SECRET, recover.no_streams)
        schema = LearnedSchema(f"{self.data}/schema.ndjson", columns_max=100)
        dialect = SimpleNamespace(plain=True, default_type=lambda head: "track", split=None)

        def runner(owned: Sequence[int]) -> Runner:
            return Runner(
                Gatherer(lambda name: dialect), Reader(schema, depth_max=3), Shaper(EnrichSettings(), schema),
                owned=owned, partitions=8, damage_here=number == 0,
            )  # fmt: skip

        worker = ProcessWorker(
            number, ProcessSettings(workers=self.workers), self.data, self.disk, self.clock,
            SimpleNamespace(start=self.start, offset_ns=lambda: self.offset_ns),
            ReadyWriter(self.block_writer(folder, number)), runner,
            lambda report: self.reports.update({number: report}),
            partitions=8, config_epoch=self.epoch, secret=SECRET, ids_bytes_max=1 << 30,
        )  # fmt: skip
        worker.recover()
        return worker

    def commits(self, number: int = 0) -> list[Commit]:
        return [
            c
            for c, _ in ReadyReader(
                self.disk, f"{self.data}/ready/{number}", WriterId(number), secret=SECRET
            ).read(1 << 40)
        ]

    def rows(self, number: int = 0) -> Iterator[dict[str, Any]]:
        for commit in self.commits(number):
            if "rows:events" in commit.sections:
                yield from pa.ipc.open_stream(commit.sections["rows:events"]).read_all().to_pylist()

    def check_chains(self) -> None:
        """Each partition's commits, over all ready logs, lead without a gap from nothing to one end."""
        left = [c for n in range(self.workers) for c in self.commits(n)]
        for partition in range(8):
            at, mine = EMPTY, [c for c in left if partition in c.partitions]
            while mine:
                following = [c for c in mine if c.origin == at]
                assert len(following) == 1, (partition, at, [(c.origin, c.target) for c in mine])
                assert at <= following[0].target
                at = following[0].target
                mine.remove(following[0])

    def ids(self) -> list[str]:
        return sorted(r["message_id"] for n in range(self.workers) for r in self.rows(n))


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def event(number: int, **more: Any) -> dict[str, Any]:
    return {"event": "Clicked", "messageId": f"m{number}", "anonymousId": f"a{number % 5}", **more}


def drain(worker: ProcessWorker) -> None:
    while worker.step():
        pass


def crash(worker: ProcessWorker) -> None:
    """What a killed process leaves: nothing is saved, files are closed by the system."""
    worker.store.close()
    worker.ready.blocks.close()


class Killed(Exception):
    pass


def killed_at(target: Any, name: str) -> Callable[..., Any]:
    def die(*_: Any, **__: Any) -> None:
        raise Killed

    setattr(target, name, die)
    return die


def test_what_was_acknowledged_becomes_rows_once(node: Node) -> None:
    node.accept(event(1), event(2), event(1))
    drain(node.processor())
    assert node.ids() == ["m1", "m2"]
    assert node.reports[0]["counters"]["web"] == {
        "in": 3, "out": 2, "duplicate": 1, "dead": 0, "filtered": 0, "erased": 0, "damaged": 0,
    }  # fmt: skip


def test_inv_proc_1_a_commit_that_is_not_durable_leaves_nothing(node: Node) -> None:
    node.accept(event(1))
    worker = node.processor()
    killed_at(worker.ready, "append")
    with pytest.raises(Killed):
        worker.step()
    assert worker.fold.counters == {} and node.reports.get(0, {}).get("counters", {}) == {}
    crash(worker)
    drain(node.processor())
    assert node.ids() == ["m1"]


def test_inv_proc_1_half_a_commit_is_nothing(node: Node) -> None:
    node.accept(event(1))
    worker = node.processor()
    write = worker.ready.blocks.write
    worker.ready.blocks.write = lambda *parts, **o: write(*parts, **{**o, "flags": 0})  # type: ignore[method-assign]
    worker.step()
    crash(worker)
    assert node.commits() == []
    drain(node.processor())
    assert node.ids() == ["m1"]


def test_inv_proc_3_a_commit_behind_the_saved_fold_is_folded_again_and_not_run_again(node: Node) -> None:
    node.accept(event(1))
    worker = node.processor()
    drain(worker)
    node.accept(event(1), event(2))
    killed_at(worker.store, "save")
    worker.step()
    crash(worker)
    again = node.processor()
    assert again.fold.counters["web"] and sum(c[0] for c in again.fold.counters["web"].values()) == 3
    node.accept(event(2), event(3))
    drain(again)
    assert node.ids() == ["m1", "m2", "m3"]


def test_inv_proc_3_ids_seen_survive_a_restart(node: Node) -> None:
    node.accept(*(event(n) for n in range(50)))
    drain(node.processor())
    node.accept(*(event(n) for n in range(60)))
    drain(node.processor())
    assert node.ids() == sorted(f"m{n}" for n in range(60))


def test_inv_proc_2_every_commit_covers_what_it_holds_and_the_chain_has_no_gap(node: Node) -> None:
    worker = node.processor()
    for n in range(6):
        node.accept(event(n), worker=n % 2)
        worker.step()
    at = EMPTY
    for commit in node.commits():
        assert commit.origin == at
        at = commit.target
        for row in pa.ipc.open_stream(commit.sections["rows:events"]).read_all().to_pylist():
            position = Position(row["_hw_log"], row["_hw_seq"])
            assert commit.origin[row["_hw_writer"]] <= position < commit.target[row["_hw_writer"]]


@pytest.mark.parametrize("saved", [True, False])
@pytest.mark.parametrize("workers", [1, 2])
def test_inv_proc_4_a_start_below_that_of_the_last_commit_is_refused(
    node: Node, saved: bool, workers: int
) -> None:
    node.workers, node.epoch = workers, 7
    for number in range(workers):
        one = node.processor(number)
        node.accept(event(number))
        drain(one)
        if saved:
            one._save()
        crash(one)
    node.workers, node.epoch = 1, 6
    with pytest.raises(Misconfigured, match="start 6 of this node follows commits of its start 7"):
        node.processor()
    node.epoch = 7
    node.accept(event(9))
    drain(node.processor())
    assert node.commits()[-1].config_epoch == 7


def test_a_changed_number_of_processors_neither_loses_nor_doubles(node: Node) -> None:
    node.accept(*(event(n) for n in range(20)))
    first = node.processor()
    drain(first)
    crash(first)
    for workers in (3, 2, 1):
        node.workers = workers
        node.accept(*(event(n) for n in range(20 + 10 * workers)))
        processors = [node.processor(n) for n in range(workers)]
        for processor in processors:
            drain(processor)
        if workers == 3:
            node.accept(event(900))
            drain(processors[1])  # one is ahead of the others when the number changes again
        for processor in processors:
            processor._save()
            crash(processor)
    node.workers = 3
    assert node.ids() == sorted([f"m{n}" for n in range(50)] + ["m900"])
    node.check_chains()


def test_inv_proc_3_a_processor_that_starts_first_keeps_the_state_of_partitions_that_others_take_over(
    node: Node,
) -> None:
    node.accept(*(event(n) for n in range(20)))
    first = node.processor()
    drain(first)
    first._save()
    crash(first)
    node.workers = 3
    for number in range(3):  # each saves before the next one reads
        processor = node.processor(number)
        assert processor.groups[0].vector == first.groups[0].vector and processor.groups[0].until is None
        assert not processor.step()
        crash(processor)
    assert (
        node.reports[1]["counters"]["web"]["in"]
        + sum(node.reports[n]["counters"]["web"]["in"] for n in (0, 2))
        == 20
    )


def test_inv_proc_3_vectors_that_are_not_comparable_meet_at_their_join(node: Node) -> None:
    """One processor is ahead in one writer's log, one in the other's; the clock says nothing about it."""
    node.workers = 2
    one, two = node.processor(0), node.processor(1)
    node.accept(*(event(n) for n in range(20)), worker=0)
    drain(one)
    hidden, empty = f"{node.data}/raw", f"{node.data}/none"
    os.rename(hidden, empty)
    os.mkdir(hidden)
    node.collectors.clear()
    node.accept(*(event(n) for n in range(20, 40)), worker=1)
    drain(two)
    for name in os.listdir(empty):
        os.rename(f"{empty}/{name}", f"{hidden}/{name}")
    for processor in (one, two):
        processor._save()
        crash(processor)
    node.workers = 1
    alone = node.processor(0)
    assert len(alone.groups) == 2
    drain(alone)
    assert len(alone.groups) == 1
    node.workers = 2
    assert node.ids() == sorted(f"m{n}" for n in range(40))
    node.check_chains()
    assert (
        node.reports[0]["counters"]["web"]["in"] == 40
        and node.reports[0]["counters"]["web"]["duplicate"] == 0
    )


def test_a_dead_letter_keeps_bytes_and_reason_and_never_enters_seen(node: Node) -> None:
    node.accept(event(1))
    worker = node.processor()
    worker.step()
    bodies = [b'{"messageId":"m2","event":"\\ud800"}']
    stamp = STAMP.pack(1, bytes(16), len(bodies[0]), 0, 1, 0, 5, SINGLE, 0)
    head = encode_head(Head("web", "plain", "POST", "/events"))
    node.collectors[0].write(
        encode_payload([stamp], bodies, [head], [], {"web": (1, 2)}, 1), records=1, events=1
    )
    drain(worker)
    dead = pa.ipc.open_stream(node.commits()[-1].sections["dead"]).read_all().to_pylist()
    assert dead[0]["body"] == bodies[0] and "JSON" in dead[0]["reason"]
    node.accept(event(2))
    drain(worker)
    assert node.ids() == ["m1", "m2"]


@pytest.mark.parametrize("body", [b'{"messageId":"m2","rubbish":1}', bytes(40), b"\xff\xfe", b"[" * 10_000])
def test_what_the_door_refused_is_dead_as_it_came_and_teaches_no_column(node: Node, body: bytes) -> None:
    node.accept(event(1))
    worker = node.processor()
    worker.step()
    stamp = STAMP.pack(1, bytes(16), len(body), 0, 1, 0, 5, DEAD, 0)
    head = encode_head(Head("web", "plain", "POST", "/events", refusal="expected better|event"))
    node.collectors[0].write(
        encode_payload([stamp], [body], [head], [], {"web": (1, 2)}, 1), records=1, events=1
    )
    node.accept(event(3, properties={"rubbish": 2}))
    drain(worker)
    dead = [d for c in node.commits() if "dead" in c.sections
            for d in pa.ipc.open_stream(c.sections["dead"]).read_all().to_pylist()]  # fmt: skip
    assert [(d["body"], d["reason"], d["field"]) for d in dead] == [(body, "expected better", "event")]
    assert (dead[0]["message_id"] == "m2") is (b"m2" in body)
    (row,) = [r for r in node.rows() if r["message_id"] == "m3"]
    assert row["rubbish"] == 2
    assert "properties_rubbish" not in row


def test_an_event_that_kills_the_fast_reader_again_and_again_is_read_carefully(node: Node) -> None:
    node.accept(event(1))
    for _ in range(2):
        worker = node.processor()
        assert not worker.groups[0].runner.reader.careful
        crash(worker)
    worker = node.processor()
    reader = worker.groups[0].runner.reader
    assert reader.careful
    drain(worker)
    assert (node.ids(), reader.fast_lines, reader.careful) == (["m1"], 0, False)


def failing_for(worker: ProcessWorker, *ids: str) -> None:
    """The step after reading raises where one of these events is among those that it gets."""
    shaper = worker.groups[0].runner.shaper
    whole = shaper.rows

    def rows(events: Events, parsed: Parsed, message_ids: list[str], *rest: Any) -> pa.Table:
        if found := sorted(set(ids) & set(message_ids)):
            raise ZeroDivisionError(found[0])
        return whole(events, parsed, message_ids, *rest)

    setattr(shaper, "rows", rows)  # noqa: B010


def test_an_event_that_breaks_processing_becomes_a_dead_letter_and_the_others_rows(node: Node) -> None:
    worker = node.processor()
    failing_for(worker, "m3", "m7")
    node.accept(*(event(n) for n in range(10)), event(9))
    drain(worker)
    assert node.ids() == [f"m{n}" for n in range(10) if n not in (3, 7)]
    dead = [
        row
        for commit in node.commits()
        if "dead" in commit.sections
        for row in pa.ipc.open_stream(commit.sections["dead"]).read_all().to_pylist()
    ]
    assert [(row["message_id"], row["reason"]) for row in dead] == [
        ("m3", "processing failed: ZeroDivisionError: m3"),
        ("m7", "processing failed: ZeroDivisionError: m7"),
    ]
    assert json.loads(dead[0]["body"]) == event(3)
    counters = node.reports[0]["counters"]["web"]
    assert (counters["in"], counters["out"], counters["dead"], counters["duplicate"]) == (11, 8, 2, 1)


@pytest.mark.parametrize(
    ("line", "found"),
    [
        (b'{"messageId":"m1","x":1e999}', "m1"),
        (b'{"messageId" : "m1", "x"', "m1"),
        (b'{"messageId":7}', None),
        (b'["messageId"]', None),
        (b'{"messageId":"a\xff"}', None),
    ],
)
def test_the_id_of_a_dead_letter_is_found_where_it_can_be_read(line: bytes, found: str | None) -> None:
    assert id_in(line) == id_in(memoryview(line)) == found


def test_when_nothing_can_be_processed_no_event_is_to_blame(node: Node) -> None:
    worker = node.processor()
    killed_at(worker.groups[0].runner.shaper, "rows")
    node.accept(event(1), event(2))
    with pytest.raises(Killed):
        worker.step()
    assert node.commits() == []


def dead_event(node: Node, number: int) -> None:
    """An acknowledged event that cannot be read, in some partition of its own."""
    body = b'{"messageId":"d%d","event":"\\ud800"}' % number
    stamp = STAMP.pack(1, bytes(16), len(body), 0, 1, 0, slot_of(f"a{number}"), SINGLE, 0)
    head = encode_head(Head("web", "plain", "POST", "/events"))
    node.collectors[0].write(
        encode_payload([stamp], [body], [head], [], {"web": (1, 1)}, 1), records=1, events=1
    )


def letters(node: Node, number: int = 0) -> set[int]:
    found = dead.read(f"{node.data}/state/{number}/dead.sqlite")
    return {letter["seq"] for letter in found}


def three_then_none(node: Node, *, saved: bool) -> None:
    """Three processors with rows, ids and dead letters in each, and their end."""
    node.workers = 3
    node.accept(*(event(n, anonymousId=f"a{n}") for n in range(40)))
    for number in range(8):
        dead_event(node, number)
    for processor in [node.processor(n) for n in range(3)]:
        drain(processor)
        if saved:
            processor._save()
        crash(processor)
    node.workers = 1


def remove_former(node: Node) -> None:
    for number in ("1", "2"):
        shutil.rmtree(f"{node.data}/ready/{number}")
        shutil.rmtree(f"{node.data}/state/{number}")


def nothing_is_new(node: Node, worker: ProcessWorker) -> None:
    """Each copy is known, each counter and dead letter is there."""
    node.accept(*(event(n, anonymousId=f"a{n}") for n in range(40)))
    drain(worker)
    counters = node.reports[0]["counters"]["web"]
    assert (counters["out"], counters["duplicate"] % 40, counters["dead"]) == (40, 0, 8)
    assert letters(node) == set(range(40, 48))


@pytest.mark.parametrize("saved", [True, False], ids=["folded", "killed before its fold"])
def test_inv_proc_3_what_a_former_processor_left_is_taken_over_whole(node: Node, saved: bool) -> None:
    three_then_none(node, saved=saved)
    alone = node.processor(0)
    drain(alone)
    assert set(node.reports[0]["former"]) == {"1", "2"}
    crash(alone)
    remove_former(node)
    again = node.processor(0)
    nothing_is_new(node, again)
    assert node.reports[0]["former"] == {}


@pytest.mark.parametrize("saved", [True, False], ids=["folded", "killed before its fold"])
def test_what_comes_from_a_processor_that_goes_on_is_in_the_own_folder(node: Node, saved: bool) -> None:
    """Nothing else is told to this processor's standby (node/standby/source.py)."""
    node.accept(*(event(n, anonymousId=f"a{n}") for n in range(40)))
    alone = node.processor(0)
    drain(alone)
    if saved:
        alone._save()
    crash(alone)
    node.workers = 2
    crash(node.processor(1))
    held = sum(os.path.getsize(path) for path in idruns.paths(f"{node.data}/state/1"))
    crash(node.processor(1))
    assert sum(os.path.getsize(path) for path in idruns.paths(f"{node.data}/state/1")) == held, "once only"
    for folder in ("ready/0", "state/0"):
        shutil.rmtree(f"{node.data}/{folder}")
    other = node.processor(1)
    node.accept(*(event(n, anonymousId=f"a{n}") for n in range(40)))
    drain(other)
    counters = node.reports[1]["counters"]["web"]
    assert counters["out"] > 10
    assert counters["duplicate"] == counters["out"]


@pytest.mark.parametrize("name", ["_append_ids", "write_whole"])
def test_a_crash_while_taking_over_leaves_it_to_be_taken_over_again(
    node: Node, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    three_then_none(node, saved=False)
    target = {"_append_ids": state.StateStore, "write_whole": state}[name]
    with monkeypatch.context() as patched:
        patched.setattr(target, name, killed_at(SimpleNamespace(), name))
        with pytest.raises(Killed):
            node.processor(0)
    crash(node.processor(0))
    remove_former(node)
    nothing_is_new(node, node.processor(0))


def test_what_was_taken_over_is_not_taken_over_at_every_start(node: Node) -> None:
    three_then_none(node, saved=True)
    crash(node.processor(0))
    held = sum(os.path.getsize(path) for path in idruns.paths(f"{node.data}/state/0"))
    crash(node.processor(0))
    assert sum(os.path.getsize(path) for path in idruns.paths(f"{node.data}/state/0")) == held


def test_a_processor_that_runs_again_is_taken_over_again_with_what_it_did_meanwhile(node: Node) -> None:
    three_then_none(node, saved=False)
    crash(node.processor(0))
    shutil.rmtree(f"{node.data}/ready/2")  # a crash between the two removals: the state is still there
    node.workers = 3
    node.accept(*(event(n, anonymousId=f"a{n}") for n in range(40, 80)))
    for processor in [node.processor(n) for n in range(3)]:
        drain(processor)
        crash(processor)
    node.workers = 1
    crash(node.processor(0))
    remove_former(node)
    node.accept(*(event(n, anonymousId=f"a{n}") for n in range(80)))
    drain(node.processor(0))
    counters = node.reports[0]["counters"]["web"]
    assert (counters["out"], counters["duplicate"]) == (80, 80)


def test_what_finds_no_column_is_kept_counted_and_told_with_an_example(node: Node) -> None:
    worker = node.processor()
    node.accept(event(1, timestamp="yesterday", sentAt="soon", context={"screen": {"width": "wide"}}))
    node.accept(event(2, timestamp="2026-01-01T00:00:00Z"), event(3, timestamp="", sentAt=None))
    drain(worker)
    kept = {row["message_id"]: json.loads(row.get("_unmapped") or "{}") for row in node.rows()}
    assert kept == {
        "m1": {"timestamp": "yesterday", "sentAt": "soon", "context.screen.width": "wide"},
        "m2": {},
        "m3": {},
    }
    assert node.reports[0]["unmapped"] == {
        "context.screen.width": {"count": 1, "example": "wide"},
        "timestamp": {"count": 1, "example": "yesterday"},
        "sentAt": {"count": 1, "example": "soon"},
    }


def test_names_without_a_column_are_bounded() -> None:
    counted = unmapped.Unmapped()
    for number in range(unmapped.NAMES_MAX + 50):
        counted.note(f"n{number}", "x" * 1000)
    told = unmapped.told(counted, counted)
    assert len(told) == unmapped.NAMES_MAX + 1
    assert told[unmapped.OTHERS]["count"] == 100 and told["n1"]["count"] == 2
    assert len(str(told["n1"]["example"])) == unmapped.EXAMPLE_CHARS_MAX


def test_an_event_that_only_its_owner_cannot_process_keeps_its_partition(node: Node) -> None:
    """Each processor must know by itself whose an event is: it is dead once, not never or twice."""
    node.workers = 2
    workers = [node.processor(0), node.processor(1)]
    ids = [f"m{n}" for n in range(0, 40, 3)]
    for worker in workers:
        failing_for(worker, *ids)
    node.accept(*(event(n, anonymousId=f"a{n}") for n in range(40)))
    for worker in workers:
        drain(worker)
    assert node.ids() == sorted(f"m{n}" for n in range(40) if n % 3)
    dead = [node.reports[n]["counters"]["web"]["dead"] for n in (0, 1)]
    assert sum(dead) == len(ids) and all(dead)


def test_ids_of_a_commit_that_was_lost_do_not_make_duplicates_of_its_events(node: Node) -> None:
    """protocol-why.md P1: the run of ids was written, the fold was not, and the disk spoilt the commit."""
    worker = node.processor()
    node.accept(event(1))
    drain(worker)
    worker.store.save(worker.fold)
    node.accept(event(2))
    drain(worker)
    worker.store._append_pending()
    crash(worker)
    spoil_the_last_block(f"{node.data}/ready/0")
    again = node.processor()
    drain(again)
    counters = node.reports[0]["counters"]["web"]
    assert (counters["in"], counters["out"], counters["duplicate"]) == (2, 2, 0)
    assert node.ids() == ["m1", "m2"]


def spoil_the_last_block(folder: str) -> None:
    """Flip a byte in the payload of the last block that was written."""
    (path,) = (p for p in Path(folder).glob("*.seg") if not p.name.startswith("next"))
    data = bytearray(path.read_bytes())
    last = max(at for at in range(0, len(data), 4096) if data[at : at + 4] == b"HWB1")
    data[last + 100] ^= 1
    path.write_bytes(data)
