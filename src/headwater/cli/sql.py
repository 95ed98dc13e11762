"""``headwater sql``."""

from __future__ import annotations

import csv
import sys
from typing import Any

import click

from headwater.cli import show
from headwater.cli.client import Node, data_option, json_option
from headwater.kit.plural import counted

TABLE_ROWS, LIMIT_MAX = 1_000, 1_000_000


@click.command()
@click.argument("query")
@data_option
@json_option
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV with a header line.")
@click.option(
    "--limit",
    type=click.IntRange(1, LIMIT_MAX),
    help=f"Rows at most. [default: {TABLE_ROWS:,}; with --json or --csv {LIMIT_MAX:,}]",
)
@click.option(
    "--destination", metavar="NAME", help="Which destination; the first of the configuration by default."
)
def sql(
    query: str, data: str, as_json: bool, as_csv: bool, limit: int | None, destination: str | None
) -> None:
    """Ask the warehouse, also while events stream in. One reading statement, in DuckDB's SQL.

    \b
    headwater sql "select event, count(*) from events group by 1"
    headwater sql --json "from events order by received_at desc limit 5"
    headwater sql --csv "select key_id, received_at::date, count(*) from events group by all" > counts.csv
    """
    if as_json and as_csv:
        raise click.UsageError("--json or --csv, not both")
    limit = limit or (LIMIT_MAX if as_json or as_csv else TABLE_ROWS)
    answer = Node(data).post("/api/sql", {"query": query, "limit": limit, "destination": destination})
    rows: list[dict[str, Any]] = answer["rows"]
    names = [column["name"] if isinstance(column, dict) else column for column in answer["columns"]]
    if as_json:
        show.as_json(rows)
    elif as_csv:
        writer = csv.writer(sys.stdout)
        writer.writerow(names)
        writer.writerows([csv_cell(row.get(name)) for name in names] for row in rows)
    else:
        show.as_table(names, ([row.get(name) for name in names] for row in rows))
        if not rows:
            click.echo("no rows", err=True)
    if answer.get("truncated"):
        click.echo(f"cut after {counted(len(rows), 'row')}; ask for more with --limit", err=True)


def csv_cell(value: object) -> str:
    """A value in CSV: as SQL reads it."""
    return str(value).lower() if isinstance(value, bool) else show.cell(value)
