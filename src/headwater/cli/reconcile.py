"""``headwater reconcile``."""

from __future__ import annotations

from typing import Any

import click

from headwater.cli import show
from headwater.cli.client import TIMEOUT_S, Node, data_option, json_option
from headwater.cli.status import ledger_table
from headwater.ops.deep import notes

DESTINATIONS_MAX = 16
"""They are counted one after the other; more of them may take longer than this command waits."""


@click.command()
@data_option
@json_option
@click.option("--deep", is_flag=True, help="Count the rows in the destinations too, and compare.")
@click.option(
    "--timeout",
    type=click.FloatRange(1, 86_400),
    default=600.0,
    show_default=True,
    metavar="SECONDS",
    help="How long counting in one destination may take.",
)
def reconcile(data: str, as_json: bool, deep: bool, timeout: float) -> None:
    """Prove that nothing is lost: where every accepted event is now, per stream and destination.

    accepted = delivered + pending + dead + duplicate + filtered + erased + damaged. Exit code 1 when an equation does
    not hold; it says which. Where destinations differ, each has a line of its own.

    --deep believes no counter: in each destination it counts the rows of every stream and partition and compares them
    with the position rows, in one snapshot, while loads go on; it looks for rows of one origin that stand there twice,
    which is an error, and for copies of a message id, which are told (copies that came further apart than
    process.dedupe_window_s are rows of their own). It reads whole tables: minutes for some 100 million rows.

    \b
    headwater reconcile
    headwater reconcile --deep --timeout 3600
    headwater reconcile --json | jq '.[] | {stream, pending, holds}'
    """
    asked = {"deep": 1, "timeout": timeout} if deep else {}
    wait_s = TIMEOUT_S + DESTINATIONS_MAX * timeout if deep else TIMEOUT_S
    ledgers = Node(data).get("/api/reconcile", timeout_s=wait_s, **asked)
    if as_json:
        show.as_json(ledgers)
    else:
        show.as_table(*ledger_table(ledgers))
        if deep:
            show.as_table(*deep_table(ledgers))
            for note in notes(ledgers):
                click.echo(note)
    problems = [f"{one['stream']}: {problem}" for one in ledgers for problem in one["problems"]]
    if problems or not all(one["holds"] for one in ledgers):
        show.answer_no("\n".join(problems))


def deep_table(ledgers: list[dict[str, Any]]) -> tuple[tuple[str, ...], list[list[Any]]]:
    """What was counted, a line for each stream and destination."""
    names = (
        "stream",
        "destination",
        "rows counted",
        "rows accounted for",
        "of one origin twice",
        "copies of ids",
    )
    rows = [
        [ledger["stream"], name, *(deep.get(key) for key in ("counted", "said", "doubled_rows", "copies"))]
        for ledger in ledgers
        for name, one in ledger["destinations"].items()
        for deep in (one["deep"],)
    ]
    return names, rows
