"""Replay a seed: ``python -m headwater.kit.simulate module:scenario --seed N [--count N] [--trace LINES]``."""

from __future__ import annotations

import argparse
import sys
import traceback

from headwater.kit.simulate import run

PROGRESS_SEEDS = 200


def main() -> int:
    """0: all seeds passed; 1: one failed, shown with the calls before it."""
    parser = argparse.ArgumentParser(prog="python -m headwater.kit.simulate", description="Run a scenario.")
    parser.add_argument("scenario", help="module:function")
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--count", type=int, default=1, help="how many seeds")
    parser.add_argument("--trace", type=int, default=run.TRACE_SHOWN, help="calls to show before the error")
    options = parser.parse_args()
    scenario = run.find(options.scenario)
    for seed in range(options.seed, options.seed + options.count):
        try:
            sim = run.run_seed(scenario, seed)
        except Exception as error:
            traceback.print_exc()
            failed: run.Simulation | None = getattr(error, "simulation", None)
            lines = list(failed.disk.trace)[-options.trace :] if failed else []
            write(f"\nthe last {len(lines)} calls of the disk:", *lines)
            write(f"seed {seed} failed", f"replay: {run.replay(scenario, seed)}")
            return 1
        if options.count == 1:
            write(f"seed {seed}: fine, {sim.disk.calls} calls, digest {sim.disk.digest}")
        elif (done := seed - options.seed + 1) % PROGRESS_SEEDS == 0 or done == options.count:
            write(f"{done} seeds from {options.seed}: fine")
    return 0


def write(*lines: str) -> None:
    """To standard output."""
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
