"""One connection to PostgreSQL, set up as protocol.md §5 wants it, and the errors of what runs on it.

A step that its node abandons (stopped, cut off) must not hold up the next owner: the server ends it after
``idle_transaction_timeout_s``, or, in the middle of a COPY, when the connection shows no sign of life. In this
process a lost server is noticed the same way, by keep-alive probes.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from typing import Any, LiteralString, cast

import psycopg

from headwater.destinations.postgres.errors import translated
from headwater.destinations.postgres.settings import PostgresSettings
from headwater.kit.errors import Misconfigured, Unavailable

ALIVE_IDLE_S, ALIVE_INTERVAL_S, ALIVE_COUNT = 10, 5, 3
"""A connection that is silent for 10 s is probed every 5 s, and given up after 3 probes: 25 s in all."""
PASSWORD_BYTES_MAX = 65_536
ENCODING = "UTF8"

Cursor = psycopg.Cursor[tuple[Any, ...]]


def sql(text: str) -> LiteralString:
    """A statement of ours: its identifiers are quoted (table.quoted), its values are parameters."""
    trusted: Any = text
    return cast(LiteralString, trusted)


class Session:
    """The connection. ``data`` is the folder that relative paths of settings are below."""

    def __init__(self, settings: PostgresSettings, data: str) -> None:
        self.settings = settings
        self.data = data
        self.base: psycopg.Connection[tuple[Any, ...]] | None = None

    @property
    def label(self) -> str:
        """The destination in messages."""
        return f"postgres schema {self.settings.schema}"

    @property
    def is_open(self) -> bool:
        return self.base is not None and not self.base.closed

    def connect(self) -> None:
        """A new connection, in autocommit: transactions are begun by word."""
        try:
            self.base = psycopg.connect(
                self.settings.url, autocommit=True, prepare_threshold=None, **self.parameters()
            )
            with self.base.cursor() as cursor:
                self.set_up(cursor)
        except psycopg.Error as error:
            self.disconnect()
            raise translated(error, self.label) from error
        except Misconfigured:
            self.disconnect()
            raise

    def parameters(self) -> dict[str, Any]:
        """What the URL does not say."""
        settings = self.settings
        alive = {
            "keepalives_idle": ALIVE_IDLE_S,
            "keepalives_interval": ALIVE_INTERVAL_S,
            "keepalives_count": ALIVE_COUNT,
            "tcp_user_timeout": (ALIVE_IDLE_S + ALIVE_INTERVAL_S * ALIVE_COUNT) * 1000,
        }
        tls = {"sslmode": settings.mode}
        if settings.mode == "verify-full":
            tls["sslrootcert"] = self.path(settings.tls_ca) if settings.tls_ca else "system"
        if settings.tls_cert:
            tls |= {"sslcert": self.path(settings.tls_cert), "sslkey": self.path(settings.tls_key)}
        password = self.password()
        return {
            "client_encoding": ENCODING,
            "connect_timeout": max(2, round(settings.connect_timeout_s)),
            **({"password": password} if password else {}),
            **alive,
            **tls,
        }

    def path(self, path: str) -> str:
        """A file that the settings name."""
        return os.path.join(self.data, path)

    def password(self) -> str:
        """The password as it is now. Misconfigured: its file cannot be read."""
        if not self.settings.password_file:
            return self.settings.password
        path = self.path(self.settings.password_file)
        try:
            with open(path, encoding="utf-8") as file:
                return file.read(PASSWORD_BYTES_MAX).split("\n")[0].rstrip("\r")
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            raise Misconfigured(
                f"{self.label}: password_file: cannot read {path}: {why}", code="password_file"
            ) from error

    def set_up(self, cursor: Cursor) -> None:
        """Settings of the session; Misconfigured where the database cannot hold every text."""
        limits = self.settings
        for name, value in {
            "synchronous_commit": "on",
            "default_transaction_isolation": "read committed",
            "idle_in_transaction_session_timeout": milliseconds(limits.idle_transaction_timeout_s),
            "lock_timeout": milliseconds(limits.lock_timeout_s),
            "statement_timeout": milliseconds(limits.statement_timeout_s),
            "tcp_keepalives_idle": str(ALIVE_IDLE_S),
            "tcp_keepalives_interval": str(ALIVE_INTERVAL_S),
            "tcp_keepalives_count": str(ALIVE_COUNT),
            "application_name": "headwater",
        }.items():
            cursor.execute("SELECT pg_catalog.set_config(%s, %s, false)", (name, value))
        found = cursor.execute("SELECT pg_catalog.current_setting('server_encoding')").fetchone()
        if found != (ENCODING,):
            raise Misconfigured(
                f"{self.label}: the database has the encoding {found[0] if found else '?'}, expected {ENCODING}",
                code="encoding",
                help="create the database with ENCODING 'UTF8' TEMPLATE template0",
            )

    def disconnect(self) -> None:
        """Let go; safe to call twice."""
        base, self.base = self.base, None
        if base is not None:
            with contextlib.suppress(psycopg.Error):
                base.close()

    @property
    def write(self) -> psycopg.Connection[tuple[Any, ...]]:
        """The connection. Unavailable while there is none."""
        if self.base is None or self.base.closed:
            raise Unavailable(f"{self.label} is not open", code="destination_closed")
        return self.base

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Cursor]:
        """BEGIN, and ROLLBACK unless COMMIT was said inside; the driver's errors become ours."""
        write = self.write
        try:
            with write.cursor() as cursor:
                cursor.execute("BEGIN ISOLATION LEVEL READ COMMITTED")
                try:
                    yield cursor
                finally:
                    self.roll_back()
        except psycopg.Error as error:
            raise translated(error, self.label) from error

    def roll_back(self) -> None:
        """End a transaction if there is one."""
        if self.base is not None and self.base.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
            with contextlib.suppress(psycopg.Error):
                self.base.execute("ROLLBACK")

    def rows(self, statement: str, values: Mapping[str, object] | None = None) -> list[tuple[Any, ...]]:
        """The rows of one statement by itself."""
        write = self.write
        try:
            return write.execute(sql(statement), values).fetchall()
        except psycopg.Error as error:
            raise translated(error, self.label) from error


def milliseconds(seconds: float) -> str:
    """A time as the server's settings want it."""
    return f"{round(seconds * 1000)}ms"
