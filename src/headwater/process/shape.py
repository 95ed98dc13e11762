"""The row set of the ``events`` layout: standard columns, learned columns, origin columns, all by final name.

Enrichment runs here, over distinct values (process/enrich). Nothing in this module looks at one event at a time.
"""

from __future__ import annotations

import socket
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from headwater.event.record import ADDRESS_HASH, ADDRESS_NONE, ADDRESS_V6
from headwater.identity.recognise import OWN
from headwater.process.columns import COLUMNS, ORIGIN, TYPES, column_field
from headwater.process.enrich import language, page, referrer, time, user_agent
from headwater.process.enrich.geo import Geo
from headwater.process.enrich.settings import EnrichSettings
from headwater.process.gather import Events
from headwater.process.heads import HeadColumns
from headwater.process.read import FIELD_NAMES, Parsed, kind_of_name
from headwater.process.schema import LearnedSchema
from headwater.process.unmapped import Unmapped

UA_NAMES = {
    "os_family": "ua_os_family",
    "os_version": "ua_os_version",
    "device_family": "ua_device_family",
    "device_brand": "ua_device_brand",
    "device_model": "ua_device_model",
}
GEO_NAMES = {"country": "geo_country", "region": "geo_region", "city": "geo_city"}
OCTETS = pa.array([str(n) for n in range(256)])
PLAIN = {
    "name": "name",
    "category": "category",
    "group_id": "groupId",
    "previous_id": "previousId",
    "channel": "channel",
    "locale": "context.locale",
    "timezone": "context.timezone",
    "library_name": "context.library.name",
    "library_version": "context.library.version",
    "page_title": "context.page.title",
    "screen_width": "context.screen.width",
    "screen_height": "context.screen.height",
    "screen_density": "context.screen.density",
    "app_name": "context.app.name",
    "app_version": "context.app.version",
    "device_id": "context.device.id",
    "device_type": "context.device.type",
    "os_name": "context.os.name",
    "os_version": "context.os.version",
    "anonymous_id": "anonymousId",
    "user_id": "userId",
}
"""Columns that are a field of the event as it is."""
CAMPAIGN = {name: f"context.campaign.{name.removeprefix('utm_')}" for name in page.CAMPAIGN}
CAMPAIGN["utm_campaign"] = "context.campaign.name"


