"""``headwater dead``: what could not be processed or delivered."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterable, Iterator
from typing import IO, TYPE_CHECKING, Any

import click
import msgspec

from headwater.cli import show
from headwater.cli.client import TIMEOUT_S, Node, data_option, json_option, segment
from headwater.cli.when import HELP, WHEN
from headwater.kit.errors import Rejected, Unavailable
from headwater.kit.plural import counted
from headwater.ops.everywhere import key_of

if TYPE_CHECKING:
    from headwater.node.dead_letters import NodeDeadLetters, Wanted

LIST_WIDTHS = {"reason": 60, "field": 24, "message_id": 40, "stream": 20}
"""Characters of a cell in the list; `dead show` and --json have all of it."""
AT_ONCE, BYTES_AT_ONCE = 100, 8 * 1024 * 1024
"""Letters, and bytes of corrected bodies, of one request to the node."""
GOOD = ("there", "duplicate", "would_send", "part_of", "retried_before")
"""Results after which nothing is left to do."""


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
@click.option("--reason", metavar="TEXT", help="Only where TEXT is part of the reason.")
def list_letters(data: str, as_json: bool, limit: int, stream: str | None, reason: str | None) -> None:
    """List the newest. Exit code 1: there is no such stream.

    Long reasons and ids are cut in the table; `dead show` and --json have all of them. In a cluster these are the dead
    letters of all nodes, and `node` says which holds one; nodes that do not answer are named.

    \b
    headwater dead list --stream web
    headwater dead list --json | jq -r .[].origin
    """
    node = Node(data)
    letters = node.get("/api/dead", limit=limit, stream=stream, reason=reason)
    if node.silent:
        click.echo(f"without those of {node.silent}, which did not answer", err=True)
    if as_json:
        show.as_json(letters)
    elif letters:
        show.as_table(*list_table(letters))
    if stream is not None and not letters and stream not in (known := streams(node)):
        show.answer_no(f"no stream {stream!r} here: there are {', '.join(known)}")
    if not letters and not as_json:
        click.echo("no dead letters")


def list_table(letters: list[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """The letters as rows of bounded width; columns that none of them has are left out."""
    rows = [
        {
            **letter,
            "received": str(letter.get("received") or "")[:19].replace("T", " "),
            "retried": "yes" if letter.get("retried_as") else "uncertain" if letter.get("retried_at") else "",
        }
        for letter in letters
    ]
    names = (
        "origin",
        "node",
        "stream",
        "received",
        "destination",
        "reason",
        "field",
        "message_id",
        "retried",
    )
    columns = [name for name in names if any(row.get(name) for row in rows)]
    return columns, [[shortened(row.get(name), LIST_WIDTHS.get(name)) for name in columns] for row in rows]


def shortened(value: object, most: int | None) -> str:
    """A cell on one line, cut where it is longer than ``most``."""
    text = show.safe(show.cell(value))
    return text if most is None or len(text) <= most else text[: most - 1] + "…"


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

    A write key in the body is shown as ***. A body that is no UTF-8 is shown as base64, under another name:
    body_base64; one that would move the cursor of a terminal is shown as JSON text.

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
        show.fields(for_people(letter))


def for_people(letter: dict[str, Any]) -> dict[str, Any]:
    """A letter without what is not there, its body without what a terminal would obey."""
    told = {name: value for name, value in letter.items() if value is not None}
    body = told.get("body")
    if isinstance(body, str) and any(not (one.isprintable() or one in "\n\t") for one in body):
        del told["body"]
        told["body_json"] = msgspec.json.encode(body).decode()
    return told


# -- export


@dead.command()
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True))
@data_option
@click.option("--stream", metavar="KEY", help="Of one write key only.")
@click.option("--reason", metavar="TEXT", help="Only where TEXT is part of the reason.")
@click.option("--since", type=WHEN, metavar="TIME", help=f"Received from then on: {HELP}.")
@click.option("--force", is_flag=True, help="Replace the file.")
@click.option("--json", "as_json", is_flag=True, help="Tell as JSON, on stderr, how many were written.")
def export(
    file: str,
    data: str,
    stream: str | None,
    reason: str | None,
    since: int | None,
    force: bool,
    as_json: bool,
) -> None:
    """Write dead letters to FILE (- for stdout) as NDJSON, one on each line, with their bodies.

    `body` is the text of the body; where it is no UTF-8, `body` is null and `body_base64` has its bytes. Write keys are
    replaced by ***. Corrected by hand, the file goes to `headwater dead retry --edit FILE`; so a file that is
    there is not replaced unasked. It works when the node is stopped, too. In a cluster the letters of all nodes are
    written; exit code 1 when one does not answer.

    \b
    headwater dead export --stream web --since 24h letters.ndjson
    headwater dead export --reason "expected the event's name" - | jq -r .message_id
    """
    from headwater.node.dead_letters import Wanted, shown

    if os.path.isfile(file) and os.path.getsize(file) and not force:
        raise Rejected(f"{file} is there already", code="file_exists", help="--force replaces it")
    letters = every_letter(data, Wanted(stream=stream, reason=reason, since_ns=since))
    count = 0
    with click.open_file(file, "w", encoding="utf-8", lazy=False) as out:
        for letter in letters:
            out.write(msgspec.json.encode(shown(letter)).decode() + "\n")
            count += 1
    told = {"written": count, "file": file}
    click.echo(
        msgspec.json.encode(told).decode() if as_json else f"{counted(count, 'dead letter')} written",
        err=True,
    )


def every_letter(data: str, wanted: Wanted) -> Iterator[dict[str, Any]]:
    """The letters of this node, and of the others where it is one of many and runs; each once. Ends with exit code 1
    where a node did not answer."""
    seen: set[tuple[object, ...]] = set()
    others = elsewhere(data, wanted)
    first = next(
        others, None
    )  # asked before anything is told: a node alone needs not remember what it has told
    for letter in letters_of(data).export(wanted):
        if first is not None:
            seen.add(key_of(letter))
        yield letter
    silent: list[str] = []
    for told in [first, *others] if first is not None else []:
        silent += told["silent"]
        for letter in told["letters"]:
            if (key := key_of(letter)) not in seen:
                seen.add(key)
                yield {**letter, "body": base64.b64decode(letter["body"])}
    if silent:
        show.answer_no(f"without the letters of {', '.join(silent)}")


def elsewhere(data: str, wanted: Wanted) -> Iterator[dict[str, Any]]:
    """What the other nodes of a cluster tell, in pieces; nothing where this one is alone, or does not run."""
    node, at = Node(data), {"node": None, "at": None}
    asked = {name: value for name, value in msgspec.to_builtins(wanted).items() if value is not None}
    while True:
        try:
            told = node.post("/api/dead/page", {"wanted": asked, **at})
        except Unavailable:
            return
        if told["node"] is None and not told["letters"] and not told["silent"]:
            return  # there are no others, or they have no more
        yield told
        at = {"node": told["node"], "at": told["at"]}
        if at["node"] is None:
            return


def letters_of(data: str) -> NodeDeadLetters:
    """The dead letters in a data folder. Misconfigured where it is none."""
    from headwater.kit.disk import SystemDisk
    from headwater.node.dead_letters import NodeDeadLetters
    from headwater.node.folder import read_identity

    disk, path = SystemDisk(), os.path.abspath(data)
    read_identity(path, disk)
    return NodeDeadLetters(disk, path)


# -- retry


@dead.command()
@click.argument("origins", nargs=-1, metavar="[ORIGIN]...")
@click.option("--all", "every", is_flag=True, help="All of them.")
@click.option("--reason", metavar="TEXT", help="All of which TEXT is part of the reason.")
@click.option("--stream", metavar="KEY", help="All of one write key; narrows --all and --reason.")
@click.option(
    "--edit", type=click.File("rb"), metavar="FILE",
    help="Those in FILE (- for stdin), NDJSON as `dead export` writes it, with the bodies as they are there.",
)  # fmt: skip
@click.option("--again", is_flag=True, help="Also those that were retried before.")
@click.option("--dry-run", is_flag=True, help="Say what would be sent, and send nothing.")
@click.option(
    "--wait", type=click.FloatRange(0, 600), default=15.0, show_default=True, metavar="SECONDS",
    help="How long to wait for what becomes of each hundred.",
)  # fmt: skip
@data_option
@json_option
def retry(
    origins: tuple[str, ...],
    every: bool,
    reason: str | None,
    stream: str | None,
    edit: IO[bytes] | None,
    again: bool,
    dry_run: bool,
    wait: float,
    data: str,
    as_json: bool,
) -> None:
    """Send dead letters through once more, after what was wrong has been mended.

    A letter of processing is accepted again: as a new event with a receipt of its own, the same key and message id, and
    the headers and address of its first request, as long as the raw log holds that. Where the client has sent a
    corrected copy within the dedupe window, it becomes a duplicate, not a second row. What the door would still refuse
    is not sent; its letter stays as it is, and `--edit` sends a corrected body. A row that a destination refused is
    loaded again by that destination; nothing is accepted twice for it.

    The times in an event are kept; one that has none gets the time of its first receipt. A letter is retried once,
    unless --again says otherwise; in a cluster at the node that holds it, whichever is asked. For each it is said
    what became of it: in the warehouse, a duplicate, dead again and why, still refused and why. Exit code 1: for
    some there is something left to do.

    \b
    headwater dead retry 6f1c0b5e9d2a0000-00019a3c5f7e2b41-119
    headwater dead retry --reason "at most 262144 bytes" --dry-run
    headwater dead export --stream web bad.ndjson && $EDITOR bad.ndjson && headwater dead retry --edit bad.ndjson
    """
    if sum((bool(origins), every or reason is not None, edit is not None)) != 1:
        raise click.UsageError(
            "name letters by their origins, or --all, or --reason, or --edit FILE: one of these"
        )
    node = Node(data)
    made: set[str] = set()
    results: list[dict[str, Any]] = []
    asking = {"again": again, "dry_run": dry_run, "wait_s": wait}
    for chunk in chunks(chosen(origins, reason, stream, edit, data, made)):
        told = node.post("/api/dead/retry", {**asking, "letters": chunk}, timeout_s=wait + 2 * TIMEOUT_S)
        made |= positions(told)
        results += told
        if not as_json:
            for one in told:
                click.echo(f"{one['origin']}  {one['says']}")
    if as_json:
        show.as_json(results)
    elif not results:
        click.echo("no dead letters to retry")
    left = [one for one in results if one["state"] not in GOOD]
    if left:
        show.answer_no(f"{counted(len(left), 'letter')} of {len(results)} with something left to do")


def chosen(
    origins: Iterable[str],
    reason: str | None,
    stream: str | None,
    edit: IO[bytes] | None,
    data: str,
    made: set[str],
) -> Iterator[dict[str, Any]]:
    """The letters that are to be retried, as the node takes them; not those that were ``made`` meanwhile."""
    if edit is not None:
        yield from edited(edit)
        return
    named = list(origins)
    if named:
        yield from ({"origin": one} for one in named)
        return
    from headwater.node.dead_letters import Wanted

    wanted: Wanted = Wanted(stream=stream, reason=reason)
    for letter in every_letter(data, wanted):
        if letter["origin"] not in made:
            yield {"origin": letter["origin"], "destination": letter.get("destination")}


def edited(file: IO[bytes]) -> Iterator[dict[str, Any]]:
    """The letters of a file as `dead export` writes it."""
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        try:
            letter = msgspec.json.decode(line, type=dict[str, Any])
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise wrong_line(file, number, f"not a JSON object: {error}") from error
        bodies = [name for name in ("body", "body_base64") if letter.get(name) is not None]
        if not isinstance(letter.get("origin"), str) or len(bodies) != 1:
            raise wrong_line(
                file, number, "expected `origin`, and `body` or `body_base64`, as `dead export` writes them"
            )
        if not isinstance(letter[bodies[0]], str):
            raise wrong_line(
                file, number, f"`{bodies[0]}`: expected text; the event is JSON inside of a JSON text"
            )
        yield {
            "origin": letter["origin"],
            "destination": letter.get("destination"),
            bodies[0]: letter[bodies[0]],
        }


def wrong_line(file: IO[bytes], number: int, why: str) -> Rejected:
    """The error for a line; those before it may have been sent."""
    return Rejected(f"{getattr(file, 'name', '-')}:{number}: {why}", code="edit_line")


def chunks(letters: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """As many as go into one request. None is looked at before the requests before it are answered."""
    chunk: list[dict[str, Any]] = []
    size = 0
    for letter in letters:
        chunk.append(letter)
        size += len(letter.get("body") or letter.get("body_base64") or "")
        if len(chunk) == AT_ONCE or size >= BYTES_AT_ONCE:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def positions(results: Iterable[dict[str, Any]]) -> set[str]:
    """The positions of the events that were made."""
    found = set()
    for one in results:
        if one["receipt"] and one["position"]:
            prefix, _, first = one["position"].rpartition("-")
            found |= {f"{prefix}-{int(first) + number}" for number in range(one["events"])}
    return found
