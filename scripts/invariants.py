"""docs/invariants.md: the invariants of the main road, and the tests that name them.

A test belongs to an invariant when its name (`inv_log_1`), its docstring or its body says so. Those marked
`broken_variant` run code with one mistake in it: they fail unless the mistake is found.
"""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

INVARIANTS = {
    "LOG-1": "no 2xx at `disk` before the watermark covers the event; at most one block is unsynced",
    "LOG-2": "nobody uses a block above the watermark",
    "LOG-3": "a block belongs to a log only when magic, hash, log id and first number agree; no number is given twice",
    "LOG-4": "a log is appended to by its creator only, and its end is decided once",
    "LOG-5": "the logs of a writer are consumed in order",
    "ORD-1": "no cut holds an event without those that were acknowledged before it was received",
    "PROC-1": "a commit is durable before anything of it is visible; half a commit is nothing",
    "PROC-2": "every output is caused by an input that the commit's target covers",
    "PROC-3": "state on disk is a fold of the commits",
    "PROC-4": "the configuration's epoch along a chain never falls",
    "DST-1": "only a step writes, and it compares before it writes, in the destination",
    "DST-2": "a commit may be delivered for some of its partitions",
    "DST-3": "a destination's trouble changes neither another destination's progress nor the chain",
    "DST-4": "no row before the table fits",
    "LED-1": "each number is written in the atomic step that it counts",
    "CLU-1": "tables are totally ordered, and a node adopts only greater ones",
    "CLU-2": "two owners of a partition never both have effect: each step compares, in the destination",
    "OWN-1": "no step of a takeover is needed for safety: an old base or a living former owner costs work, never rows",
    "OWN-2": "a node works on a partition only by the newest table that it knows, and while it sees enough members",
    "LANE-1": "an owner takes of a log only what begins where its mirror of it ends, else it asks again from there",
    "LANE-2": "a home gives back nothing that the owner of any partition, by the newest table, may still ask for",
    "STATE": "the state at a position is a function of the set of events below it",
    "DEST": "each message id has exactly one event's rows in a destination; rows and position move together",
}
ID = re.compile(r"INV-([A-Z]+(?:-\d)?)|inv_([a-z]+(?:_\d)?)(?=_)")
MARKER = "broken_variant"


class Named(NamedTuple):
    """A test that names an invariant."""

    path: str
    test: str
    broken: bool
    """Whether it runs a broken variant."""


@cache
def named_by_tests(root: Path) -> dict[str, list[Named]]:
    """Invariant → the tests that name it, in order."""
    found: dict[str, list[Named]] = {name: [] for name in INVARIANTS}
    for path in sorted((root / "tests").rglob("test_*.py")):
        text = path.read_text()
        lines = text.splitlines()
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                own = f"{node.name}_ " + "\n".join(lines[node.lineno - 1 : node.end_lineno])
                for name in sorted(
                    {(a or b).upper().replace("_", "-") for a, b in ID.findall(own)} & found.keys()
                ):
                    found[name].append(Named(str(path.relative_to(root)), node.name, is_broken(node)))
    return found


def is_broken(test: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether a test has the marker."""
    return any(MARKER in ast.unparse(decorator) for decorator in test.decorator_list)


def document(root: Path) -> str:
    """The whole text."""
    lines = [
        "# Invariants and their tests\n",
        "The rules that hold (protocol.md §0–5, §9, §13), and the tests that name them. *Broken variant*:",
        "the test runs code that breaks the rule and fails unless the oracle finds it.\n",
    ]
    for name, tests in named_by_tests(root).items():
        lines.append(f"## INV-{name}\n\n{INVARIANTS[name]}\n")
        for one in tests:
            mark = " — broken variant" if one.broken else ""
            lines.append(f"* `{one.path}`: `{one.test}`{mark}")
        lines.append("")
    return "\n".join(lines)
