"""``headwater status`` and ``headwater where``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from headwater.cli import show
from headwater.cli.client import Node, data_option, data_words, json_option
from headwater.cli.show import answer_no
from headwater.kit.plural import counted
from headwater.ops.standing import state_text

UNMAPPED_SHOWN = 20


@click.command()
@data_option
@json_option
def status(data: str, as_json: bool) -> None:
    """Show what runs: processes, destinations, events by stream. Exit code 1 when events are not accepted.

    \b
    headwater status
    headwater status --json | jq .streams
    """
    told = Node(data).get("/api/status")
    if as_json:
        show.as_json(told)
    else:
        page(told, data)
    if not told["ready"]:
        answer_no("not ready: " + "; ".join(told["reasons"]))


def page(told: dict[str, Any], data: str) -> None:
    """The status for a person."""
    node = told["node"]
    word = click.style("ready", fg="green") if told["ready"] else click.style("not ready", fg="red")
    click.echo(f"Headwater {node['version']}, {told['state']}, {word}")
    click.echo(f"collector {node['collector']}, ops {node['ops']}")
    if cluster := told.get("cluster"):
        click.echo("destinations and streams: of all nodes; the rest is of this one")
        for name in cluster["silent"]:
            click.echo(click.style(f"  {name} does not answer: what only it knows is missing", fg="yellow"))
    for warning in told["warnings"]:
        click.echo(click.style(f"  {warning}", fg="yellow"))
    columns = ("process", "state", "pid", "restarts", "says")
    show.as_table(
        columns,
        (
            [name, role["state"], role["pid"], role["restarts"], "; ".join(role["reasons"])]
            for name, role in told["roles"].items()
        ),
    )
    show.as_table(*destination_table(told["destinations"]))
    if raw := told.get("raw"):
        held, used, quota = (show.size(raw[name]) for name in ("held_bytes", "bytes", "bytes_max"))
        click.echo(f"raw log: {used} of {quota}, {held} of it still needed{compressed_words(raw)}")
    for name, one in told["destinations"].items():
        if one["command"]:
            click.echo(f"{name} is {state_text(one['state'], one['reason'])}")
            click.echo(f"  mend it with: {one['command']}{data_words(data)}")
    show.as_table(*ledger_table(told["streams"]))
    if told.get("refused"):
        reasons = ", ".join(f"{reason} {count}" for reason, count in told["refused"].items())
        click.echo(f"refused at the door (since the collectors began): {reasons}")
    if told.get("unmapped"):
        click.echo("values without a column, kept in _unmapped (since the process began):")
        names = ("where", "name", "count", "example")
        show.as_table(names, ([one[name] for name in names] for one in told["unmapped"][:UNMAPPED_SHOWN]))


def compressed_words(raw: dict[str, Any]) -> str:
    """What compression saves, as the end of a line; empty where nothing is compressed."""
    told = raw.get("compressed") or {}
    if not told.get("segments"):
        return ""
    plain, disk = show.size(told["plain_bytes"]), show.size(told["disk_bytes"])
    return f"; {counted(told['segments'], 'segment')} compressed from {plain} to {disk}"


def destination_table(destinations: dict[str, dict[str, Any]]) -> tuple[tuple[str, ...], list[list[Any]]]:
    """Destinations as rows; what one has not said since the start is told in words."""
    rows = [
        [
            name,
            state_words(one),
            "unknown" if one["rows_behind"] is None else one["rows_behind"],
            "not since the start"
            if one["last_load_age_s"] is None
            else f"{show.time(one['last_load_age_s'])} ago",
            "unknown" if one["lag_s"] is None else show.time(one["lag_s"]),
        ]
        for name, one in destinations.items()
    ]
    return ("destination", "state", "rows behind", "last load", "lag"), rows


def state_words(one: dict[str, Any]) -> str:
    """The state of a destination, how far it is on its way back to the chain, and whether it is written off."""
    words = str(one["state"]).replace("_", " ")
    if progress := one.get("catching_up"):
        words = f"catching up, {progress['events_left']} of {progress['events']} events left"
    return f"{words}, written off" if one.get("written_off") else words


def ledger_table(streams: list[dict[str, Any]]) -> tuple[tuple[str, ...], list[list[Any]]]:
    """Streams as rows; a row for each destination where they differ."""
    names = ("delivered", "pending", "dead", "duplicate", "filtered", "erased", "damaged", "holds")
    told = [(one, by_destination(one, names)) for one in streams]
    if not any(apart for _, apart in told):
        return ("stream", "accepted", *names), [
            [one["stream"], one["accepted"], *(one[name] for name in names)] for one in streams
        ]
    rows = [
        [one["stream"], name, one["accepted"], *(numbers[kind] for kind in names)]
        for one, apart in told
        for name, numbers in (apart or {"all": one}).items()
    ]
    return ("stream", "destination", "accepted", *names), rows


def by_destination(ledger: dict[str, Any], names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The destinations of one stream; empty where all of them say the same."""
    found = ledger.get("destinations") or {}
    return found if len({tuple(one[name] for name in names) for one in found.values()}) > 1 else {}


@click.command()
@click.argument("receipt")
@data_option
@json_option
def where(receipt: str, data: str, as_json: bool) -> None:
    """Say how far the events of RECEIPT have come. Exit code 1 until every destination has them.

    In a cluster any node can be asked: the one that accepted the request says whether it is safe, the owners of the
    partitions say how far it is.

    A receipt stands in the collector's answer: `{"ok": true, …, "receipt": "…"}`.

    \b
    headwater where 6f1c0b5e9d2a0000-00019a3c5f7e2b41-120
    """
    told = Node(data).get("/api/where", receipt=receipt)
    if as_json:
        show.as_json(told)
    else:
        steps = {"acknowledged": told["acknowledged"], "processed": told["processed"], **told["destinations"]}
        show.fields(steps)
    missing = [name for name, there in told["destinations"].items() if not there]
    if not told["acknowledged"]:
        if told["acknowledged"] is None:
            answer_no(f"not known: {', '.join(told['silent'])}, which accepted it, does not answer")
        answer_no("no such acknowledged request here")
    unheard = f"; {', '.join(told['silent'])} did not answer" if told.get("silent") else ""
    if not told["processed"]:
        answer_no(f"not processed yet{unheard}")
    if missing:
        answer_no(f"not yet in {', '.join(missing)}{unheard}")
