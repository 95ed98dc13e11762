"""Sends drawn connections to a running node, and holds the node to what each may be answered.

Connections go in rounds. After each: the same processes, no more file descriptors than before, memory within its bound,
every event that was answered 200 once in the warehouse, and the ledger holds.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from tests.fuzz import draw
from tests.journeys.running import Answer, Running, unique, wait_for
from tests.journeys.wire import Wire

CLIENTS = 4
WORKER_KIB_MAX = 120 * 1024


class Wrong(AssertionError):
    """The node did what it may not."""


@dataclass
class Tally:
    """What was sent and answered."""

    seed: int
    requests: int = 0
    connections: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    owed: set[str] = field(default_factory=set)
    """Ids that were answered 200 in this round."""
    accepted: int = 0
    """Events that answers said were accepted, or refused inside of a request that was not."""
    checked: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


def replay(seed: int, number: int) -> str:
    """The command that sends one connection again."""
    return f"make fuzz ARGS='--seed {seed} --connection {number}'"


def send(node: Running, tally: Tally, number: int) -> None:
    """One connection, from its first byte to its end."""
    drawn = draw.connection(tally.seed, number)
    samples = [*drawn.framed, *([drawn.last] if drawn.last else [])]
    answers: list[Answer] = []
    with Wire(node.collect, timeout_s=20) as wire:
        data = b"".join(sample.data for sample in samples)
        sender = threading.Thread(target=put, args=(wire, data, drawn.pieces))
        if len(data) > 100_000:  # who does not read cannot be answered for ever
            sender.start()
        else:
            put(wire, data, drawn.pieces)
        if not drawn.leaves:
            for sample in drawn.framed:
                answer = wire.answer(head=False)
                if answer is None:
                    break
                answers.append(answer)
                if answer.status not in sample.allowed or answer.headers.get("connection") == "close":
                    break
        if sender.ident is not None:
            sender.join(20)
        if not drawn.leaves and len(answers) == len(drawn.framed):
            wire.half_close()
            answers += wire.answers()
            if not wire.ended:
                raise Wrong(f"connection {number} is not closed after {samples[-1].kind}")
    judge(tally, number, drawn, answers)


def put(wire: Wire, data: bytes, pieces: tuple[int, ...]) -> None:
    """The bytes, in packets of these sizes where there are any; the rest at once after a while."""
    at = 0
    for size in pieces * 10:
        wire.send(data[at : at + size])
        at += size
    wire.send(data[at:])


def judge(tally: Tally, number: int, drawn: draw.Connection, answers: list[Answer]) -> None:
    """Answers in order, each one that its request may get; what follows answers the one that is framed badly."""
    told = [(sample, answer) for sample, answer in zip(drawn.framed, answers, strict=False)]
    for sample, answer in told:
        if answer.status not in sample.allowed:
            raise Wrong(
                f"connection {number}: {answer.status} to {sample.kind}: {sample.data[:300]!r}: {answer}"
            )
    closed = any(answer.headers.get("connection") == "close" for _, answer in told)
    if len(told) < len(drawn.framed) and not drawn.leaves and not closed:
        missing = drawn.framed[len(told)]
        raise Wrong(f"connection {number}: no answer to {missing.kind}: {missing.data[:300]!r}")
    rest = answers[len(told) :]
    for answer in rest:
        if drawn.last is None or answer.status not in drawn.last.allowed:
            raise Wrong(
                f"connection {number}: {answer.status} to {drawn.last and drawn.last.data[:300]!r}: {answer}"
            )
    if drawn.last is not None and drawn.last.kind == "smuggling" and len(rest) > 1:
        raise Wrong(f"connection {number}: two answers to {drawn.last.data[:300]!r}")
    with tally.lock:
        tally.connections += 1
        tally.requests += len(drawn.framed) + (drawn.last is not None)
        tally.statuses.update(answer.status for answer in answers)
        tally.kinds.update(sample.kind for sample in (*drawn.framed, *([drawn.last] if drawn.last else [])))
        tally.owed.update(sample.message for sample, _ in told if sample.message)
        tally.accepted += sum(map(events_of, answers))


def events_of(answer: Answer) -> int:
    """How many events an answer speaks for."""
    if answer.status != 200 or not answer.body.startswith(b'{"ok":true'):
        return 0
    reply = answer.json
    return int(reply.get("accepted", 0)) + len(reply.get("refused", []))


def resources(node: Running) -> dict[int, tuple[int, int]]:
    """Of each collect worker: file descriptors, and resident KiB."""
    found = {}
    for pid in node.pids(" collect "):
        status = Path(f"/proc/{pid}/status").read_text()
        resident = int(status.split("VmRSS:")[1].split()[0])
        found[pid] = (len(list(Path(f"/proc/{pid}/fd").iterdir())), resident)
    return found


def run(node: Running, tally: Tally, numbers: Iterable[int], *, kib_max: int = WORKER_KIB_MAX) -> None:
    """These connections, and everything that must hold after them."""
    pids, before = sorted(node.pids()), resources(node)
    ledger = {s["stream"]: s for s in node.wait_settled()}.get("web", {"accepted": 0})
    tally.owed, tally.accepted = set(), 0
    attempt(node, tally, numbers)
    if sorted(node.pids()) != pids:
        raise Wrong(f"processes were {pids}, are {sorted(node.pids())}: {node.log()}")
    wait_for(lambda: all(now[0] <= before[pid][0] + 2 for pid, now in resources(node).items()), 10,
             lambda: f"file descriptors were {before}, are {resources(node)}")  # fmt: skip
    for pid, (_, resident) in resources(node).items():
        if resident > kib_max:
            raise Wrong(f"worker {pid} has {resident} KiB, allowed {kib_max}; before: {before}")
    landed(node, tally, ledger)


def attempt(node: Running, tally: Tally, numbers: Iterable[int]) -> None:
    """Several connections at a time; the first that goes wrong says how to send it again."""
    failed: list[tuple[int, BaseException]] = []

    def one(number: int) -> None:
        if failed:
            return
        try:
            send(node, tally, number)
        except BaseException as error:
            failed.append((number, error))

    with ThreadPoolExecutor(CLIENTS) as pool:
        for _ in pool.map(one, numbers):
            pass
    if failed:
        number, error = failed[0]
        raise Wrong(f"{error}\nreplay: {replay(tally.seed, number)}") from error


def landed(node: Running, tally: Tally, before: dict[str, int]) -> None:
    """Every event that was answered 200 is a row once, and the ledger knows of all."""
    time.sleep(0.1)
    after = {s["stream"]: s for s in node.wait_settled(120)}.get("web")
    if after is None:
        return
    query = "select message_id from events where event = 'Fuzzed' and message_id like 'z%'"
    done = node.command("sql", "--json", "--limit", "1000000", query, timeout_s=120)
    if done.returncode:
        raise Wrong(done.stderr)
    rows = unique(row["message_id"] for row in json.loads(done.stdout))
    if missing := tally.owed - rows:
        raise Wrong(
            f"{len(missing)} of {len(tally.owed)} answered 200 and are no rows: {sorted(missing)[:5]}"
        )
    if not after["holds"] or after["accepted"] - before["accepted"] < tally.accepted:
        raise Wrong(f"answers speak for {tally.accepted} events; before {before}, after {after}")
    tally.checked += len(tally.owed)
