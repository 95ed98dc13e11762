"""``headwater identity``: who is linked to what, and taking a link back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from headwater.cli import show as shown
from headwater.cli.client import Node, data_option, json_option
from headwater.cli.when import HELP, WHEN
from headwater.kit.plural import counted

POLL_S = 0.3
destination_option = click.option(
    "--destination", metavar="NAME", help="Which one is asked; by default the first that keeps facts."
)
STATES = {
    "linked": "linked",
    "unlinked": "not linked any more",
    "shared": "a shared device: it has too many users, so its events stay anonymous",
    "junk": "a junk id: it names nobody, and is never linked",
    "anonymous": "linked to nobody so far",
}


@click.group()
def identity() -> None:
    """Who an anonymous visitor was: what is known of it, by which event, and taking it back."""


@identity.command()
@click.argument("id")
@destination_option
@data_option
@json_option
def show(id: str, destination: str | None, data: str, as_json: bool) -> None:
    """Show who is linked to ID, an anonymous id or a user id: since when, by which event, and how many rows carry it.

    For a user id, every anonymous id (device, browser) that names this user. A link is `linked`, `unlinked` (taken back
    by hand), or `shared`. `rows` are those whose events named the user themselves, `recognised` those that did not, and
    carry the user since. Exit code 1: nothing is known of ID.

    \b
    headwater identity show 8d1f9c1e-41b7-4ef1-9d55-0c7c1b7f6f11
    headwater identity show ada@example.com --json | jq -r '.visitors[].anonymous_id'
    """
    told = Node(data).get("/api/identity", id=id, destination=destination)
    if as_json:
        shown.as_json(told)
    else:
        tell(told)
    if not told["visitors"]:
        why = ": it is a junk id, which names nobody and is never linked" if told["junk"] else ""
        shown.answer_no(f"nothing is known of {shown.safe(id)}{why}")


def tell(told: dict[str, Any]) -> None:
    """For a person."""
    for visitor in told["visitors"]:
        click.echo(headline(visitor))
        if visitor["links"]:
            shown.as_table(*table_of(visitor["links"]))
    if told["more"]:
        click.echo(f"and more anonymous ids; these {len(told['visitors'])} have the newest facts", err=True)


def headline(visitor: dict[str, Any]) -> str:
    """One anonymous id in a line."""
    parts = [f"{shown.safe(visitor['anonymous_id'])}: {STATES[visitor['state']]}"]
    if visitor["logouts"]:
        parts.append(counted(visitor["logouts"], "logout"))
    parts.append(f"{counted(visitor['rows_anonymous'], 'row')} without a user")
    if not visitor["settled"]:
        parts.append("its rows are being corrected")
    return "; ".join(parts)


def table_of(links: list[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Links as rows of a table."""
    names = ["user", "state", "since", "by", "message_id", "rows", "recognised"]
    rows = [
        [
            shown.safe(link["user_id"]),
            link["state"] + (f" at {short(link['unlinked_at'])}" if link["state"] == "unlinked" else ""),
            short(link["since"]),
            link["kind"],
            shown.safe(link["message_id"]),
            link["rows_own"],
            link["rows_recognised"],
        ]
        for link in links
    ]
    return names, rows


def short(time: str) -> str:
    """A time without parts of a second."""
    return time[:19].replace("T", " ")


