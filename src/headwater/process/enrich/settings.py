"""Settings of the enrich step (`process.enrich` in the configuration).

Everything here reloads: a change builds new memos, at the next cut.  Rows already written keep what they
have; replay with today's settings is the way to change them.
"""

from __future__ import annotations

from typing import Literal

import msgspec

ReferrerKind = Literal["search", "social", "email", "paid", "internal", "link", "direct"]


class UserAgentSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How user agents and client hints are read."""

    entries_max: int = 32_768
    """Distinct (user agent, hints) remembered per process.  About 0.7 KB each; a large site has 10–30 k a
    day."""
    chars_max: int = 1_024
    """Characters of a user agent that are read; real ones have up to 400, and regex time grows with
    length."""
    bot_patterns: tuple[str, ...] = ()
    """RE2 patterns of further crawlers, searched case-sensitively; bot_reason is `crawler:<pattern>`."""
    bot_patterns_off: tuple[str, ...] = ("okhttp",)
    """Patterns of crawler-user-agents that do not count, as written there.  okhttp: it is every Android
    app."""

    def __post_init__(self) -> None:
        if not self.bot_patterns:
            return
        import re2

        for pattern in self.bot_patterns:
            try:
                re2.compile(pattern)
            except re2.error as error:
                raise ValueError(f"bot_patterns: expected RE2 patterns, got {pattern!r}: {error}") from None


class PageSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How page URLs are taken apart."""

    entries_max: int = 32_768
    """Distinct URLs remembered per process; about 1.2 KB each.  Campaign traffic hardly repeats, so few
    suffice."""
    chars_max: int = 8_192
    """Characters of a URL that are read; what follows is cut."""
    value_chars_max: int = 1_024
    """Characters of each output (path, search, campaign parameter, click id); what follows is cut."""
    parameters_max: int = 256
    """Query parameters that are looked at, from the left."""
    click_ids: tuple[str, ...] = ()
    """Names of further click-id parameters, tried after the built-in ones, in this order."""


class ReferrerSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How referrers are classed."""

    entries_max: int = 16_384
    """Distinct (referrer, page host) remembered per process; about 0.7 KB each."""
    chars_max: int = 8_192
    """Characters of a referrer that are read."""
    value_chars_max: int = 1_024
    """Characters of a search term that are kept."""
    internal_hosts: tuple[str, ...] = ()
    """Hosts that are one's own, each with all its subdomains: `example.com` covers `shop.example.com`."""
    kinds: dict[str, ReferrerKind] = msgspec.field(default_factory=dict)
    """Host (with its subdomains) → kind; goes before the built-in table."""
    engines: dict[str, tuple[str, ...]] = msgspec.field(default_factory=dict)
    """Host of a further search engine → its query parameters; the engine's name is the host."""


class LanguageSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How languages are read."""

    entries_max: int = 4_096
    """Distinct (locale, Accept-Language) remembered per process; about 0.4 KB each."""
    chars_max: int = 512
    """Characters of either input that are read."""


class GeoSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which MMDB files tell the place of an address."""

    databases: tuple[str, ...] = ()
    """Paths of MMDB files; the first that knows a field gives it (for example a city file and an ASN
    file)."""
    language: str = "en"
    """Language of names in the database; English where it lacks this one."""
    entries_max: int = 65_536
    """Distinct addresses remembered per process; about 0.6 KB each."""
    reload_check_s: float = 10.0
    """Seconds between looks at the files.  A changed file is taken when two looks in a row found it the
    same."""


class TimeSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the canonical time of an event is found."""

    time_past_max_s: float = 86_400.0
    """A corrected time is at most so many seconds before its receive time; 0: no limit.  Default: one day,
    the same as for identity (protocol.md §10).  Trackers that keep events offline for days want more."""
    time_future_max_s: float = 0.0
    """A time is at most so many seconds after its receive time.  Default: none, as nothing is received before
    it happens."""


class EnrichSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All of enrich."""

    user_agent: UserAgentSettings = UserAgentSettings()
    page: PageSettings = PageSettings()
    referrer: ReferrerSettings = ReferrerSettings()
    language: LanguageSettings = LanguageSettings()
    geo: GeoSettings = GeoSettings()
    time: TimeSettings = TimeSettings()
