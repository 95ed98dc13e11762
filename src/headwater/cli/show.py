"""How answers look: tables for people, JSON for programs."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NoReturn

import click
import msgspec

PLAIN_WIDTH = 200
"""Of tables that go to a file or a pipe."""


def as_json(value: object, *, indent: bool = True) -> None:
    """One JSON value, and a newline."""
    data = msgspec.json.encode(value)
    click.echo(msgspec.json.format(data, indent=2).decode() if indent else data.decode())


def answer_no(why: str) -> NoReturn:
    """The answer is no: say why on stderr, exit code 1."""
    click.echo(f"headwater: {why}", err=True)
    sys.exit(1)


COLUMN_WIDTH = 8
"""A table with less room than this for each column cannot be read."""


def as_table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """A table as wide as the terminal; long cells are folded. Too many columns for that: each row as a list."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if not console.is_terminal:
        console = Console(width=PLAIN_WIDTH)
    if len(columns) * COLUMN_WIDTH > console.width:
        as_lists(columns, rows)
        return
    table = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
    listed = [list(row) for row in rows]
    for number, name in enumerate(columns):
        numeric = bool(listed) and all(is_number(row[number]) for row in listed)
        table.add_column(name, justify="right" if numeric else "left", overflow="fold", no_wrap=numeric)
    for row in listed:
        table.add_row(*(plain(cell(value)) for value in row))
    console.print(table)


def as_lists(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Each row as names and values below each other, without the empty ones."""
    for number, row in enumerate(rows, 1):
        click.echo(f"-- row {number}")
        fields({name: value for name, value in zip(columns, row, strict=True) if value is not None})


def plain(text: str) -> Any:
    """Text that rich shows as it is."""
    from rich.text import Text

    return Text(text)


def is_number(value: object) -> bool:
    """Whether a cell stands to the right."""
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def cell(value: object) -> str:
    """A value in a table."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str | int | float):
        return str(value)
    return msgspec.json.encode(value).decode()


def time(seconds: float) -> str:
    """A span of time for people: ``2.3 s``, ``3 min``, ``5 h``, ``2 d``."""
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"


def size(count: float) -> str:
    """Bytes for a person."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def fields(value: Mapping[str, Any]) -> None:
    """Names and values below each other."""
    width = max((len(name) for name in value), default=0)
    for name, one in value.items():
        click.echo(f"{name:<{width}}  {cell(one)}")


def safe(text: str) -> str:
    """Text on one line, without what a terminal would obey."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)
