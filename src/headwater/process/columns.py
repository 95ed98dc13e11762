"""The standard fields: where they stand in an event, and the columns that they become.

``FIELDS`` are read from events; ``COLUMNS`` is the standard part of the ``events`` layout, in order. Kinds are
text, number, boolean, integer, timestamp, json.
"""

from __future__ import annotations

from typing import NamedTuple

import pyarrow as pa


class Column(NamedTuple):
    """A column of the row set."""

    name: str
    kind: str
    meaning: str


TYPES: dict[str, pa.DataType] = {
    "text": pa.string(),
    "json": pa.string(),
    "number": pa.float64(),
    "boolean": pa.bool_(),
    "integer": pa.int64(),
    "timestamp": pa.timestamp("us", tz="UTC"),
}

FIELDS: dict[tuple[str, ...], str] = {
    ("type",): "text",
    ("event",): "text",
    ("name",): "text",
    ("category",): "text",
    ("messageId",): "text",
    ("anonymousId",): "text",
    ("userId",): "text",
    ("groupId",): "text",
    ("previousId",): "text",
    ("timestamp",): "text",
    ("originalTimestamp",): "text",
    ("sentAt",): "text",
    ("channel",): "text",
    ("context", "ip"): "text",
    ("context", "userAgent"): "text",
    ("context", "locale"): "text",
    ("context", "timezone"): "text",
    ("context", "library", "name"): "text",
    ("context", "library", "version"): "text",
    ("context", "page", "url"): "text",
    ("context", "page", "path"): "text",
    ("context", "page", "title"): "text",
    ("context", "page", "search"): "text",
    ("context", "page", "referrer"): "text",
    ("context", "screen", "width"): "number",
    ("context", "screen", "height"): "number",
    ("context", "screen", "density"): "number",
    ("context", "campaign", "name"): "text",
    ("context", "campaign", "source"): "text",
    ("context", "campaign", "medium"): "text",
    ("context", "campaign", "term"): "text",
    ("context", "campaign", "content"): "text",
    ("context", "campaign", "id"): "text",
    ("context", "app", "name"): "text",
    ("context", "app", "version"): "text",
    ("context", "device", "id"): "text",
    ("context", "device", "type"): "text",
    ("context", "os", "name"): "text",
    ("context", "os", "version"): "text",
}
"""Path in the event → kind in which it is read."""

IGNORED_ROOTS = frozenset({"integrations", "_metadata", "writeKey"})
"""Read by nobody: routing hints of other systems, and the key. They stay in the raw log."""

COLUMNS: tuple[Column, ...] = (
    Column("message_id", "text", "id of the event as the sender gave it, or derived from its position"),
    Column("event", "text", "what happened; for page and screen calls their name; else the type"),
    Column("type", "text", "track, page, screen, identify, group, alias or reset"),
    Column("anonymous_id", "text", "id of the device or browser"),
    Column("user_id", "text", "the person, as the event says or as recognised later"),
    Column("received_at", "timestamp", "when the collector had the whole request, node time"),
    Column("timestamp", "timestamp", "when it happened: the sender's clock, corrected and bounded"),
    Column("key_id", "text", "the write key it came with"),
    Column("sent_at", "timestamp", "when the sender says it sent it"),
    Column("original_timestamp", "timestamp", "when the sender's clock said it happened"),
    Column("name", "text", "name of the page or screen"),
    Column("category", "text", "category of the page or screen"),
    Column("group_id", "text", "the group or account of a group call"),
    Column("previous_id", "text", "the id that an alias call replaces"),
    Column("channel", "text", "browser, server, mobile, as the sender says"),
    Column("dialect", "text", "what the sender speaks"),
    Column("ip", "text", "client address after the key's policy"),
    Column("user_agent", "text", "user agent, from the event or else the request"),
    Column("locale", "text", "locale as sent"),
    Column("language", "text", "primary language"),
    Column("timezone", "text", "IANA time zone as sent"),
    Column("library_name", "text", "library that sent it"),
    Column("library_version", "text", "its version"),
    Column("page_url", "text", "URL of the page"),
    Column("page_host", "text", "host of the page"),
    Column("page_path", "text", "path of the page"),
    Column("page_title", "text", "title of the page"),
    Column("page_search", "text", "query of the page"),
    Column("referrer", "text", "URL that led here"),
    Column("referrer_host", "text", "its host"),
    Column("referrer_kind", "text", "search, social, email, internal, link or direct"),
    Column("search_engine", "text", "the search engine that led here"),
    Column("search_term", "text", "what was searched for, where it is still told"),
    Column("utm_source", "text", "campaign source"),
    Column("utm_medium", "text", "campaign medium"),
    Column("utm_campaign", "text", "campaign name"),
    Column("utm_term", "text", "campaign term"),
    Column("utm_content", "text", "campaign content"),
    Column("utm_id", "text", "campaign id"),
    Column("click_id", "text", "click id of an advertising network"),
    Column("click_id_kind", "text", "its parameter, such as gclid"),
    Column("screen_width", "number", "screen width, CSS pixels"),
    Column("screen_height", "number", "screen height, CSS pixels"),
    Column("screen_density", "number", "device pixels per CSS pixel"),
    Column("app_name", "text", "name of the app"),
    Column("app_version", "text", "version of the app"),
    Column("device_id", "text", "device id as sent"),
    Column("device_type", "text", "device type as sent"),
    Column("os_name", "text", "operating system as sent"),
    Column("os_version", "text", "its version as sent"),
    Column("ua_family", "text", "browser, from the user agent"),
    Column("ua_version", "text", "its version"),
    Column("ua_os_family", "text", "operating system, from the user agent"),
    Column("ua_os_version", "text", "its version"),
    Column("ua_device_family", "text", "device, from the user agent"),
    Column("ua_device_brand", "text", "its brand"),
    Column("ua_device_model", "text", "its model"),
    Column("device_kind", "text", "desktop, mobile, tablet, tv, bot or other"),
    Column("is_bot", "boolean", "the sender is a known robot"),
    Column("bot_reason", "text", "why it is taken for one"),
    Column("geo_country", "text", "country of the address"),
    Column("geo_region", "text", "region of the address"),
    Column("geo_city", "text", "city of the address"),
    Column("geo_latitude", "number", "latitude of the address"),
    Column("geo_longitude", "number", "longitude of the address"),
    Column(
        "_hw_user_own",
        "boolean",
        "the event itself named the user; else it was recognised, or nobody is known",
    ),
    Column("_unmapped", "json", "values without a column: name to value"),
)
COLUMN_KIND = {c.name: c.kind for c in COLUMNS}

ORIGIN = [
    pa.field(name, dtype, metadata={"kind": "integer", "origin": "standard"})
    for name, dtype in (
        ("_hw_writer", pa.uint64()),
        ("_hw_log", pa.uint64()),
        ("_hw_seq", pa.uint64()),
        ("_hw_row", pa.uint32()),
        ("_hw_partition", pa.uint16()),
    )
]
"""Where a row comes from (protocol.md §17.7)."""


def column_field(name: str, kind: str, origin: str) -> pa.Field:
    """A column of the row set; the metadata tell a destination what the Arrow type cannot."""
    return pa.field(name, TYPES[kind], metadata={"kind": kind, "origin": origin})


def standard_schema() -> pa.Schema:
    """The columns of the layout that are there whatever is sent."""
    return pa.schema([*(column_field(c.name, c.kind, "standard") for c in COLUMNS), *ORIGIN])
