"""docs/semantics.md: the lines that a cluster is measured by, the tests that show each, and what is not built.

The lines come from two studies of older systems, of which the project keeps the numbers: C, M, H, R, K from
Jetstream's clusters (its §15), J, S, F, P, T from Kuzzle's (its §8.3), whose R1 and R2 are KR1 and KR2 here. What they
say is said again in our words; where protocol.md decides otherwise, the line says what protocol.md says.

A test belongs to a line when its name (``test_c3_…``) or its own docstring names it. The result follows from that and
from ``LACKS``: shown, in part, no test and why.
"""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

GROUPS: dict[str, dict[str, str]] = {
    "Channels with affinity": {
        "C1": "A key's slot is a hash that is the same everywhere; parts of a composite key do not run together.",
        "C2": "Who gets an event is said by the newest table alone. Without a key: the live node with least to do, or "
        "a refusal, as set. A broadcast reaches each live node once.",
        "C3": "What one producer sends for one slot arrives in the order of sending while the owner stays.",
        "C4": "A consumer's pause moves no ownership; its events wait at the producer, within bounds, in order.",
        "C5": "`fire` is written once and never again; `acked` is kept until acknowledged, and sent again with the "
        "same number; `spooled` is on a disk before the caller goes on.",
        "C6": "Who does not own a slot by its newest table processes nothing of it: it refuses, and the producer asks "
        "who does.",
        "C7": "A consumer grants credit in events and bytes; no producer sends or holds more than that and its bound.",
        "C8": "Batches leave when full, large or old enough. What no frame can hold is refused to the caller.",
        "C9": "Frames say their length, version and kind. Unknown kinds are passed over and counted, unknown versions "
        "refused with the reason; random bytes neither crash nor take memory.",
        "C10": "Events of 1 KB: 100,000 per second over a connection, 20,000 per second at 20 ms for 99 of 100.",
    },
    "Members": {
        "M1": "A node's record and the table have one form, on the wire, in the store and on disk.",
        "M2": "Signs of life expire by clocks that only go forward, each node's own; who has expired is out.",
        "M3": "One leader writes tables, each above all former ones; what a paused leader still writes changes "
        "nothing.",
        "M4": "A node that comes back in time under its identity finds its partitions; of two with one identity, one "
        "stays and the other is told.",
        "M5": "While the store is away, for any time, the cluster works with the table that it has.",
        "M6": "A new table is in use at every node within a second, also among 20.",
        "M7": "A single node needs no store.",
        "M8": "Zones: by setting, keyed traffic stays in the zone where it arises.",
    },
    "Healing": {
        "H1": "A killed node: its peers notice, a new table comes, nothing acknowledged is lost.",
        "H2": "A node that hangs is suspected, then evicted; when it wakes it finds itself out, and has done nothing "
        "that counts meanwhile.",
        "H3": "The same for a node that nobody can reach.",
        "H4": "A connection that breaks is made again, and nothing moves.",
        "H5": "A leave moves what the leaver had, a join what the joiner gets; each has its quota, less than one away.",
        "H6": "Only a part of the slots is handed over at once.",
        "H7": "The next owner goes on from the former one's state; when there is none, from the newest that it has.",
        "H8": "A drain hands everything over before the process ends; restarts one after the other lose and double "
        "nothing.",
    },
    "Slow consumers, advisories, replay": {
        "R1": "Slow and normal again have two thresholds and a time, so that one advisory tells of each change.",
        "R2": "What cannot be delivered is told to listeners with its reason, and counted: accepted = delivered + "
        "pending + spooled + lost, at every moment.",
        "R3": "What waits for long is on a disk before it leaves memory; a full disk pushes back, and drops nothing.",
        "R4": "While older events of a slot wait, newer ones wait behind them: order holds over slow and quick turns.",
        "R5": "What waited is sent when the owner is well, through the table of that time, with its id.",
        "R6": "What cannot be processed is set aside after so many attempts, and holds up nothing.",
        "R7": "An operator can stop and start the sending of what waited.",
    },
    "Kafka": {
        "K1": "A produced event is acknowledged by the broker before the caller goes on, once, in order, on the "
        "partition that every other client would choose.",
        "K2": "A group moves as little as it can; a restart within the session moves nothing.",
        "K3": "A batch is a stretch of one partition without gaps, closed by size, number or age.",
        "K4": "The sink says how far it is, or waits, or goes back; only what it has done is committed.",
        "K5": "Killed anywhere, each event is seen, and a warehouse with its position has it once.",
        "K6": "A failing batch is tried again, then halved until the bad event is found and set aside; a sink that is "
        "down waits without losing its place.",
        "K7": "Where reading begins, also in new partitions and where the topic has forgotten.",
        "K8": "A rate cap holds over all partitions within a tenth.",
        "K9": "Partitions are shared out evenly, by a fixed number or by a list; what nobody reads is told.",
    },
    "Joining": {
        "J1": "The first node is ready within two seconds, alone, and says so.",
        "J2": "Too few nodes: alive but not ready, with the reason; ready within a second of the last one's coming.",
        "J3": "Ten nodes that start at once agree on one view within ten seconds.",
        "J4": "A node that joins is ready when it knows all that a peer knows.",
        "J5": "A subscription is acknowledged when every node routes to it.",
        "J6": "A foreign name, secret or address is refused with the reason, and learns nothing.",
        "J7": "When the node dies through which one joins, it joins through another, and never gives up.",
        "S3": "A message that cannot be understood is counted and passed over; nobody is evicted for it.",
    },
    "Failing": {
        "F1": "A killed node is suspected, then evicted within 7 s, and the reason is told.",
        "F2": "A node that is told to stop leaves: it is not evicted, and nothing that it accepted is lost.",
        "F3": "A short stop changes nothing. After a long one the node comes back in the same process as a new "
        "incarnation, and what the old one wanted is void.",
        "F4": "A busy process below three heartbeats is not evicted.",
        "F5": "The store is away: the members go on, nobody comes in, and it heals by itself.",
        "F6": "Who is evicted again and again waits longer each time.",
        "P1": "Below the minimum: 503 with the reason, or the local log, as set; back without a restart.",
        "P2": "Of three and two, the three go on, the two stop in time; they find together again.",
        "P3": "Of two halves at most one goes on: that with the lease.",
        "P4": "A link that is cut in one direction costs one node at most, and all see the same.",
        "P5": "From ten to three, by leaving or dying one after the other: the three go on.",
    },
    "Restarts, versions, status": {
        "KR1": "Restarts one after the other behind a load balancer, under load: nothing lost, nothing twice, never "
        "ready too early.",
        "KR2": "Two versions side by side speak the older one; what is new is used when all have it.",
        "T1": "The status is the same at every node, in Kuzzle's form and ours.",
        "T2": "The plugin's old routes answer as before; reset wants the admin token and disturbs nobody.",
    },
}

