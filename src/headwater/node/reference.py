"""Reference pages made from the code: settings, metrics, happenings. ``make docs`` writes them."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from headwater.config import docs
from headwater.kit.happenings import Happening
from headwater.lane.kafka import happenings as kafka
from headwater.node import happenings
from headwater.node.reload import reloads
from headwater.node.settings import Settings
from headwater.ops.metrics import HELP


def configuration() -> str:
    """Every setting, by block."""
    intro = (
        "# Settings\n\n"
        "`headwater config explain KEY` tells the value and where it came from. Text may hold `${env.NAME}` or\n"
        "`${env.NAME|default}` (quote it inside `{…}`). An unknown key refuses to start and names the nearest one.\n"
        "Settings marked ↻ are taken over by SIGHUP; everything else by a restart, which loses nothing.\n"
    )
    return "\n".join((intro, *blocks(Settings, "")))


def blocks(struct: docs.Struct, key: str) -> Iterator[str]:
    """A block's own settings as a table, then the blocks in it."""
    fields = docs.fields(struct)
    if key:
        about = (struct.__doc__ or "").strip().splitlines()
        yield f"## `{key}`\n\n{about[0] if about else ''}\n"
    plain = [field for field in fields if not inner(field)]
    if plain:
        yield "| key | type | default | meaning |\n|---|---|---|---|\n" + "".join(
            row(key, field) for field in plain
        )
    for field in fields:
        for name, block in inner(field):
            yield from blocks(block, below(key, field.name) + name)


def inner(field: docs.Field) -> list[tuple[str, docs.Struct]]:
    """The blocks below a setting: one, or one for each kind that its type names."""
    structs = docs.structs_in(field.type)
    repeated = {"list": "[]", "mapping": ".NAME"}.get(docs.type_text(field.type).partition(" ")[0], "")
    return [(f"{repeated}{kind(struct) if len(structs) > 1 else ''}", struct) for struct in structs]


def kind(struct: docs.Struct) -> str:
    """`` (type: duckdb)`` where a struct is one of several."""
    return f" (type: {struct.__struct_config__.tag})"


def below(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name


def row(key: str, field: docs.Field) -> str:
    """One line of a block's table."""
    mark = " ↻" if reloads(below(key, field.name).replace("[]", "")) else ""
    cells = (f"`{field.name}`{mark}", docs.type_text(field.type), default_text(field), field.meaning)
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |\n"


def default_text(field: docs.Field) -> str:
    """The default, or that there is none."""
    if field.default is docs.NO_DEFAULT:
        return "must be given"
    return f"`{msgspec.json.encode(field.default).decode()}`"


def metrics() -> str:
    """Every metric, and every line of the log."""
    lines = [
        "# Metrics and log lines\n",
        "## Metrics\n",
        "`GET /metrics` of the ops listener, Prometheus text.\n",
    ]
    lines += [
        "| metric | meaning |\n|---|---|",
        *(f"| `{name}` | {HELP[name]} |" for name in sorted(HELP)),
        "",
    ]
    lines += [
        "## Log lines\n",
        "One JSON object per line on stderr; each also counts in `headwater_happenings_total`.\n",
    ]
    lines += ["| happening | level | fields | meaning |\n|---|---|---|---|"]
    return "\n".join((*lines, *map(happening_row, sorted(known(), key=lambda kind: kind.name())), ""))


def known() -> list[type[Happening]]:
    """The happenings of a node, and of channels into and out of Kafka."""
    return [
        value
        for value in (*vars(happenings).values(), *vars(kafka).values())
        if isinstance(value, type) and issubclass(value, Happening) and value is not Happening
    ]


def happening_row(happening: type[Happening]) -> str:
    """One happening."""
    fields = ", ".join(f"`{name}`" for name in happening.__struct_fields__)
    meaning = " ".join((happening.__doc__ or "").split())
    return f"| `{happening.name()}` | {happening.level} | {fields} | {meaning} |"
