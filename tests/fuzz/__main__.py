"""`make fuzz`: see --help."""

from __future__ import annotations

import argparse
import datetime
import os
import shutil
import sys
import tempfile
import time
import traceback
from pathlib import Path

from tests.fuzz.run import CLIENTS, Tally, run
from tests.journeys.running import Running

HELP = """\
Requests that nobody should send, through raw sockets, to a real node: bodies of every shape, compressed bombs, deep
nesting, header smuggling, random bytes; pipelined, over several connections. Each answer must be one that the request
may get; no worker may die, leak or grow, and each event that was answered 200 must be in the warehouse once."""
EXAMPLES = """examples:
  make fuzz                                        a million requests
  make fuzz ARGS='--count 50000 --seed 3'
  make fuzz ARGS='--seed 3 --connection 4711'      one connection again, byte by byte"""
ROUND = 4000
"""Connections between two checks."""
NODE_ROUNDS = 5
"""Then a new node begins: what is read back after each round stays small."""


def main() -> int:
    """0: fine; 1: the node did what it may not, shown with the command that replays it."""
    parser = argparse.ArgumentParser(
        prog="make fuzz", description=HELP, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=int(os.environ.get("HEADWATER_SEED", "20261121")))
    parser.add_argument("--count", type=int, default=1_000_000, help="requests (1,000,000)")
    parser.add_argument("--connection", type=int, help="this connection only")
    parser.add_argument("--report", type=Path, help="write what happened to this file, as Markdown")
    options = parser.parse_args()
    base = Path(tempfile.mkdtemp(prefix="headwater-fuzz-"))
    tally, began, failure = Tally(options.seed), time.monotonic(), ""
    print(f"seed {options.seed}, below {base}", flush=True)
    try:
        if options.connection is not None:
            rounds(base, tally, 1, [range(options.connection, options.connection + 1)])
        else:
            rounds(base, tally, options.count, [range(n, n + ROUND) for n in range(0, 1 << 30, ROUND)])
    except Exception as error:
        failure = str(error)
        traceback.print_exc()
        print(f"seed {options.seed}: {failure[:2000]}\nkept: {base}")
    told = document(tally, time.monotonic() - began, failure)
    if options.report:
        options.report.parent.mkdir(parents=True, exist_ok=True)
        options.report.write_text(told)
    if not failure:
        shutil.rmtree(base, ignore_errors=True)
    print(told)
    return 1 if failure else 0


def rounds(base: Path, tally: Tally, count: int, numbers: list[range]) -> None:
    """Rounds until so many requests were sent; a new node now and then."""
    node: Running | None = None
    try:
        for index, part in enumerate(numbers):
            if node is None or index % NODE_ROUNDS == 0:
                if node is not None:
                    node.stop()
                    shutil.rmtree(node.folder)
                folder = base / str(index)
                folder.mkdir()
                limits = "header_deadline_s: 5.0, body_deadline_s: 5.0, body_bytes_max: 524288, header_bytes_max: 8192"
                node = Running(folder, workers=2, door=limits, more="process: {columns_max: 100}")
                node.start()
            run(node, tally, part)
            print(f"{tally.requests} requests, {tally.checked} events found again, fine", flush=True)
            if tally.requests >= count:
                return
    finally:
        if node is not None:
            node.close()


def document(tally: Tally, seconds: float, failure: str) -> str:
    """The report."""
    facts = {
        "date": f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC",
        "seed": tally.seed,
        "seconds": round(seconds),
        "requests": tally.requests,
        "connections": f"{tally.connections}, {CLIENTS} at a time",
        "events answered 200 and found once": tally.checked,
        "result": failure.splitlines()[0] if failure else "no violation",
    }
    lines = ["# Fuzzing the door", "", "`make fuzz`", "", "| | |", "|---|---|"]
    lines += [f"| {name} | {value} |" for name, value in facts.items()]
    for title, counter in (("Answers", tally.statuses), ("Requests", tally.kinds)):
        lines += ["", f"## {title}", "", "| | |", "|---|---|"]
        lines += [f"| {name} | {count} |" for name, count in counter.most_common()]
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    sys.exit(main())
