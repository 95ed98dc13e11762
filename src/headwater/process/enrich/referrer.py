"""Referrer and page host → where the visitor came from.

`referrer_kind`, the first that holds:

1. `direct`: no referrer, but a page.  With neither there is no visit to speak of, and all is null.
2. `internal`: the referrer's host and the page's are the same without `www.`, or one is a subdomain of the
   other, or the referrer's is below one of `internal_hosts`.  (No public-suffix list is used: `a.example.com`
   and `b.example.com` are strangers until `example.com` is in the settings.)
3. the kind of the settings' `kinds`, then of their `engines` (`search`), then of `data/referrers.json`: the
   entry with the most labels wins (`mail.google.com` before `google.*`).
4. `link`: any other host.

An entry `google.*` means that label before a public suffix: at most two more labels of at most three
characters (`google.de`, `www.google.co.uk`), so `google.example.com` is none.  Android apps
(`android-app://com.google…`) are entries by package name.  `paid` here is an ad server seen as referrer; paid
search shows in `click_id`.

`search_term` is there for the few engines that still send it.
"""

from __future__ import annotations

from functools import lru_cache
from importlib import resources

import msgspec

from headwater.process.enrich import page
from headwater.process.enrich.distinct import Memo, Row, texts
from headwater.process.enrich.settings import ReferrerKind, ReferrerSettings

FIELDS = texts("referrer_host", "referrer_kind", "search_engine", "search_term")


class Source(msgspec.Struct, frozen=True):
    """What a host in the table is."""

    kind: ReferrerKind
    engine: str | None = None
    parameters: tuple[str, ...] = ()


class Tables(msgspec.Struct, frozen=True):
    """data/referrers.json: engines with name and query parameters, and hosts of the other kinds."""

    search: dict[str, tuple[str, tuple[str, ...]]]
    social: tuple[str, ...]
    email: tuple[str, ...]
    paid: tuple[str, ...]


Table = dict[str, Source]


def memo(settings: ReferrerSettings) -> Memo:
    """Memo over two columns: the referrer URL, the page's host (`page_host`)."""
    table = table_of(settings)

    def function(referrer: str | None, page_host: str | None) -> Row:
        return describe(referrer, page_host, table, settings)

    return Memo(function, FIELDS, entries_max=settings.entries_max)


def describe(referrer: str | None, page_host: str | None, table: Table, settings: ReferrerSettings) -> Row:
    """The values of FIELDS, in their order.  Never raises."""
    address = page.split((referrer or "")[: settings.chars_max])
    host = address.host
    if host is None:
        return (None, "direct" if page_host else None, None, None)
    host = host[:255]
    if _internal(host, page_host, settings.internal_hosts):
        return (host, "internal", None, None)
    source = find(host, table)
    if source is None:
        return (host, "link", None, None)
    term = None
    if source.parameters and address.search:
        found = page.parameters(address.search, frozenset(source.parameters), 64)
        term = next((page.value(found[name]) for name in source.parameters if found.get(name)), None)
    return (host, source.kind, source.engine, term[: settings.value_chars_max] or None if term else None)


def find(host: str, table: Table) -> Source | None:
    """The table's entry for the host or the nearest domain above it."""
    labels = host.split(".")[-8:]
    for start in range(len(labels)):
        if source := table.get(".".join(labels[start:])):
            return source
        # `google.*` stands for the label and its public suffix, as the last of the host
        for width in (1, 2):
            name, suffix = labels[start:-width], labels[-width:]
            short = name and all(len(label) <= 3 for label in suffix)
            if short and (source := table.get(".".join(name) + ".*")):
                return source
    return None


def table_of(settings: ReferrerSettings) -> Table:
    """The built-in table with the settings' own entries over it."""
    table = dict(_built_in())
    table.update({host.lower(): Source("search", host, names) for host, names in settings.engines.items()})
    for host, kind in settings.kinds.items():
        known = table.get(host.lower())
        table[host.lower()] = known if known and known.kind == kind else Source(kind)
    return table


@lru_cache(maxsize=1)
def _built_in() -> Table:
    text = resources.files("headwater.process.enrich").joinpath("data/referrers.json").read_bytes()
    tables = msgspec.json.decode(text, type=Tables)
    table = {host: Source("search", name, names) for host, (name, names) in tables.search.items()}
    for kind, hosts in (("social", tables.social), ("email", tables.email), ("paid", tables.paid)):
        table.update({host: Source(msgspec.convert(kind, ReferrerKind)) for host in hosts})
    return table


def _internal(host: str, page_host: str | None, internal_hosts: tuple[str, ...]) -> bool:
    if page_host:
        here, there = page_host.lower().removeprefix("www."), host.removeprefix("www.")
        if here == there or here.endswith("." + there) or there.endswith("." + here):
            return True
    return any(_below(host, own.lower()) for own in internal_hosts)


def _below(host: str, domain: str) -> bool:
    return host == domain or host.endswith("." + domain)
