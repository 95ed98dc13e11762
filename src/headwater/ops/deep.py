"""``reconcile --deep``: ledgers with what destinations really hold, and in words what differs and what to do.

Pure functions over the ledgers and what each destination's process counted (destinations/duckdb/deep.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from headwater.kit.plural import counted

PARTITIONS_SHOWN = 5

Counted = Mapping[str, Any]
"""Stream → what a destination counted; or ``error``: why it could not be counted."""


def with_counts(ledgers: Sequence[dict[str, Any]], found: Mapping[str, Counted]) -> list[dict[str, Any]]:
    """The ledgers (reconcile.as_json) with ``deep`` below each destination, and problems where it differs.

    ``found``: destination → {"streams": {...}} or {"error": text}."""
    names = {ledger["stream"] for ledger in ledgers}
    strange = sorted({stream for one in found.values() for stream in one.get("streams", {})} - names)
    told = [with_count(ledger, found) for ledger in ledgers]
    return told + [unknown_stream(stream, found) for stream in strange]


def with_count(ledger: dict[str, Any], found: Mapping[str, Counted]) -> dict[str, Any]:
    """One ledger."""
    problems = list(ledger["problems"])
    destinations = {name: dict(one) for name, one in ledger["destinations"].items()}
    for name, one in destinations.items():
        told = found.get(name, {"error": "it was not asked"})
        if "error" in told:
            one["deep"] = {"error": told["error"]}
            wrong = [f"its rows could not be counted: {told['error']}"]
        else:
            one["deep"] = told["streams"].get(ledger["stream"]) or nothing()
            wrong = problems_of(one["deep"])
        problems += [f"{name}: {problem}" for problem in wrong]
        one["holds"] = one["holds"] and not wrong
    return {
        **ledger,
        "destinations": destinations,
        "problems": problems,
        "holds": ledger["holds"] and all(one["holds"] for one in destinations.values()),
    }


def nothing() -> dict[str, Any]:
    """Of a stream without rows."""
    return {
        "counted": 0, "said": 0, "differences": [], "doubled_rows": 0, "doubled_examples": [],
        "copies": 0, "copies_apart_s": None,
    }  # fmt: skip


def unknown_stream(stream: str, found: Mapping[str, Counted]) -> dict[str, Any]:
    """Rows of a stream that no log knows: somebody changed their key_id, or wrote them."""
    zeros = dict.fromkeys(
        ("accepted", "delivered", "pending", "dead", "duplicate", "filtered", "erased", "damaged"), 0
    )
    ledger = {"stream": stream, **zeros, "holds": True, "problems": []}
    there = {name: one for name, one in found.items() if stream in one.get("streams", {})}
    return with_count({**ledger, "destinations": {name: {**zeros, "holds": True} for name in there}}, there)


def problems_of(deep: Mapping[str, Any]) -> list[str]:
    """What is wrong with a stream in a destination; copies of an id are none."""
    problems = []
    if differences := deep["differences"]:
        shown = ", ".join(
            f"partition {one['partition']}: {one['counted']} of {one['said']}"
            for one in differences[:PARTITIONS_SHOWN]
        )
        more = (
            f" and {len(differences) - PARTITIONS_SHOWN} more" if len(differences) > PARTITIONS_SHOWN else ""
        )
        problems.append(
            f"the table holds {counted(deep['counted'], 'row')}, the position rows account for "
            f"{deep['said']} ({shown}{more}); {remedy(deep)}"
        )
    if deep["doubled_rows"]:
        problems.append(
            f"{counted(deep['doubled_rows'], 'row')} stand there twice, of one origin: "
            f"{', '.join(deep['doubled_examples'])}; nothing in Headwater does that: keep one of each "
            "(`DELETE … WHERE rowid NOT IN (SELECT min(rowid) … GROUP BY _hw_writer, _hw_log, _hw_seq, _hw_row)`) "
            "and tell us"
        )
    return problems


def remedy(deep: Mapping[str, Any]) -> str:
    """What to do about rows that are too few or too many."""
    fewer = any(one["counted"] < one["said"] for one in deep["differences"])
    more = any(one["counted"] > one["said"] for one in deep["differences"])
    if fewer and more:
        return (
            "rows were changed by hand (key_id or _hw_partition), or deleted and inserted: whoever did it can undo "
            "it; restore a copy of the table and let it fill up otherwise"
        )
    if fewer:
        return (
            "rows were deleted by hand, or the file lost them: restore a copy of the file, and what came since is "
            "loaded again from the raw log"
        )
    return "rows were inserted by hand with Headwater's columns: delete those"


def notes(ledgers: Sequence[Mapping[str, Any]]) -> list[str]:
    """What is no problem, and worth a line."""
    return [
        f"{ledger['stream']}: {name}: {counted(deep['copies'], 'row')} more than message ids, the closest two received "
        f"{deep['copies_apart_s']:g} s apart: copies further apart than process.dedupe_window_s are rows of their own"
        for ledger in ledgers
        for name, one in ledger["destinations"].items()
        if (deep := one.get("deep", {})).get("copies")
    ]