class Shaper:
    """Builds row sets; keeps the memos of enrichment between cuts."""

    def __init__(
        self,
        settings: EnrichSettings,
        schema: LearnedSchema,
        *,
        geo_folder: str | None = None,
        server_keys: frozenset[str] = frozenset(),
    ) -> None:
        """``server_keys``: ids of keys of the server kind. Their requests come from libraries, not from visitors: the
        request's own user agent says nothing about the visitor, `context.ip` does, and their clocks are believed."""
        self.server_keys = server_keys
        self.settings = settings
        self.schema = schema
        self.user_agent = user_agent.memo(settings.user_agent)
        self.page = page.memo(settings.page)
        self.referrer = referrer.memo(settings.referrer)
        self.language = language.memo(settings.language)
        self.unmapped = Unmapped()
        self.geo = Geo(settings.geo, copy_folder=geo_folder)

    def rows(
        self,
        events: Events,
        parsed: Parsed,
        message_ids: list[str],
        partition: np.ndarray[Any, Any],
        now_s: float,
    ) -> pa.Table:
        """One row per event, in order."""
        get = Getter(parsed)
        heads = HeadColumns(events.heads, events.head)
        done: dict[str, pa.Array | pa.ChunkedArray] = {
            "message_id": pa.array(message_ids, pa.string()),
            "key_id": heads("key_id"),
            "dialect": heads("dialect"),
        }
        done |= {name: get(source) for name, source in PLAIN.items()}
        done["type"] = pc.coalesce(get("type"), heads("default_type"))
        paged = pc.is_in(done["type"], value_set=pa.array(["page", "screen"]))
        named = pc.if_else(paged, done["name"], pa.scalar(None, pa.string()))
        done["event"] = pc.coalesce(get("event"), named, done["type"])
        done["_unmapped"] = get("_unmapped")
        self._times(events, get, heads, done)
        self._client(events, get, heads, done, now_s)
        self._page(get, heads, done)
        return self._table(events, parsed, partition, done)

    def _times(self, events: Events, get: Getter, heads: HeadColumns, done: dict[str, Any]) -> None:
        received = pa.array(events.received_ns.astype(np.int64))
        sent = get("sentAt")
        if events.sent_at:
            batch: list[str | None] = [None] * len(events)
            for number, text in events.sent_at.items():
                batch[number] = text
            sent = pc.coalesce(sent, pa.array(batch, pa.string()))
        historical = pc.or_(self._from_server(heads), heads("is_import"))
        times = time.canonical(
            received,
            get("timestamp"),
            sent,
            get("originalTimestamp"),
            self.settings.time,
            historical=historical,
        )
        done["received_at"] = pc.divide(received, 1000).cast(TYPES["timestamp"])
        done["timestamp"] = times.timestamp
        done["sent_at"] = times.sent_at
        done["original_timestamp"] = times.original_timestamp
        chosen = pc.coalesce(get("originalTimestamp"), get("timestamp"))
        self._keep_unreadable("timestamp", chosen, times.original_timestamp, done)
        self._keep_unreadable("sentAt", sent, times.sent_at, done)

    def _keep_unreadable(self, name: str, texts: pa.Array, read: pa.Array, done: dict[str, Any]) -> None:
        """Texts that are no time stand in ``_unmapped``."""
        if read.null_count <= texts.null_count:
            return
        lost = pc.and_(pc.is_null(read), pc.greater(pc.fill_null(pc.binary_length(texts), 0), 0))
        where = np.flatnonzero(np.asarray(lost))
        if not len(where):
            return
        cells = done["_unmapped"].to_pylist()
        for number in where.tolist():
            text = texts[number].as_py()
            cells[number] = orjson.dumps({**orjson.loads(cells[number] or "{}"), name: text}).decode()
            self.unmapped.note(name, text)
        done["_unmapped"] = pa.array(cells, pa.string())

    def _client(
        self, events: Events, get: Getter, heads: HeadColumns, done: dict[str, Any], now_s: float
    ) -> None:
        sent = pc.if_else(self._from_server(heads), None, pc.coalesce(heads("user_agent"), ""))
        agent = pc.coalesce(get("context.userAgent"), sent)
        found = self.user_agent.apply(agent, heads("hints"))
        done |= {UA_NAMES.get(name, name): column for name, column in found.items()}
        done["user_agent"] = pc.if_else(pc.equal(agent, ""), None, agent)
        own = address_column(events)
        told = pc.if_else(heads("from_page"), None, get("context.ip"))
        hidden = pa.array((events.address_flags & (ADDRESS_NONE | ADDRESS_HASH)) != 0)
        done["ip"] = pc.if_else(hidden, own, pc.coalesce(told, own))
        places = self.geo.apply(done["ip"], now_s)
        done |= {column: places[name] for name, column in GEO_NAMES.items()}
        done["geo_latitude"], done["geo_longitude"] = places["latitude"], places["longitude"]
        done["language"] = self.language.apply(done["locale"], heads("accept_language"))["language"]

    def _page(self, get: Getter, heads: HeadColumns, done: dict[str, Any]) -> None:
        url = pc.coalesce(get("context.page.url"), heads("referer"))
        parts = self.page.apply(url)
        done["page_url"] = url
        done["page_host"] = parts["page_host"]
        done["page_path"] = pc.coalesce(get("context.page.path"), parts["page_path"])
        done["page_search"] = pc.coalesce(get("context.page.search"), parts["page_search"])
        done |= {name: pc.coalesce(get(source), parts[name]) for name, source in CAMPAIGN.items()}
        done["click_id"], done["click_id_kind"] = parts["click_id"], parts["click_id_kind"]
        done["referrer"] = get("context.page.referrer")
        done |= self.referrer.apply(done["referrer"], done["page_host"])

    def _from_server(self, heads: HeadColumns) -> pa.Array:
        return pc.is_in(heads("key_id"), value_set=pa.array(sorted(self.server_keys), pa.string()))

    def _table(
        self, events: Events, parsed: Parsed, partition: np.ndarray[Any, Any], done: dict[str, Any]
    ) -> pa.Table:
        arrays: list[Any] = []
        fields: list[pa.Field] = []
        for column in COLUMNS:
            if column.name == OWN:
                continue  # recognition says it
            if done[column.name].null_count < len(events):  # what nobody has, the destination fills with NULL
                fields.append(column_field(column.name, column.kind, "standard"))
                arrays.append(done[column.name])
        for name in sorted(n for n in parsed.columns if n.startswith("@")):
            fields.append(column_field(name[1:], kind_of_name(name, self.schema), "learned"))
            arrays.append(parsed.columns[name])
        row = np.zeros(len(events), np.uint32)
        own = (events.writer, events.log, events.seq, row, partition)
        fields += ORIGIN
        arrays += [pa.array(values, field.type) for values, field in zip(own, ORIGIN, strict=True)]
        return pa.table(arrays, schema=pa.schema(fields))


class Getter:
    """Standard fields of parsed lines; nulls where no line has one."""

    def __init__(self, parsed: Parsed) -> None:
        self.parsed = parsed

    def __call__(self, name: str) -> pa.ChunkedArray | pa.Array:
        column = self.parsed.columns.get(name)
        return pa.nulls(self.parsed.lines, TYPES[FIELD_NAMES.get(name, "json")]) if column is None else column


def address_column(events: Events) -> pa.Array:
    """Client addresses as text; hashes as hex; null where none was kept."""
    kinds = events.address_flags & (ADDRESS_V6 | ADDRESS_HASH | ADDRESS_NONE)
    raw = np.frombuffer(events.address.tobytes(), np.uint8).reshape(-1, 16)
    if not kinds.any():
        return pc.binary_join_element_wise(*(OCTETS.take(pa.array(raw[:, n])) for n in range(12, 16)), ".")
    keyed = np.concatenate([raw, kinds.astype("<u2").view(np.uint8).reshape(-1, 2)], axis=1)
    data = np.ascontiguousarray(keyed).tobytes()
    column = pa.FixedSizeBinaryArray.from_buffers(pa.binary(18), len(events), [None, pa.py_buffer(data)])
    coded = column.dictionary_encode()
    texts = [_address_text(value) for value in coded.dictionary.to_pylist()]
    return pa.array(texts, pa.string()).take(coded.indices)


def _address_text(value: bytes) -> str | None:
    address, kind = value[:16], int.from_bytes(value[16:], "little")
    if kind & ADDRESS_NONE:
        return None
    if kind & ADDRESS_HASH:
        return address.hex()
    if kind & ADDRESS_V6:
        return socket.inet_ntop(socket.AF_INET6, address)
    return socket.inet_ntoa(address[12:])
