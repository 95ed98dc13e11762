"""``headwater reconcile``."""

from __future__ import annotations

import click

from headwater.cli import show
from headwater.cli.client import Node, data_option, json_option
from headwater.cli.status import ledger_table


@click.command()
@data_option
@json_option
def reconcile(data: str, as_json: bool) -> None:
    """Prove that nothing is lost: where every accepted event is now, per stream and destination.

    accepted = delivered + pending + dead + duplicate + filtered + erased + damaged. Exit code 1 when an equation does
    not hold; it says which.

    \b
    headwater reconcile
    headwater reconcile --json | jq '.[] | {stream, pending, holds}'
    """
    ledgers = Node(data).get("/api/reconcile")
    if as_json:
        show.as_json(ledgers)
    else:
        show.as_table(*ledger_table(ledgers))
    problems = [f"{one['stream']}: {problem}" for one in ledgers for problem in one["problems"]]
    if problems or not all(one["holds"] for one in ledgers):
        show.answer_no("\n".join(problems))
