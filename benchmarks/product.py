"""The one place where benchmarks call Headwater's own functions (everything else goes through its commands).

The role of processing as the node has it, on real files; its stages are timed by wrapping the methods that the product
itself calls, so that nothing is measured that the product does not do, and the stages add up to the whole turn.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import orjson

from headwater.collect.settings import KeySettings
from headwater.event.position import WriterId
from headwater.event.record import SINGLE, STAMP, Head, encode_head, encode_payload
from headwater.event.slots import affinity, slot_of
from headwater.kit import memory
from headwater.kit.clock import SystemClock
from headwater.kit.disk import SystemDisk
from headwater.kit.threads import inline
from headwater.log.block import Secret
from headwater.log.write import BlockWriter
from headwater.node.roles.process import KEEP_FREED_BYTES, ProcessRole
from headwater.node.settings import Settings
from headwater.process import worker
from headwater.process.settings import ProcessSettings

SECRET = Secret(0x5EC2E7)

PARTITIONS, SEGMENT_BYTES = 64, 64 << 20
WRITER = WriterId(1 << 16)
BLOCK_RECORDS = 64
"""As many as come in one commit from 64 connections."""
HEADS = "browsers: the user agent of the event, its language, client hints; the page's origin as referer"
STAGES = (
    "read log",
    "gather",
    "parse",
    "ids",
    "dedupe",
    "count",
    "enrich + shape",
    "encode",
    "append",
    "rest",
)
"""In the order of a turn. `rest`: filtering duplicates, state in memory, saving it once a second, the report."""


class Processing:
    """One processor with empty state in a folder of its own; the folder goes with it."""

    def __init__(self, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        for name in ("raw", "ready/0", "state/0"):
            (folder / name).mkdir(parents=True)
        self.folder = folder
        self.disk, self.clock = SystemDisk(), SystemClock()
        self.offset_ns = self.clock.wall_ns() - self.clock.boot_ns()
        self.accepted = 0
        self.spent: dict[str, int] = {}
        self.raw = BlockWriter(
            self.disk,
            self.clock,
            str(folder / "raw" / f"{WRITER:016x}"),
            WRITER,
            1,
            start=1,
            offset_ns=self.offset_ns,
            segment_bytes=SEGMENT_BYTES,
            submit=inline,
            secret=SECRET,
        )
        settings = Settings(
            keys=[KeySettings(id="web", secret="not-asked-for", origins=["*"])],
            process=ProcessSettings(nice=0),
            data_bytes_max=40 << 30,
        )
        context: Any = SimpleNamespace(
            settings=settings,
            data=str(folder),
            path=lambda *names: str(folder.joinpath(*names)),
            disk=self.disk,
            clock=self.clock,
            secret=SECRET,
            node=SimpleNamespace(partitions=PARTITIONS, start=1),
            control=SimpleNamespace(start=1, offset_ns=self.offset_ns),
            number=0,
            instance="0",
            log_id=2,
        )
        self.role = ProcessRole(context)
        self.worker = self.role.worker
        segments = self.worker.ready.blocks.segments
        while segments.preparing:
            time.sleep(0.01)
        segments.submit = inline  # zeroing counts where it belongs, in `append`
        self.worker.recover()
        memory.settle(KEEP_FREED_BYTES)
        runner = self.worker.groups[0].runner
        self.time(self.worker, "_next_cut", "read log")
        self.time(runner.gatherer, "gather", "gather")
        self.time(runner.reader, "read", "parse")
        self.time(runner, "_message_ids", "ids")
        self.time(runner, "_partitions", "ids")
        self.time(runner, "_dedupe", "dedupe")
        self.time(runner, "_count", "count")
        self.time(runner.shaper, "rows", "enrich + shape")
        self.sections_of = worker.sections_of
        self.time(worker, "sections_of", "encode")
        self.time(self.worker, "_append", "append")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        worker.sections_of = self.sections_of
        for group in self.worker.groups:
            group.close()
        self.worker.store.close()
        self.worker.ready.blocks.close()
        self.role.syncing.close()
        self.raw.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def cut(self, lines: Sequence[bytes]) -> dict[str, int]:
        """Accepts the events, then processes them in one turn; CPU ns of each stage of it."""
        for at in range(0, len(lines), BLOCK_RECORDS):
            self.accept(lines[at : at + BLOCK_RECORDS])
        self.spent = {}
        begin = time.process_time_ns()
        self.worker.step()
        whole = time.process_time_ns() - begin
        if self.role.told["counters"]["web"]["in"] != self.accepted:
            raise RuntimeError(
                f"one cut did not take everything: {self.role.told['counters']} of {self.accepted}"
            )
        return {**self.spent, "rest": whole - sum(self.spent.values())}

    def check(self, accepted: int, distinct: int) -> None:
        """Whether it did what it is timed for."""
        counted = self.role.told["counters"]["web"]
        if (counted["in"], counted["out"], counted["duplicate"]) != (accepted, distinct, accepted - distinct):
            raise RuntimeError(
                f"{accepted:,} events, {distinct:,} different, but processing counted {counted}"
            )

    def accept(self, lines: Sequence[bytes]) -> None:
        """One block of single events, durable, as collect writes it."""
        now = self.clock.boot_ns() + self.offset_ns
        heads: dict[bytes, int] = {}
        stamps = []
        for number, line in enumerate(lines):
            event = orjson.loads(line)
            head = heads.setdefault(browser_head(event), len(heads))
            slot = slot_of(affinity(event["anonymousId"], event["userId"], event["messageId"]) or "")
            address = b"\0" * 10 + b"\xff\xff" + bytes((203, 0, slot & 127, number))
            stamps.append(STAMP.pack(now + number, address, len(line), head, 1, 0, slot, SINGLE, 0))
        self.accepted += len(lines)
        streams = {"web": (len(lines), self.accepted)}
        payload = encode_payload(stamps, lines, list(heads), [], streams, len(lines))
        self.raw.write(payload, records=len(lines), events=len(lines))
        self.raw.has_room(self.raw.segments.segment_bytes)

    def time(self, owner: object, name: str, stage: str) -> None:
        """Wraps a method so that its CPU time counts for the stage."""
        method: Callable[..., Any] = getattr(owner, name)

        def timed(*given: Any, **named: Any) -> Any:
            begin = time.process_time_ns()
            try:
                return method(*given, **named)
            finally:
                self.spent[stage] = self.spent.get(stage, 0) + time.process_time_ns() - begin

        setattr(owner, name, timed)


def browser_head(event: dict[str, Any]) -> bytes:
    """The head that collect stores for a browser's request."""
    context = event["context"]
    headers = {
        "user-agent": context["userAgent"],
        "referer": "https://shop.example/",
        "accept-language": f"{context['locale']},en;q=0.9",
        "sec-ch-ua": '"Chromium";v="141", "Not?A_Brand";v="8", "Google Chrome";v="141"',
        "sec-ch-ua-mobile": "?0",
        "sec-ch-ua-platform": '"Windows"',
        "origin": "https://shop.example",
    }
    return encode_head(Head("web", "segment", "POST", "/v1/track", "", "application/json", headers, True))
