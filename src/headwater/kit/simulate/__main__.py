"""Replay a seed, or run many: ``python -m headwater.kit.simulate module:scenario --seed N``, ``--count N``,
``--minutes M``."""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import sys
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from headwater.kit.simulate import run

PROGRESS_SEEDS = 200


@dataclass
class Report:
    """What was run so far."""

    scenario: str
    first: int
    seeds: int = 0
    calls: int = 0
    met: Counter[str] = field(default_factory=Counter)
    seconds: float = 0
    failed: str = ""


def main() -> int:
    """0: all seeds passed; 1: one failed, shown with the calls before it."""
    parser = argparse.ArgumentParser(prog="python -m headwater.kit.simulate", description="Run a scenario.")
    parser.add_argument("scenario", help="module:function")
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--count", type=int, default=1, help="how many seeds")
    parser.add_argument("--minutes", type=float, default=0, help="seeds until this time has passed, instead")
    parser.add_argument("--trace", type=int, default=run.TRACE_SHOWN, help="calls to show before the error")
    parser.add_argument("--report", type=Path, help="write what happened to this file, as Markdown")
    options = parser.parse_args()
    report = Report(options.scenario, options.seed)
    try:
        return seeds(options, report)
    finally:
        if options.report:
            options.report.parent.mkdir(parents=True, exist_ok=True)
            options.report.write_text(document(report))


def seeds(options: argparse.Namespace, report: Report) -> int:
    """Seed after seed, until the count or the time is reached or one fails."""
    scenario, began = run.find(options.scenario), time.monotonic()
    seed = options.seed
    while report.seconds < 60 * options.minutes if options.minutes else report.seeds < options.count:
        try:
            sim = run.run_seed(scenario, seed)
        except Exception as error:
            traceback.print_exc()
            failed: run.Simulation | None = getattr(error, "simulation", None)
            lines = list(failed.disk.trace)[-options.trace :] if failed else []
            write(f"\nthe last {len(lines)} calls of the disk:", *lines)
            report.failed = f"seed {seed} failed: {type(error).__name__}: {error}"
            write(f"seed {seed} failed", f"replay: {run.replay(scenario, seed)}")
            return 1
        report.seeds, report.calls = report.seeds + 1, report.calls + sim.disk.calls
        report.met += sim.disk.met
        report.seconds = time.monotonic() - began
        if options.count == 1 and not options.minutes:
            write(f"seed {seed}: fine, {sim.disk.calls} calls, digest {sim.disk.digest}")
        elif report.seeds % PROGRESS_SEEDS == 0 or (report.seeds == options.count and not options.minutes):
            write(f"{report.seeds} seeds from {options.seed}: fine")
        seed += 1
    return 0


def document(report: Report) -> str:
    """The report."""
    facts = {
        "date": f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC",
        "machine": f"{os.cpu_count()} processors, {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}",
        "scenario": report.scenario,
        "seeds": f"{report.seeds}, from {report.first} on",
        "seconds": round(report.seconds),
        "calls of the disk": report.calls,
        "result": report.failed.splitlines()[0] if report.failed else "no violation",
    }
    lines = ["# Simulated histories", "", "`make simulate`", "", "| | |", "|---|---|"]
    lines += [f"| {name} | {value} |" for name, value in facts.items()]
    lines += ["", "## Faults", "", "| | |", "|---|---|"]
    lines += [f"| {name} | {count} |" for name, count in report.met.most_common()]
    return "\n".join([*lines, ""])


def write(*lines: str) -> None:
    """To standard output."""
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
