"""Rounds of faults on several real nodes: all of them are sent events, faults come one after the other or two at once,
everybody is brought back, and then everything must arrive within ``ARRIVED_S``.

What the nodes owe is more than what one does: beside ``oracle``, events of one visitor are in the destination in the
order in which one node took them, and no node prints without end. In every other round, where no two
nodes are taken away without a word, clients send the same events at several nodes, seconds apart.
"""

from __future__ import annotations

import json
import os
import random
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tests.chaos import fleet as faults
from tests.chaos.fleet import Fleet
from tests.chaos.load import VISITORS, Load, Roaming
from tests.chaos.oracle import Oracle, Violation
from tests.chaos.run import Report
from tests.chaos.wires import HOST, Wires
from tests.cluster.nodes import cluster_of
from tests.journeys.running import wait_for
from tests.rigs import postgres
from tests.rigs.redis import Single

FAULTS = 4
"""Of a round."""
ROUNDS_OF_NODES = 6
"""Then new ones begin on empty folders."""
ARRIVED_S = 60.0
"""After everybody is back: until all events are in the destination and the ledger holds."""
SLOW_S = 15.0
"""Above this it is told what was waited for."""
LINES_MAX = 1500
"""What a node may print in a round."""
CLIENTS_OF_A_NODE = 2
PAUSE_S = 0.05
HOME_LOST = frozenset(
    {"kill a node", "kill the node with the file", "freeze a node for 5 heartbeats", "cut a node off"}
)
"""Faults that take a node away without a word. Where two of them come together, what the nodes had accepted and
delivered just then only their disks know, so that a copy at another node may double (docs/promises.md): clients send
none then."""
DUCKDB = (
    "  warehouse: {type: duckdb, path: warehouse.duckdb, sql: {rows_max: 1000000}, retry_interval_s: 0.5}\n"
)
POSTGRES = "  warehouse: {{type: postgres, url: '{url}', schema: {schema}, retry_interval_s: 0.5}}\n"
LOGS = "log: {compress_after_s: 0, segment_bytes: 8388608, ready_segment_bytes: 8388608, spare_segments_max: 1}\n"


class FleetOracle(Oracle):
    """``ask_directly`` asks the destination itself; else the node that holds it is asked with `headwater sql`."""

    def __init__(self, fleet: Fleet, ask_directly: Callable[[str], list[dict[str, Any]]] | None) -> None:
        super().__init__(fleet.nodes[0])
        self.fleet = fleet
        self.ask_directly = ask_directly
        self.arrived_s = 0.0
        """Longest time that a round needed to arrive."""
        self.waits: list[str] = []
        """What the last round waited for: seconds, node, what it said; each once."""

    def settled(self, unknown: int) -> list[dict[str, Any]]:
        """The ledger over all nodes, once each of them says that nothing waits and that it holds."""
        began = time.monotonic()
        streams: list[dict[str, Any]] = []
        self.waits = []

        def holds() -> bool:
            for node in self.fleet.nodes:
                done = node.command("reconcile", "--json")
                streams[:] = json.loads(done.stdout) if done.stdout.startswith("[") else []
                if done.returncode != 0 or any(stream["pending"] for stream in streams):
                    self.wait(time.monotonic() - began, node.name, waited_for(streams) or done.stderr.strip())
                    return False
            return True

        wait_for(holds, ARRIVED_S, lambda: "\n".join([*self.waits, self.fleet.log()]), interval_s=0.3)
        self.arrived_s = max(self.arrived_s, time.monotonic() - began)
        return streams

    def wait(self, after_s: float, node: str, what: str) -> None:
        """Remember what it waits for, when it is something new."""
        if not self.waits or not self.waits[-1].endswith(what):
            self.waits.append(f"{after_s:5.1f} s {node}: {what}")

    def ask(self, name: str, query: str) -> list[dict[str, Any]]:
        if self.ask_directly is not None:
            return self.ask_directly(query)
        self.node = self.fleet.holder()
        return super().ask(name, query)

    def ordered(self, load: Load, name: str) -> None:
        """Events of one visitor lie in the destination in the order in which they were acknowledged."""
        place = "rowid" if self.ask_directly is None else "xmin::text::bigint"
        rows = self.ask(
            name, f"select message_id, {place} as place from events where event = 'R{load.round}'"
        )
        last: dict[tuple[str, int], tuple[int, int]] = {}
        for row in sorted(rows, key=lambda row: (int(row["place"]), numbered(row["message_id"])[1])):
            client, count = numbered(row["message_id"])
            if row["message_id"] not in load.acknowledged:
                continue
            visitor = client, count % VISITORS
            before, at = last.get(visitor, (0, 0))
            if count < before:
                raise Violation(f"{name}: {row['message_id']} at {row['place']} lies behind {before} at {at}")
            last[visitor] = count, int(row["place"])


def waited_for(streams: Sequence[dict[str, Any]]) -> str:
    """What a ledger lacks."""
    return "; ".join(
        f"{one['stream']}: {one['accepted']} accepted, {one['pending']} pending, {one['problems']}"
        for one in streams
    )


def numbered(message_id: str) -> tuple[str, int]:
    """``r3-1-17`` → (``r3-1``, 17)."""
    client, _, count = message_id.rpartition("-")
    return client, int(count)


def names_of(seed: int, number: int, count: int = FAULTS, *, store: bool) -> list[str]:
    """The faults of a round; the first ones of a name that comes twice in a row last together with the next."""
    return faults.drawn(random.Random(f"faults of many {seed} {number}"), count, store=store)


