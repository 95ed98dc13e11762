"""Navigator locale or Accept-Language → `language` and `locale`.

The tracker's locale (`navigator.language`) goes first, as it is the visitor's own; else the entry of
Accept-Language with the greatest weight, the first of equals (RFC 9110 §12.5.4).  `locale` is in the form of
BCP 47: language lower, Script title, REGION upper case, `-` between (`zh_hant_tw.UTF-8` → `zh-Hant-TW`);
variants in lower case, extensions (`-u-…`, `-x-…`) left out.  `language` is its first subtag.  Retired codes
get their successor (`iw` → `he`).  What is no language tag (`*`, `C`, junk) is null; no registry is
consulted.
"""

from __future__ import annotations

import re

from headwater.process.enrich.distinct import Memo, Row, texts
from headwater.process.enrich.settings import LanguageSettings

FIELDS = texts("language", "locale")

_TAG = re.compile(
    r"(?P<language>[a-zA-Z]{2,3})(?P<extlang>(?:-[a-zA-Z]{3}(?![a-zA-Z0-9]))*)(?:-(?P<script>[a-zA-Z]{4}))?"
    r"(?:-(?P<region>[a-zA-Z]{2}|[0-9]{3}))?(?P<variants>(?:-(?:[a-zA-Z0-9]{5,8}|[0-9][a-zA-Z0-9]{3}))*)"
    r"(?:-[a-zA-Z0-9]-.*)?",
    re.ASCII,
)
_RETIRED = {"iw": "he", "in": "id", "ji": "yi", "jw": "jv", "mo": "ro"}
_ENTRIES_MAX = 32


def memo(settings: LanguageSettings) -> Memo:
    """Memo over two columns: navigator locale, Accept-Language."""

    def function(locale: str | None, accept_language: str | None) -> Row:
        limit = settings.chars_max
        return describe((locale or "")[:limit], (accept_language or "")[:limit])

    return Memo(function, FIELDS, entries_max=settings.entries_max)


def describe(locale: str, accept_language: str) -> Row:
    """(language, locale).  Never raises."""
    tag = normal(locale) or preferred(accept_language)
    return (tag.partition("-")[0], tag) if tag else (None, None)


def preferred(accept_language: str) -> str | None:
    """The locale with the greatest weight that is a language tag."""
    best: str | None = None
    best_weight = 0.0
    for entry in accept_language.split(",")[:_ENTRIES_MAX]:
        text, _, parameters = entry.partition(";")
        weight = _weight(parameters)
        if weight > best_weight and (tag := normal(text)):
            best, best_weight = tag, weight
    return best


def normal(text: str) -> str | None:
    """The tag in the form of BCP 47, or None where it is no language tag."""
    bare = text.strip().partition(".")[0].partition("@")[0].replace("_", "-")
    match = _TAG.fullmatch(bare)
    if match is None:
        return None
    language = match["language"].lower()
    if language == "und":
        return None
    parts = [_RETIRED.get(language, language) + match["extlang"].lower()]
    if match["script"]:
        parts.append(match["script"].title())
    if match["region"]:
        parts.append(match["region"].upper())
    return "-".join(parts) + match["variants"].lower()


def _weight(parameters: str) -> float:
    name, _, number = parameters.partition("=")
    if name.strip().lower() != "q":
        return 1.0
    try:
        weight = float(number)
    except ValueError:
        return 0.0
    return weight if 0.0 <= weight <= 1.0 else 0.0
