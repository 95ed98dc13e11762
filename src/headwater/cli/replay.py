"""``headwater replay``."""

from __future__ import annotations

import datetime
from typing import Any

import click

from headwater.cli import show
from headwater.cli.client import Node, data_option, data_words, json_option, segment
from headwater.cli.when import HELP, WHEN

destination_option = click.option(
    "--destination", metavar="NAME", help="Which destination; the first one when it is not named."
)


@click.group(invoke_without_command=True)
@click.option("--from", "begin", type=WHEN, metavar="TIME", help=f"Received after this: {HELP}.")
@click.option("--to", "end", type=WHEN, metavar="TIME", help="Received up to this.")
@click.option("--into", metavar="SUFFIX", default="", help="Into a new table events_SUFFIX.")
@click.option(
    "--rate", type=click.FloatRange(min=0, min_open=True), metavar="N",
    help="Events per second; else the setting replay_events_per_s.",
)  # fmt: skip
@click.option("--partial", is_flag=True, help="Also where the raw log no longer holds the beginning.")
@click.option("--dry-run", is_flag=True, help="Say what would be done.")
@destination_option
@data_option
@json_option
@click.pass_context
def replay(
    context: click.Context,
    begin: int | None,
    end: int | None,
    into: str,
    rate: float | None,
    partial: bool,
    dry_run: bool,
    destination: str | None,
    data: str,
    as_json: bool,
) -> None:
    """Process the raw log again, with today's configuration, while the node runs.

    For columns and enrichment that were wrong or missing when events came in. Every row of an event that was received
    between the two times is made again, in place: nothing is doubled, nothing is lost, and fresh events go on. Dead
    letters that processing accepts today become rows, when they are older than the dedupe window; rows that somebody
    deleted stay away.

    \b
    headwater replay --from 2026-11-20T09:00 --to 2026-11-20T12:00 --dry-run
    headwater replay --from 2026-11-20T09:00 --to 2026-11-20T12:00
    headwater replay --from 3h --to now --into try1     a table beside it: events_try1
    headwater replay status                             how far it is, and how long it takes
    headwater replay cancel 4                           end it where it stands
    headwater replay drop try1                          remove events_try1

    A replay survives a restart and kill -9: it goes on where it stood. The raw log reaches back `log.retain_s` at
    least, as long as there is room (`data_bytes_max`).
    """
    if context.invoked_subcommand is not None:
        return
    if begin is None or end is None:
        raise click.UsageError("--from and --to are both needed: headwater replay --from 3h --to now")
    request = {"do": "start", "from_ns": begin, "to_ns": end, "into": into, "rate": rate}
    told = ask(data, destination, {**request, "partial": partial, "dry_run": dry_run})
    if as_json:
        show.as_json(told)
        return
    what = f"{told['events']} events into {told['table']}, about {show.time(told['seconds'])}"
    if told["missing"]:
        click.echo(f"not all of it is there: {told['missing']}")
    if told["id"] is None:
        click.echo(f"would replay {what}")
    else:
        click.echo(f"replay {told['id']}: {what}\n  watch it with: headwater replay status{data_words(data)}")


def ask(data: str, destination: str | None, request: dict[str, Any]) -> Any:
    """The answer of the destination's process."""
    node = Node(data)
    if destination is None:
        destination = next(iter(node.get("/api/status")["destinations"]), "")
    return node.post(f"/api/destinations/{segment(destination)}/replay", request)


def states(data: str, destination: str | None, as_json: bool, only_open: bool) -> None:
    """Replays as a table."""
    told = ask(data, destination, {"do": "list"})["replays"]
    shown = [one for one in told if not only_open or one["state"] in ("waiting", "running", "failed")]
    if as_json:
        show.as_json(shown)
        return
    if not shown:
        click.echo("no replay is under way" if only_open else "no replays")
        return
    columns = ("id", "state", "table", "from", "to", "done", "left", "rows", "gained", "lost", "refused")
    show.as_table(columns, map(line, shown))
    for one in shown:
        if one["reason"]:
            click.echo(f"replay {one['id']}: {one['reason']}")
        if one["unread"]:
            click.echo(
                f"replay {one['id']}: {one['unread']} events are damaged, or no longer in the raw log: their rows stay"
            )
        if one["too_young"]:
            click.echo(
                f"replay {one['id']}: {one['too_young']} dead letters would be rows now, and are younger than the "
                "dedupe window: replay them later"
            )


def line(one: dict[str, Any]) -> list[Any]:
    """A replay as cells."""
    share = 100 * one["done"] // one["events"] if one["events"] else 100
    left = show.time(one["seconds_left"]) if one["seconds_left"] else ""
    times = [text_of(one[name]) for name in ("from_ns", "to_ns")]
    done = f"{one['done']} of {one['events']} ({share} %)"
    counts = [one[name] for name in ("rows", "gained", "lost", "refused")]
    return [one["id"], one["state"], one["table"], *times, done, left, *counts]


def text_of(time_ns: int) -> str:
    """A time for people, UTC."""
    return f"{datetime.datetime.fromtimestamp(time_ns / 1e9, datetime.UTC):%Y-%m-%dT%H:%M:%SZ}"


@replay.command()
@destination_option
@data_option
@json_option
def status(destination: str | None, data: str, as_json: bool) -> None:
    """Show the replays that are under way, or failed.

    \b
    headwater replay status
    headwater replay status --json | jq '.[] | {done, events, seconds_left}'
    """
    states(data, destination, as_json, only_open=True)


@replay.command("list")
@destination_option
@data_option
@json_option
def list_replays(destination: str | None, data: str, as_json: bool) -> None:
    """List the replays that are known, those that have ended too.

    \b
    headwater replay list
    """
    states(data, destination, as_json, only_open=False)


@replay.command()
@click.argument("number", metavar="ID")
@destination_option
@data_option
def cancel(number: str, destination: str | None, data: str) -> None:
    """End a replay where it stands. What it has made again stays.

    \b
    headwater replay cancel 4
    """
    told = ask(data, destination, {"do": "cancel", "id": number})
    click.echo(f"replay {number} is cancelled: {told['done']} of {told['events']} events were done")


@replay.command()
@click.argument("number", metavar="ID")
@destination_option
@data_option
def resume(number: str, destination: str | None, data: str) -> None:
    """Go on with a replay that failed, where it stood.

    \b
    headwater replay resume 4
    """
    ask(data, destination, {"do": "resume", "id": number})
    click.echo(f"replay {number} goes on")


@replay.command()
@click.argument("into", metavar="SUFFIX")
@destination_option
@data_option
def drop(into: str, destination: str | None, data: str) -> None:
    """Remove the table events_SUFFIX that a replay made.

    \b
    headwater replay drop try1
    """
    told = ask(data, destination, {"do": "drop", "into": into})
    click.echo(f"{told['dropped']} is gone")
