"""``headwater dead``: what could not be processed or delivered."""

from __future__ import annotations

import click

from headwater.cli import show
from headwater.cli.client import Node, data_option, json_option, segment
from headwater.kit.errors import Rejected


@click.group()
def dead() -> None:
    """Dead letters: events that could not be processed or delivered, each with its bytes and the reason."""


@dead.command("list")
@data_option
@json_option
@click.option(
    "--limit", type=click.IntRange(1, 10_000), default=100, show_default=True, help="How many, newest first."
)
@click.option("--stream", metavar="KEY", help="Of one write key only.")
def list_letters(data: str, as_json: bool, limit: int, stream: str | None) -> None:
    """List the newest. Exit code 1: there is no such stream.

    \b
    headwater dead list --stream web
    """
    node = Node(data)
    letters = node.get("/api/dead", limit=limit, stream=stream)
    columns = ("origin", "stream", "received", "reason", "field", "message_id")
    if as_json:
        show.as_json(letters)
    elif letters:
        show.as_table(columns, ([letter.get(name) for name in columns] for letter in letters))
    if stream is not None and not letters and stream not in (known := streams(node)):
        show.answer_no(f"no stream {stream!r} here: there are {', '.join(known)}")
    if not letters and not as_json:
        click.echo("no dead letters")


def streams(node: Node) -> list[str]:
    """The ids of today's keys, and of those that events came with."""
    keys = {key["id"] for key in node.get("/api/keys")}
    return sorted(keys | {ledger["stream"] for ledger in node.get("/api/reconcile")})


@dead.command("show")
@click.argument("origin")
@data_option
@json_option
def show_letter(origin: str, data: str, as_json: bool) -> None:
    """Show one with its body, by its origin (as `dead list` prints it) or its message id. Exit code 1: there is none.

    A write key in the body is shown as ***.

    \b
    headwater dead show 6f1c0b5e9d2a0000-00019a3c5f7e2b41-119
    """
    try:
        letter = Node(data).get(f"/api/dead/{segment(origin)}")
    except Rejected as error:
        show.answer_no(str(error))
    if as_json:
        show.as_json(letter)
    else:
        show.fields(letter)
