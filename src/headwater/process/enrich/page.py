"""Page URL → its parts, campaign parameters and click id.

Reading is lenient and never raises: what browsers and people send is cut, not refused.  The split is RFC
3986's without checks; host and scheme in lower case, punycode untouched (`xn--…` stays), user and password
left out, a port that is the scheme's own left out.  A text without scheme (`/shop?x=1`) has path and search
only.

* Campaign: `utm_*` from the query, names in any case, the first of equal names; an empty value is null.
* Click id: of the parameters in `CLICK_IDS` the first *of this table* that is there; `click_id_kind` is its
  name.
* Percent-encoding is undone in campaign values and click ids only (`+` is a space in the former); broken
  encoding stays as it is, bytes that are no UTF-8 become U+FFFD.  Path and search stay as sent: they are
  compared with what the server's own logs say.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import unquote

from headwater.process.enrich.distinct import Memo, Row, texts
from headwater.process.enrich.settings import PageSettings

CAMPAIGN = ("utm_source", "utm_medium", "utm_campaign", "utm_term", "utm_content", "utm_id")

CLICK_IDS = (
    "gclid",  # Google Ads
    "gbraid",  # Google Ads, app to web without tracking consent
    "wbraid",  # Google Ads, web to app
    "dclid",  # Google Display & Video, Campaign Manager
    "msclkid",  # Microsoft Advertising
    "ttclid",  # TikTok
    "li_fat_id",  # LinkedIn
    "twclid",  # X
    "fbclid",  # Meta, also on unpaid links
    "yclid",  # Yandex Direct
    "ysclid",  # Yandex Search
    "sccid",  # Snapchat
    "epik",  # Pinterest
    "rdt_cid",  # Reddit
    "qclid",  # Quora
    "tblci",  # Taboola
    "obclid",  # Outbrain
    "ob_click_id",  # Outbrain
    "irclickid",  # impact.com
    "cjevent",  # CJ Affiliate
    "awc",  # Awin
    "vmcid",  # Yahoo
    "wickedid",  # Wicked Reports
    "mc_eid",  # Mailchimp
    "_kx",  # Klaviyo
    "igshid",  # Instagram, shares
    "gclsrc",  # Google Ads: source of the click, when nothing better is there
)
"""Parameters that carry a click id; ad networks go before links that anyone shares."""

FIELDS = texts("page_host", "page_path", "page_search", *CAMPAIGN, "click_id", "click_id_kind")

_SCHEME = re.compile(
    r"[a-zA-Z][a-zA-Z0-9+.-]{0,30}:(?=//)|(?:about|data|blob|file|javascript|mailto):", re.IGNORECASE
)
_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}
_CONTROLS = re.compile(r"[\x00-\x20\x7f]+")


class Address(NamedTuple):
    """A URL's parts; None where it has none.  `search` begins with `?`, `fragment` with `#`."""

    scheme: str | None
    host: str | None
    port: int | None
    path: str | None
    search: str | None
    fragment: str | None


def memo(settings: PageSettings) -> Memo:
    """Memo over one column: the page URL.

    Most URLs of a site are few paths with many queries: both halves are remembered by themselves, so that a new
    combination costs two look-ups.
    """
    wanted = frozenset((*CAMPAIGN, *CLICK_IDS, *(name.lower() for name in settings.click_ids)))
    click_ids = (*CLICK_IDS, *(name.lower() for name in settings.click_ids))
    limit = settings.value_chars_max

    @lru_cache(settings.entries_max)
    def place(rest: str) -> tuple[str | None, str | None]:
        address = split(rest)
        return _cut(address.host, 255), _cut(address.path, limit)

    @lru_cache(settings.entries_max)
    def asked(query: str) -> Row:
        return described(query, settings, wanted, click_ids)

    def function(url: str | None) -> Row:
        rest, _, query = (url or "")[: settings.chars_max].strip().partition("#")[0].partition("?")
        return place(rest) + asked(query)

    return Memo(function, FIELDS, entries_max=settings.entries_max)


def described(query: str, settings: PageSettings, wanted: frozenset[str], click_ids: tuple[str, ...]) -> Row:
    """page_search and what follows it in FIELDS; `wanted` holds the parameters to look for, in lower case."""
    if not query:
        return (None,) * (len(FIELDS) - 2)
    limit = settings.value_chars_max
    found = parameters(query, wanted, settings.parameters_max)
    campaign = [value(found[name])[:limit] or None if name in found else None for name in CAMPAIGN]
    kind = next((name for name in click_ids if found.get(name)), None) if found else None
    click_id = _CONTROLS.sub("", unquote(found[kind]))[:limit] if kind else None
    return (_cut(f"?{query}", limit), *campaign, click_id, kind)


def split(url: str) -> Address:
    """The parts of a URL.  Never raises."""
    rest = url.strip()
    if not rest:
        return Address(None, None, None, None, None, None)
    rest, _, after = rest.partition("#")
    fragment = f"#{after}" if after else None
    rest, _, query = rest.partition("?")
    search = f"?{query}" if query else None
    scheme = host = port = None
    if match := _SCHEME.match(rest):
        scheme = match.group()[:-1].lower()
        rest = rest[match.end() :]
    if rest.startswith("//"):
        authority, mark, path = rest[2:].partition("/")
        host, port = _authority(authority, scheme)
        rest = mark + path or ("/" if host else "")
    return Address(scheme, host, port, rest or None, search, fragment)


def parameters(search: str, wanted: frozenset[str], parameters_max: int) -> dict[str, str]:
    """The wanted parameters of a query, still encoded; the first of equal names."""
    found: dict[str, str] = {}
    for pair in search.removeprefix("?").split("&", parameters_max)[:parameters_max]:
        name, _, text = pair.partition("=")
        name = name.lower().removeprefix("amp;")  # of an address copied out of HTML
        if name in wanted and name not in found:
            found[name] = text
    return found


def value(encoded: str) -> str:
    """A query value decoded: `+` is a space, broken encoding stays, control characters become one space."""
    return _CONTROLS.sub(" ", unquote(encoded.replace("+", " "))).strip()


def _authority(authority: str, scheme: str | None) -> tuple[str | None, int | None]:
    place = authority.rpartition("@")[2]
    host, mark, digits = place.rpartition(":")
    if not mark or "]" in digits:  # no port, or the colons of a bare IPv6 address
        host, digits = place, ""
    port = int(digits) if digits.isascii() and digits.isdigit() and len(digits) <= 5 else None
    if port is not None and (port > 65_535 or port == _PORTS.get(scheme or "")):
        port = None
    return host.lower().rstrip(".") or None, port


def _cut(text: str | None, limit: int) -> str | None:
    return text[:limit] if text else None
