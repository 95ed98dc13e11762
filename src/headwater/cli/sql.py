"""``headwater sql``: answers to look at, and files to take away (export.py)."""

from __future__ import annotations

import csv
import sys
from typing import Any

import click

from headwater.cli import show
from headwater.cli.client import Node, data_option, files, json_option
from headwater.kit.plural import counted

TABLE_ROWS, LIMIT_MAX = 1_000, 1_000_000


@click.command()
@click.argument("query")
@data_option
@json_option
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV with a header line.")
@click.option(
    "--limit",
    type=click.IntRange(1),
    help=f"Rows at most. [default: {TABLE_ROWS:,}; with --json or --csv {LIMIT_MAX:,}; with --output all]",
)
@click.option(
    "--output",
    metavar="FILE",
    shell_complete=files,
    help="Write all rows into a file: .parquet, .arrow, .csv, .ndjson.",
)
@click.option(
    "--format",
    type=click.Choice(["parquet", "arrow", "csv", "ndjson"]),
    help="Of the file, where its name does not say.",
)
@click.option("--force", is_flag=True, help="Replace the file.")
@click.option(
    "--destination", metavar="NAME", help="Which destination; the first of the configuration by default."
)
def sql(
    query: str,
    data: str,
    as_json: bool,
    as_csv: bool,
    limit: int | None,
    destination: str | None,
    output: str | None,
    format: str | None,
    force: bool,
) -> None:
    """Ask the warehouse, also while events stream in. One reading statement, in DuckDB's SQL.

    \b
    headwater sql "select event, count(*) from events group by 1"
    headwater sql --json "from events order by received_at desc limit 5"
    headwater sql --csv "select key_id, received_at::date, count(*) from events group by all" > counts.csv
    headwater sql "from events where received_at >= '2026-01-01'" --output january.parquet

    A file holds every row, whatever the limits on answers are; it is there when it is whole, and not before. Time and
    memory are those of any query (`destinations.NAME.sql.time_max_s`). With --json, what was written is told as JSON.
    """
    if as_csv and (as_json or output):
        raise click.UsageError(
            "--csv stands alone" if output is None else "--csv prints; --output ends with .csv"
        )
    if output is None and (format or force):
        raise click.UsageError("--format and --force belong to --output")
    if output is not None:
        return to_file(Node(data), query, output, format, limit, destination, force, as_json)
    if limit is not None and limit > LIMIT_MAX:
        raise click.UsageError(f"--limit is at most {LIMIT_MAX:,}; --output FILE has no limit")
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


def to_file(
    node: Node,
    query: str,
    output: str,
    format: str | None,
    limit: int | None,
    destination: str | None,
    force: bool,
    as_json: bool,
) -> None:
    """The rows into a file, and what was written."""
    from headwater.cli.export import export

    told = export(node, query, output, format, limit, destination, force)
    if as_json:
        show.as_json(told)
    else:
        click.echo(f"{told['rows']:,} rows, {told['bytes']:,} bytes in {output} ({told['ms'] / 1000:.1f} s)")
    if told["truncated"]:
        click.echo(f"cut after {counted(told['rows'], 'row')}, as --limit asks; there are more", err=True)


def csv_cell(value: object) -> str:
    """A value in CSV: as SQL reads it."""
    return str(value).lower() if isinstance(value, bool) else show.cell(value)
