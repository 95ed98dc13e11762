"""PostgreSQL's errors, translated at one edge by what the caller does next.

Only the server's primary message is passed on: its details hold whole rows. No message of the driver holds a
password, since none is in the URL (settings.py).
"""

from __future__ import annotations

import re

import psycopg

from headwater.kit.errors import HeadwaterError, Misconfigured, Rejected, Unavailable

ROWS = ("22", "23", "44", "54", "P0")
"""Classes of SQLSTATE that a row can cause: data, constraint, WITH CHECK, a limit, a trigger's own word."""
STATES: dict[str, tuple[type[HeadwaterError], str, str]] = {
    "28": (Misconfigured, "login", "check user, password and pg_hba.conf of the server"),
    "3D": (Misconfigured, "database_missing", "create the database, or correct it in the url"),
    "42501": (
        Misconfigured,
        "permission",
        "the role must own the schema and its tables (docs/guides/postgres.md)",
    ),
    "25006": (
        Unavailable,
        "read_only",
        "a standby? target_session_attrs=read-write in the url finds the primary",
    ),
    "53100": (Unavailable, "disk_full", "free space where the server keeps its data"),
    "53300": (Unavailable, "connections_full", "the server has no connection left; each node needs one"),
    "55P03": (
        Unavailable,
        "lock_timeout",
        "somebody holds the rows or the table: another node, or a long query",
    ),
    "57014": (Unavailable, "statement_timeout", "raise statement_timeout_s if the server is only slow"),
    "25P03": (Unavailable, "idle_timeout", ""),
    "42P01": (Unavailable, "tables_changed", "its tables changed meanwhile; they are read again"),
    "42703": (Unavailable, "tables_changed", "its tables changed meanwhile; they are read again"),
    "3F000": (Unavailable, "tables_changed", "its tables changed meanwhile; they are read again"),
}
CONNECTING: tuple[tuple[str, type[HeadwaterError], str, str], ...] = (
    (
        r"authentication failed|no pg_hba\.conf entry|no password supplied|role .* does not exist",
        *STATES["28"],
    ),
    (r"database .* does not exist", *STATES["3D"]),
    (
        r"certificate|SSL|root\.crt",
        Misconfigured,
        "tls",
        "see tls and tls_ca; `tls: off` where the network itself is trusted",
    ),
    (r"too many clients|remaining connection slots", *STATES["53300"]),
    (r"not currently accepting|starting up|read-only|session is not", *STATES["25006"]),
)
"""What libpq says before there is a session, where no SQLSTATE comes along."""


def translated(error: psycopg.Error, label: str) -> HeadwaterError:
    """The error that the deliverer understands; raise it ``from`` the driver's. ``label`` names the destination."""
    state = error.sqlstate or ""
    text = (error.diag.message_primary or str(error)).strip().split("\n")[0]
    known = STATES.get(state) or STATES.get(state[:2])
    if known is not None:
        kind, code, help_ = known
        return kind(f"{label}: {text}", code=code, help=help_)
    if state[:2] in ROWS:
        return Rejected(text, code="row_refused")
    if isinstance(error, psycopg.ProgrammingError) and not state:
        return Misconfigured(f"{label}: url: {text}", code="url", help="postgresql://USER@HOST:PORT/DATABASE")
    if not state:
        for pattern, kind, code, help_ in CONNECTING:
            if re.search(pattern, str(error)):
                return kind(f"{label}: {text}", code=code, help=help_)
    return Unavailable(f"{label}: {text}", code=f"postgres_{state}" if state else "postgres_unreachable")
