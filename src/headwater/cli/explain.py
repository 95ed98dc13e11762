"""``headwater explain``."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from headwater.cli import show
from headwater.cli.client import TIMEOUT_S, Node, data_option, data_words, json_option
from headwater.cli.when import HELP, WHEN
from headwater.kit.errors import Unavailable
from headwater.kit.plural import counted

if TYPE_CHECKING:
    from headwater.ops.explain import Copy, Story
    from headwater.ops.find import Looked
    from headwater.ops.known import Known

TELL_AFTER_S, TELL_EACH_S = 2.0, 1.0
ELSEWHERE_S = 600.0
"""How long another node of the cluster may search its raw log."""
EVENT_CHARS, ROW_VALUES = 200, 8
ROW_FIRST = ("event", "type", "timestamp", "anonymous_id", "user_id", "page_url")
"""Columns of a row that are shown first."""
MENDS = ("pending", "unknown")
"""States of a delivery whose command mends what it waits for."""
AS = {"receipt": " (of the request with this receipt)", "position": " (the event at this position)"}


@click.command()
@click.argument("message_id")
@click.option("--since", type=WHEN, metavar="TIME", help=f"Search what was received from then on: {HELP}.")
@click.option("--until", type=WHEN, metavar="TIME", help="Search what was received until then.")
@data_option
@json_option
def explain(message_id: str, since: int | None, until: int | None, data: str, as_json: bool) -> None:
    """Say where an event is, and why: for each copy of MESSAGE_ID, when it was received and with which key, what
    became of it in processing (a row, a duplicate of which other copy, dead and why), and for each destination whether
    it is there, waits (and for what), or was refused.

    Instead of a message id: a receipt, the origin of a dead letter, or an id that was made of a position (hw-…). A text
    that is both a receipt and an origin is taken for both.

    The raw log is searched from end to end (about a second per GiB in memory; --since and --until make it less), in
    a cluster those of all nodes, whichever is asked; one that does not answer is named. It works when the node is
    stopped, too, as far as the raw log and the dead letters tell. Exit code 1: never seen here.

    \b
    headwater explain 7d9f0c2e-1f0b-4c6e-9d55-0c7c1b7f6f11
    headwater explain --since 2h order-4711 --json
    headwater explain 6f1c0b5e9d2a0000-00019a3c5f7e2b41-120
    """
    story = story_of(message_id, since, until, os.path.abspath(data))
    if as_json:
        show.as_json(story)
    else:
        tell(story, data)
    if not story.found:
        show.answer_no(f"{message_id!r} was never seen here, as far as was searched")


def story_of(asked: str, since_ns: int | None, until_ns: int | None, data: str) -> Story:
    """Search the raw log, ask the node, and put both together."""
    from headwater.kit.clock import SystemClock
    from headwater.kit.disk import SystemDisk
    from headwater.node.folder import read_identity, secret_of
    from headwater.ops import explain as explaining
    from headwater.ops import find

    if len(asked) > find.ID_CHARS_MAX:
        raise click.UsageError(f"no message id is longer than {find.ID_CHARS_MAX} characters")
    disk = SystemDisk()
    raw = find.RawLog(disk, f"{data}/raw", secret_of(read_identity(data, disk)))
    progress = progress_on_stderr(SystemClock().boot_ns)
    looked = find.look(raw, asked, since_ns=since_ns, until_ns=until_ns, progress=progress)
    others, silent = elsewhere(data, asked, since_ns, until_ns)
    looked = find.together(looked, others)
    known = known_of(data, looked.message_ids, [*(looked.places or ())])
    known.silent = sorted({*known.silent, *silent})
    return explaining.tell(asked, looked.found, known, looked.searched, looked.damaged, looked.places)


def elsewhere(
    data: str, asked: str, since_ns: int | None, until_ns: int | None
) -> tuple[list[Looked], list[str]]:
    """What the other nodes of the cluster hold of it, and who did not say so; nothing where this one is alone, or does
    not run."""
    from headwater.ops import find

    request = {"id": asked, "since_ns": since_ns, "until_ns": until_ns, "search_s": ELSEWHERE_S}
    try:
        told = Node(data).post("/api/explain/elsewhere", request, timeout_s=ELSEWHERE_S + TIMEOUT_S)
    except Unavailable:
        return [], []
    return [find.of_told(one) for one in told["looked"]], told["silent"]


def known_of(data: str, message_ids: list[str], places: list[tuple[str, str, int]]) -> Known:
    """What the node knows, or what its files tell where it does not run."""
    import msgspec

    from headwater.ops.known import IDS_MAX, PLACES_MAX, Known

    try:
        asked = {"message_ids": message_ids[:IDS_MAX], "places": places[:PLACES_MAX]}
        told = Node(data).post("/api/explain/known", asked)
        return msgspec.convert(told, Known)
    except Unavailable:
        from headwater.kit.disk import SystemDisk
        from headwater.node.stopped import known_of as of_stopped

        return of_stopped(SystemDisk(), data, message_ids, places)


def progress_on_stderr(boot_ns: Callable[[], int]) -> Callable[[int, int], bool]:
    """Tells how far a long search is, each second."""
    begun = told = boot_ns()

    def progress(done: int, total: int) -> bool:
        nonlocal told
        now = boot_ns()
        if now - begun > TELL_AFTER_S * 1e9 and now - told > TELL_EACH_S * 1e9:
            told = now
            click.echo(f"searched {done / 2**30:.1f} of {total / 2**30:.1f} GiB of the raw log", err=True)
        return True

    return progress


def tell(story: Story, data: str) -> None:
    """The story for a person."""
    if story.found:
        click.echo(f"{story.asked}: {counted(len(story.copies) + story.more, 'event')} here")
    for number, copy in enumerate(story.copies, 1):
        click.echo()
        tell_copy(number, copy, data)
    if story.more:
        click.echo(f"\nand {story.more} more")
    click.echo()
    if (raw := story.searched["raw"]) is not None:
        click.echo(searched_text(raw))
    for one in story.not_asked:
        click.echo(f"not asked: {one}")


def tell_copy(number: int, copy: Copy, data: str) -> None:
    """One copy."""
    click.echo(click.style(f"{number}. {copy.position}", bold=True) + AS.get(copy.found_by, ""))
    closed = f", on disk {copy.closed_ms:.1f} ms later" if copy.closed_ms is not None else ""
    if copy.received_at:
        click.echo(f"   received      {copy.received_at} with key {copy.stream}{closed}")
    if copy.request:
        click.echo(f"   request       {copy.request}")
    if copy.message_id:
        click.echo(f"   message id    {show.safe(copy.message_id)}")
    if copy.retry_of:
        click.echo(f"   retry of      dead letter {copy.retry_of}")
    if not copy.in_raw and copy.processing.state != "damaged":
        click.echo("   raw log       does not hold it any more, or was not searched where it stands")
    if copy.event:
        click.echo(
            f"   event         {show.safe(copy.event[:EVENT_CHARS])}{'…' if len(copy.event) > EVENT_CHARS else ''}"
        )
    click.echo(f"   processing    {copy.processing.says}")
    width = max([13, *(len(name) for name in copy.destinations)])
    for name, one in copy.destinations.items():
        click.echo(f"   {name:<{width}} {one.says}")
        if one.row is not None:
            click.echo(f"   {'':<{width}} {row_text(one.row)}")
        if one.command is not None:
            click.echo(
                f"   {'':<{width}} {'mend it with' if one.state in MENDS else 'see'}: {one.command}{data_words(data)}"
            )


def row_text(row: dict[str, Any]) -> str:
    """A few values of a row."""
    rest = [name for name in row if name not in ROW_FIRST and not name.startswith("_hw_")]
    names = [name for name in (*ROW_FIRST, *rest) if name in row and name not in ("message_id", "key_id")]
    shown = ", ".join(f"{name}={show.safe(show.cell(row[name]))[:80]}" for name in names[:ROW_VALUES])
    return shown + (f", … {len(row)} columns in all" if len(names) > ROW_VALUES else "")


def searched_text(raw: dict[str, Any]) -> str:
    """What was searched."""
    if raw["from"] is None:
        return "searched: the raw log, which holds nothing in this time"
    damaged = f", {raw['damaged_events']} of them cannot be read" if raw["damaged_events"] else ""
    cut = f"; stopped: {raw['cut']}" if raw["cut"] else ""
    return f"searched: {counted(raw['events'], 'event')} of the raw log from {raw['from']} to {raw['to']}{damaged}{cut}"
