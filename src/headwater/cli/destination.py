"""``headwater destination``."""

from __future__ import annotations

from typing import Any

import click

from headwater.cli import show
from headwater.cli.client import Node, data_option, data_words, json_option, segment


@click.group()
def destination() -> None:
    """Decisions about a destination that only a person can take. `headwater status` lists the destinations."""


@destination.command()
@click.argument("name")
@click.option(
    "--from",
    "begin",
    type=click.Choice(["now", "here", "beginning"]),
    required=True,
    help="now: with what comes from now on; here: what it says it holds is right; beginning: all that is kept.",
)
@data_option
@json_option
def adopt(name: str, begin: str, data: str, as_json: bool) -> None:
    """Let a paused destination go on from where this says.

    A destination pauses when its file is missing, older than remembered, or newly added beside others; `headwater
    status` says which, and the command that mends it. In a cluster every node decides for its own partitions, those of
    them that wait for this decision.

    \b
    headwater destination adopt warehouse --from now
    """
    told = Node(data).post(f"/api/destinations/{segment(name)}/adopt", {"from": begin})
    if as_json:
        show.as_json(told)
    else:
        show.fields({key: value for key, value in told.items() if key not in ("nodes", "silent")})
    at_nodes(told, ("not_paused",), quiet=as_json)


@destination.command()
@click.argument("name")
@click.option(
    "--reason", default="", metavar="TEXT", help="Why, for whoever looks at `headwater status` later."
)
@data_option
@json_option
def pause(name: str, reason: str, data: str, as_json: bool) -> None:
    """Load nothing into a destination until `headwater destination resume`, restarts of the node included.

    The step under way ends first. The destination still answers SQL; events are accepted and processed, other
    destinations go on, and what this one lacks waits in the logs. So a pause costs room: when the raw log is full
    (`data_bytes_max`), new events are refused. `headwater status` shows the pause and how much waits.

    In a cluster every node pauses, each for its own partitions, whichever is asked. Exit code 1 names those that did
    not answer: ask again. A node that joins later delivers until it is asked, too.

    \b
    headwater destination pause warehouse --reason "copying the file until noon"
    """
    told = Node(data).post(f"/api/destinations/{segment(name)}/pause", {"reason": reason})
    if as_json:
        show.as_json(told)
    else:
        because = f": {told['reason']}" if told["reason"] else ""
        click.echo(f"{name} is paused since {told['since']}{because}")
        click.echo(f"go on with: headwater destination resume {name}{data_words(data)}")
    at_nodes(told, (), quiet=as_json)


@destination.command()
@click.argument("name")
@data_option
@json_option
def resume(name: str, data: str, as_json: bool) -> None:
    """End the pause of `headwater destination pause`: what has waited is loaded, each event once.

    A pause that the node made itself ends when its cause does; `headwater status` names the command that mends it.

    \b
    headwater destination resume warehouse
    """
    told = Node(data).post(f"/api/destinations/{segment(name)}/resume", {})
    if as_json:
        show.as_json(told)
    else:
        click.echo(f"{name} goes on; it was paused since {told['since']}")
    at_nodes(told, ("not_held",), quiet=as_json)


@destination.command("write-off")
@click.argument("name")
@data_option
@json_option
def write_off(name: str, data: str, as_json: bool) -> None:
    """Let the raw log go though NAME lacks what is in it.

    The raw log keeps what a destination lacks until it is full; then new events are refused. After this the oldest of
    them are given up when room is needed. When the destination comes back it takes what is left; the rest is counted
    as `filtered`. For always: `destinations.NAME.on_raw_full: write_off`.

    \b
    headwater destination write-off warehouse
    """
    told = Node(data).post(f"/api/destinations/{segment(name)}/write-off", {})
    if as_json:
        show.as_json(told)
    else:
        click.echo(f"{name} is written off: the raw log gives up what it lacks when room is needed")
    at_nodes(told, (), quiet=as_json)


def at_nodes(told: dict[str, Any], fine: tuple[str, ...], *, quiet: bool) -> None:
    """In a cluster, where it was done. Exit code 1 where some node did not do it; ``fine`` are codes of errors that say
    that there was nothing to do."""
    nodes: dict[str, dict[str, Any]] = told.get("nodes", {})
    done = [name for name, one in nodes.items() if "error" not in one]
    if nodes and not quiet:
        click.echo(f"at {', '.join(done)}")
    wrong = [
        f"{name}: {one['error']}" for name, one in nodes.items() if "error" in one and one["code"] not in fine
    ]
    wrong += [f"{name} does not answer" for name in told.get("silent", [])]
    if wrong:
        show.answer_no(f"not everywhere, ask again: {'; '.join(wrong)}")
