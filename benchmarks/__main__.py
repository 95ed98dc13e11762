"""`python -m benchmarks [workload…]`: measures, prints tables, writes them. See README.md beside this file."""

from __future__ import annotations

import argparse
import datetime
import os
import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks import (
    endurance,
    harness,
    kafka,
    lane,
    latency,
    machine,
    recovery,
    report,
    selfcheck,
    workloads,
)
from benchmarks.servers import CACHE, ROOT
from benchmarks.workloads import DATA

BY_NAME = latency.WORKLOADS | endurance.WORKLOADS | recovery.WORKLOADS | kafka.WORKLOADS
"""Long, or in need of much disk or of a broker: they run when they are named."""
WORKLOADS = workloads.WORKLOADS | lane.WORKLOADS | BY_NAME
RESULTS = Path(__file__).resolve().parent / "results"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "workload",
        nargs="*",
        help=f"names, or prefixes such as `accept`; none: all but {', '.join(BY_NAME)}",
    )
    parser.add_argument("--list", action="store_true", help="names the workloads and ends")
    parser.add_argument(
        "--check",
        action="store_true",
        help="checks the references instead: honest about disk, robust against bad input",
    )
    parser.add_argument("--seconds", type=float, default=5.0, help="length of a slice [5]")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds [5]")
    parser.add_argument("--connections", type=int, help="instead of the workload's own 64 (16 for batches)")
    parser.add_argument(
        "--events", type=int, default=400_000, help="events of process-stages and end-to-end [400000]"
    )
    parser.add_argument(
        "--loads", default="30,50,70,90", help="of latency: per cent of the saturated rate [30,50,70,90]"
    )
    parser.add_argument("--minutes", type=float, default=10.0, help="length of outage and of overload [10]")
    parser.add_argument("--gigabytes", type=float, default=10.0, help="raw log of recovery [10]")
    parser.add_argument(
        "--rate", type=float, default=5000.0, help="events/s arriving in outage and click-to-row-busy [5000]"
    )
    parser.add_argument("--servers", help="only these, separated by commas (e.g. 'headwater,C loop')")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="one round of 1 s, 20,000 events: shows that everything runs; not a result",
    )
    parser.add_argument(
        "--out",
        type=Path,
        help="writes OUT.md and OUT.json, e.g. benchmarks/results/2026-01-31 [.cache/bench/last]",
    )
    given = parser.parse_args()

    if given.list:
        for name, (what, _) in WORKLOADS.items():
            print(f"{name:22} {what}")
        return 0
    if given.check:
        return selfcheck.main()
    chosen = [
        n
        for n in WORKLOADS
        if (not given.workload and n not in BY_NAME)
        or any(n == w or n.startswith(w + "-") for w in given.workload)
    ]
    unknown = [w for w in given.workload if not any(n == w or n.startswith(w + "-") for n in WORKLOADS)]
    if unknown:
        parser.error(f"no workload {', '.join(unknown)}; there are {', '.join(WORKLOADS)}")
    out = (
        given.out.with_suffix("")
        if given.out and given.out.suffix in (".md", ".json")
        else given.out or CACHE / "last"
    )
    if given.quick and RESULTS in out.resolve().parents:
        parser.error("a quick run is not a result: give another --out")
    for tool in ("wrk", "taskset"):
        if shutil.which(tool) is None:
            parser.error(f"{tool} is not installed")
    if (os.cpu_count() or 1) < 2:
        parser.error("two cores are needed: one for the server, one for the load")

    options = harness.Options(
        seconds=1.0 if given.quick else given.seconds,
        rounds=1 if given.quick else given.rounds,
        connections=given.connections,
        slices_max=1 if given.quick else 3,
        events=20_000 if given.quick else given.events,
        loads=tuple(int(load) for load in given.loads.split(",")),
        minutes=0.2 if given.quick else given.minutes,
        gigabytes=0.3 if given.quick else given.gigabytes,
        rate=given.rate,
        only=tuple(s.strip() for s in given.servers.split(",")) if given.servers else (),
    )
    CACHE.mkdir(parents=True, exist_ok=True)
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], check=False, capture_output=True, text=True, cwd=ROOT
    ).stdout.strip()
    run: dict[str, object] = {
        "date": datetime.date.today().isoformat(),
        "commit": commit or "unknown",
        "quick": given.quick,
        "seconds": options.seconds,
        "rounds": options.rounds,
        "payloads": harness.prepare_payloads(),
        "machine": machine.describe(CACHE),
    }
    results, failed = [], []
    for name in chosen:
        print(f"{name}: {WORKLOADS[name][0]}", flush=True)
        try:
            results.append(WORKLOADS[name][1](options))
        except Exception as e:
            failed.append(name)
            results.append(harness.Result(name, ["failed"], notes=[f"failed: {type(e).__name__}: {e}"]))
        print(report.table(results[-1]), *(f"* {n}" for n in results[-1].notes), "", sep="\n", flush=True)
        report.write(out, run, results)  # after each, so that an interrupted run keeps what it has
    shutil.rmtree(DATA, ignore_errors=True)
    print(f"written: {out}.md and .json")
    if any(r.disturbed for r in results):
        print("Some slices were disturbed by other load on this machine: do not publish these numbers.")
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