def run_round(
    fleet: Fleet, load: Load, oracle: FleetOracle, report: Report, number: int, names: Sequence[str]
) -> None:
    """One round on nodes that run: a third of the faults come on top of the one before."""
    fleet.rng = random.Random(f"{report.seed} {number}")
    printed = {node.name: len(node.log_text()) for node in fleet.nodes}
    load.begin(report.rounds)
    try:
        with ExitStack() as lasting:
            for name in names:
                if fleet.rng.random() < 0.67:
                    lasting.close()
                time.sleep(fleet.rng.uniform(0.5, 2.0))
                fleet.faults[name] += 1
                report.steps.append(f"{time.strftime('%H:%M:%S')} {number} {name}")
                lasting.enter_context(faults.ALL[name][1](fleet))
        time.sleep(0.5)
        fleet.whole()
        time.sleep(0.5)
    finally:
        load.rest()
        report.rounds += 1
        report.sent += len(load.sent)
        report.acknowledged += len(load.acknowledged)
    try:
        oracle.check(load, ["warehouse"])
        if not isinstance(load, Roaming):
            oracle.ordered(load, "warehouse")
    finally:
        report.lost, report.doubled = report.lost + oracle.lost, report.doubled + oracle.doubled
        oracle.lost = oracle.doubled = 0
        report.arrived_s = max(report.arrived_s, oracle.arrived_s)
    for node in fleet.nodes:
        quiet(node.name, node.log_text()[printed[node.name] :].splitlines())


def quiet(name: str, lines: list[str]) -> None:
    """Violation where a node printed more than anybody reads."""
    if len(lines) > LINES_MAX:
        alike = Counter(re.sub(r"[0-9a-f]*\d[0-9a-f]*", "#", line)[:120] for line in lines)
        raise Violation(f"{name} printed {len(lines)} lines in a round: {alike.most_common(3)}")


@contextmanager
def fleet_of(
    folder: Path, count: int, *, store: str, destination: str
) -> Iterator[tuple[Fleet, FleetOracle]]:
    """Nodes that run, on empty folders; ended whatever happens."""
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as closing:
        block, server, ask = "", None, None
        if store == "redis":
            server = Single(folder / "redis")
            closing.callback(server.close)
            server.up()
            block = f"  store: {{url: 'redis://127.0.0.1:{server.port}'}}"
        told = DUCKDB
        if destination == "postgres":
            base = closing.enter_context(postgres.started())
            told = POSTGRES.format(url=base.url(), schema="chaos")
            ask = asker(base, "chaos")
        nodes = closing.enter_context(
            cluster_of(
                folder, count, block, f"  advertise: {HOST}", sections="destinations:\n" + told, host=HOST
            )
        )
        wires = Wires(lambda: faults.ids(nodes))
        closing.callback(wires.close)
        for node in nodes:
            wires.serve(node.name, [node.member, node.lane])
        fleet = Fleet(nodes, wires, server)
        fleet.start()
        yield fleet, FleetOracle(fleet, ask)


def asker(base: postgres.Server, schema: str) -> Callable[[str], list[dict[str, Any]]]:
    """Asks PostgreSQL."""

    def ask(query: str) -> list[dict[str, Any]]:
        with base.connect(options=f"-c search_path={schema}") as connection:
            cursor = connection.execute(query)
            names = [column.name for column in cursor.description]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    return ask


def loads_of(fleet: Fleet) -> tuple[Load, Load]:
    """Clients of every node, for rounds in turn: those that stay at one, and those that go from node to node."""
    clients = CLIENTS_OF_A_NODE * len(fleet.nodes)
    return (
        Load(*fleet.nodes, clients=clients, pause_s=PAUSE_S),
        Roaming(*fleet.nodes, clients=clients, pause_s=2 * PAUSE_S),
    )


def run(
    base: Path, report: Report, rounds: Sequence[int], count: int, *, store: str, destination: str,
    kills: int = 0, seconds: float = 0, names: Sequence[str] = (),
) -> None:  # fmt: skip
    """These rounds; fewer once so much was killed, or so much time has passed (0: no such end). ``names``: these faults
    in every round, instead of drawn ones."""
    began = time.monotonic()
    try:
        for first in range(0, len(rounds), ROUNDS_OF_NODES):
            folder = base / str(first)
            with fleet_of(folder, count, store=store, destination=destination) as (fleet, oracle):
                loads = loads_of(fleet)
                try:
                    for number in rounds[first : first + ROUNDS_OF_NODES]:
                        told = names or names_of(report.seed, number, store=store != "static")
                        print(f"round {number}: {', '.join(told)}", flush=True)
                        load = loads[0 if sum(name in HOME_LOST for name in told) > 1 else number % 2]
                        run_round(fleet, load, oracle, report, number, told)
                        if oracle.arrived_s > SLOW_S:
                            print("\n".join(oracle.waits), flush=True)
                        report.seconds = time.monotonic() - began
                        killed = report.kills.total() + fleet.kills.total()
                        print(
                            f"round {number}: {report.acknowledged} events acknowledged, {killed} kills, fine,"
                            f" arrived after {oracle.arrived_s:.1f} s at most (load {os.getloadavg()[0]:.0f})",
                            flush=True,
                        )
                        if (kills and killed >= kills) or (seconds and report.seconds >= seconds):
                            return
                finally:
                    report.kills += fleet.kills
                    report.faults += fleet.faults
    except BaseException as error:
        report.failure = f"{type(error).__name__}: {error}"
        raise
    finally:
        report.seconds = time.monotonic() - began
