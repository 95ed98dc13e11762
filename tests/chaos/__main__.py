"""`make chaos`: see --help."""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import shutil
import sys
import tempfile
import traceback
from pathlib import Path

from tests.chaos import many
from tests.chaos.run import Report, replay, run

HELP = """Faults of every kind on real nodes under load: kill -9 of one, each or all processes, SIGSTOP, reload,
other numbers of workers, a destination or the data folder put back to an earlier copy, new destinations. After each
round every acknowledged event must be in every destination exactly once, and the ledger must hold.
With --nodes: several nodes that are one cluster, and beside these faults whole nodes killed, frozen until they are
evicted, drained one after the other, links cut (both ways or one), the store gone and back empty."""
EXAMPLES = """examples:
  make chaos                                              200 kills, 5 to 10 minutes
  make chaos ARGS='--minutes 60 --report docs/reports/chaos.md'
  make chaos ARGS='--seed 17 --round 4'                   the faults of one round again; their moments differ
  make chaos ARGS='--nodes 3 --minutes 10'                three nodes with a static list, and DuckDB
  make chaos ARGS='--nodes 3 --store redis --destination postgres --minutes 10'
  make chaos ARGS='--nodes 3 --faults "kill a node,cut a link" --round 1'       these faults, three times"""


def main() -> int:
    """0: nothing lost or doubled; 1: something was, or a node did not come back."""
    parser = argparse.ArgumentParser(
        prog="make chaos", description=HELP, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=int(os.environ.get("HEADWATER_SEED", "20261121")))
    parser.add_argument("--kills", type=int, default=int(os.environ.get("HEADWATER_KILLS", "200")),
                        help="stop after so many killed processes (200)")  # fmt: skip
    parser.add_argument("--minutes", type=float, default=0, help="stop after this time instead")
    parser.add_argument("--round", type=int, help="this round only, three times")
    parser.add_argument("--nodes", type=int, default=1, help="so many nodes, as one cluster (1: no cluster)")
    parser.add_argument("--store", choices=("static", "redis"), default="static",
                        help="how nodes find each other (static: a list)")  # fmt: skip
    parser.add_argument("--destination", choices=("duckdb", "postgres"), default="duckdb",
                        help="of several nodes: where events go (duckdb)")  # fmt: skip
    parser.add_argument(
        "--faults", default="", help="of several nodes: in every round these, with commas between"
    )
    parser.add_argument("--report", type=Path, help="write what happened to this file, as Markdown")
    parser.add_argument(
        "--keep", action="store_true", help="keep the data folders; kept anyway after a failure"
    )
    options = parser.parse_args()
    report = Report(options.seed)
    base = Path(tempfile.mkdtemp(prefix="headwater-chaos-"))
    print(f"seed {options.seed}, below {base}", flush=True)
    more = ""
    if options.nodes > 1:
        more = f" --nodes {options.nodes} --store {options.store} --destination {options.destination}"
    rounds = [options.round] * 3 if options.round is not None else list(range(100_000))
    kills = options.kills if options.round is None and not options.minutes else 0
    try:
        if options.nodes == 1:
            run(base, report, rounds, kills=kills, seconds=60 * options.minutes)
        else:
            names = [one.strip() for one in options.faults.split(",") if one.strip()]
            many.run(base, report, rounds, options.nodes, store=options.store, destination=options.destination,
                     kills=kills, seconds=60 * options.minutes, names=names)  # fmt: skip
    except Exception:
        traceback.print_exc()
        print(
            f"seed {options.seed}, round {report.rounds - 1}: {report.failure.splitlines()[0][:300]}\nkept: {base}"
        )
        print("\n".join(report.steps[-2 * many.FAULTS :]))
        print(f"replay (the same faults, at other moments): {replay(options.seed, report.rounds - 1, more)}")
    finally:
        if options.report:
            options.report.parent.mkdir(parents=True, exist_ok=True)
            options.report.write_text(document(report))
        if not report.failure and not options.keep:
            shutil.rmtree(base, ignore_errors=True)
    print(document(report))
    return 1 if report.failure else 0


def document(report: Report) -> str:
    """The report."""
    processor = next((line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                      if line.startswith("model name")), platform.machine())  # fmt: skip
    facts = {
        "date": f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC",
        "machine": f"{os.cpu_count()} × {processor}, {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}",
        "seed": report.seed,
        "seconds": round(report.seconds),
        "rounds": report.rounds,
        "events sent": report.sent,
        "events acknowledged": report.acknowledged,
        "lost": report.lost,
        "doubled": report.doubled,
        "processes killed": report.kills.total(),
        **({"longest until all had arrived, s": round(report.arrived_s, 1)} if report.arrived_s else {}),
        "result": report.failure.splitlines()[0] if report.failure else "no violation",
    }
    lines = ["# Chaos on real processes", "", "`make chaos`", "", "| | |", "|---|---|"]
    lines += [f"| {name} | {value} |" for name, value in facts.items()]
    for title, counter in (("Killed", report.kills), ("Faults", report.faults)):
        lines += ["", f"## {title}", "", "| | |", "|---|---|"]
        lines += [f"| {name} | {count} |" for name, count in counter.most_common()]
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    sys.exit(main())