LACKS = {
    "C10": "what an event costs is tested, loosely. The speed is measured, of the lane: `make bench ARGS=direct-lane`.",
    "H1": "that traffic stops within 100 ms of a reset is not measured yet.",
    "H7": "partitions of nodes: their state is at the next owner before they move. Channels have no state to move.",
    "M8": "not built: zones decide where a partition's standby is (H5), not who owns it.",
    "J4": "speaks of subscriptions, which are not built; members are ready when they have the table (J2).",
    "J5": "speaks of subscriptions, which are not built.",
    "F2": "what subscribers see of it: not built.",
    "KR1": "not built yet: the journey with three nodes behind HAProxy.",
    "H8": "a restart of every node under load is not tried here yet (KR1).",
}

LINES = {name: words for lines in GROUPS.values() for name, words in lines.items()}
ELSEWHERE = {
    "tests/contracts/test_deliver_forced.py",
    "tests/contracts/test_holes.py",
    "tests/contracts/test_postgres_forced.py",
    "tests/unit/process/test_worker.py",
}
"""Files whose P1 to P3 are the holes of protocol.md §15.3, another list."""
ID = re.compile(r"\b[A-Z]{1,2}\d{1,2}\b")


class Shown(NamedTuple):
    """A test that names a line."""

    path: str
    test: str


@cache
def shown_by_tests(root: Path) -> dict[str, list[Shown]]:
    """Line → the tests that name it, in order."""
    found: dict[str, list[Shown]] = {name: [] for name in LINES}
    for path in sorted((root / "tests").rglob("test_*.py")):
        place = str(path.relative_to(root))
        if place in ELSEWHERE:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                words = {word.upper() for word in node.name.split("_")}
                words.update(ID.findall(ast.get_docstring(node) or ""))
                for name in sorted(words & found.keys()):
                    found[name].append(Shown(place, node.name))
    return found


def result(name: str, tests: list[Shown]) -> str:
    """What can be said of a line."""
    lacks = LACKS.get(name, "")
    if tests:
        return f"in part: {lacks}" if lacks else "shown"
    return f"no test: {lacks}"


def document(root: Path) -> str:
    """The whole text."""
    found = shown_by_tests(root)
    text = [
        "# What a cluster promises, line by line\n",
        "The lines have the numbers of two studies of older systems: C, M, H, R and K of Jetstream's clusters;",
        "J, S, F, P and T of Kuzzle's, whose R1 and R2 are KR1 and KR2 here. Each is said in our words, with the",
        "tests that show it and the result. `make test` runs all of them, and is green at every commit of `main`; a",
        "test whose real part (Redis, ZooKeeper, Kafka …) a machine does not have is skipped, and the run says so.",
        "The rules beneath are in [invariants.md](invariants.md).\n",
        "| lines | shown | in part | no test |",
        "|---|---|---|---|",
        *(f"| {title} | {tally(lines, found)} |" for title, lines in GROUPS.items()),
        "",
    ]
    for title, lines in GROUPS.items():
        text.append(f"## {title}\n")
        for name, words in lines.items():
            text.append(f"### {name}\n\n{words}\n\n*Result:* {result(name, found[name])}\n")
            text += [f"* `{one.path}`: `{one.test}`" for one in found[name]]
            text += [""] if found[name] else []
    return "\n".join(text)


def tally(lines: dict[str, str], found: dict[str, list[Shown]]) -> str:
    """Cells of the summary: how many lines are shown, shown in part, and not at all."""
    kinds = [result(name, found[name]).partition(":")[0] for name in lines]
    return " | ".join(str(kinds.count(kind)) for kind in ("shown", "in part", "no test"))