@identity.command()
@click.option("--since", type=WHEN, metavar="TIME", help=f"From then on: {HELP}.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=100, show_default=True, help="How many.")
@destination_option
@data_option
@json_option
def log(since: int | None, limit: int, destination: str | None, data: str, as_json: bool) -> None:
    """List the newest facts: logins, first events with both ids, logouts, links taken back; each with its event.

    Newest first, by the time at which it happened. A first event stands once for an anonymous id and a user.

    \b
    headwater identity log --since 1h
    headwater identity log --json | jq -r '.[] | select(.kind == "unlink") | .message_id'
    """
    since_us = None if since is None else since // 1000
    told = Node(data).get("/api/identity/log", since_us=since_us, limit=limit, destination=destination)
    facts = told["facts"]
    if as_json:
        shown.as_json(facts)
    elif facts:
        names = ["time", "kind", "anonymous_id", "user_id", "message_id"]
        rows = [[short(one["time"]), *(shown.safe(one[name] or "") for name in names[1:])] for one in facts]
        shown.as_table(names, rows)
    else:
        click.echo("no facts")
    if len(facts) == limit:
        click.echo(f"the newest {limit}; more with --limit", err=True)


@identity.command()
@click.argument("anonymous")
@click.argument("user")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option(
    "--wait", type=click.FloatRange(0, 600), default=15.0, show_default=True, metavar="SECONDS",
    help="How long to wait until the rows follow.",
)  # fmt: skip
@destination_option
@data_option
@json_option
def unlink(
    anonymous: str, user: str, yes: bool, wait: float, destination: str | None, data: str, as_json: bool
) -> None:
    """Take back what links the anonymous id ANONYMOUS to USER until now; rows that carry USER by it follow.

    It is accepted durably, as an event is, and stands in the raw log, so every destination learns it. Rows whose own
    events named USER keep it. What comes later counts again: the next login of USER there links them anew. Once taken
    back, doing it again changes nothing. Exit code 1: nothing links the two, or the rows do not follow in time (they
    do later).

    \b
    headwater identity unlink 8d1f9c1e-41b7-4ef1-9d55-0c7c1b7f6f11 ada@example.com
    headwater identity unlink kiosk-7 ada@example.com --yes --json
    """
    if as_json and not yes:
        raise click.UsageError("--json asks nothing: add --yes")
    node = Node(data)
    link = link_of(visitor_of(node, anonymous, destination), user)
    if link is None:
        shown.answer_no(f"nothing links {shown.safe(anonymous)} to {shown.safe(user)}")
    if link["state"] == "unlinked":
        done = {"message_id": link["unlinked_by"], "receipt": None, "state": "unlinked_before", "link": link}
        return said(done, f"taken back already, at {short(link['unlinked_at'])}", as_json=as_json)
    if not yes:
        click.echo(f"{shown.safe(anonymous)} is linked to {shown.safe(user)}:")
        shown.as_table(*table_of([link]))
        rows = counted(link["rows_recognised"], "row")
        if not click.confirm(f"Take this back? {rows} would lose the user", err=True):
            shown.answer_no("nothing was done")
    told = node.post("/api/identity/unlink", {"anonymous_id": anonymous, "user_id": user})
    after = waited(wait, lambda: followed(node, anonymous, user, destination, told["message_id"]))
    if after is None:
        pending = {**told, "state": "accepted", "link": link}
        said(pending, f"accepted as {told['message_id']}, receipt {told['receipt']}", as_json=as_json)
        shown.answer_no(
            f"the rows do not follow yet, after {wait:g} s; they will: see `headwater identity show`"
        )
    freed = max(0, link["rows_recognised"] - after["rows_recognised"])
    words = f"taken back by {told['message_id']}: {counted(freed, 'row')} lost the user"
    if after["state"] != "unlinked":
        words += f"; a later login of {short(after['since'])} links them still ({after['message_id']})"
    said({**told, "state": after["state"], "link": after}, words, as_json=as_json)


def said(told: dict[str, Any], words: str, *, as_json: bool) -> None:
    """The outcome, for programs or for people."""
    if as_json:
        shown.as_json(told)
    else:
        click.echo(words)


def visitor_of(node: Node, anonymous: str, destination: str | None) -> dict[str, Any] | None:
    """What is known of an anonymous id."""
    told = node.get("/api/identity", id=anonymous, destination=destination)
    return next((one for one in told["visitors"] if one["anonymous_id"] == anonymous), None)


def link_of(visitor: dict[str, Any] | None, user: str) -> dict[str, Any] | None:
    """Its link to a user; None: there never was one."""
    links = [] if visitor is None else visitor["links"]
    return next((one for one in links if one["user_id"] == user), None)


def followed(
    node: Node, anonymous: str, user: str, destination: str | None, message_id: str
) -> dict[str, Any] | None:
    """The link once this unlink is known and the rows agree with it."""
    visitor = visitor_of(node, anonymous, destination)
    link = link_of(visitor, user)
    if visitor is None or link is None or not visitor["settled"] or link["unlinked_by"] != message_id:
        return None
    return link


def waited(wait_s: float, ready: Callable[[], dict[str, Any] | None]) -> dict[str, Any] | None:
    """What is ready within the time; None: nothing."""
    from headwater.kit.clock import SystemClock

    clock = SystemClock()
    end_ns = clock.boot_ns() + int(wait_s * 1e9)
    while (found := ready()) is None and clock.boot_ns() < end_ns:
        clock.block(POLL_S)
    return found
