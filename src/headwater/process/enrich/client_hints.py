"""Client hints: what a browser tells beside its frozen user agent.

Since 2023 Chromium browsers send a user agent that says the same for all: `Windows NT 10.0`, `Mac OS X
10_15_7`, `Android 10; K`, versions `124.0.0.0`.  The truth is in `Sec-CH-UA*`
(https://wicg.github.io/ua-client-hints/). Values are structured-field texts (`"Windows"`, `?1`); they are
read leniently, since what a script sends as `navigator.userAgentData` comes without quotes.

Rules:

* brand: the most telling of the list, made-up ones (`Not/A)Brand`) left out, `Chromium` only where it is
  alone;
* `Windows` by platform version, as Microsoft documents: 0.1 → 7, 0.2 → 8, 0.3 → 8.1, 1–12 → 10, from 13 → 11;
* `macOS`, `Android`, `Chrome OS`: the platform version is the system's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_BRAND = re.compile(r'"((?:[^"\\]|\\.){1,100})"\s*;\s*v\s*=\s*"([^"]{0,40})"')
_VERSION = re.compile(r"\d+(?:\.\d+){0,3}", re.ASCII)
_LETTERS = re.compile(r"[^a-z]")

FAMILIES = {
    "Google Chrome": "Chrome",
    "Microsoft Edge": "Edge",
    "YaBrowser": "Yandex Browser",
    "Yandex": "Yandex Browser",
    "Android WebView": "Chrome Mobile WebView",
    "Opera GX": "Opera",
    "Opera Mobile": "Opera Mobile",
    "DuckDuckGo": "DuckDuckGo",
    "Samsung Internet": "Samsung Internet",
    "Microsoft Edge WebView2": "Edge WebView2",
}
"""Brand → family as ua-parser calls it; a brand that is not here is its own family."""

SYSTEMS = {
    "windows": "Windows",
    "macos": "Mac OS X",
    "android": "Android",
    "chrome os": "Chrome OS",
    "chromium os": "Chrome OS",
    "linux": "Linux",
    "ios": "iOS",
    "fuchsia": "Fuchsia",
}
"""Platform → operating system as ua-parser calls it."""


@dataclass(frozen=True, slots=True)
class Hints:
    """What the hints say; None where they say nothing."""

    family: str | None
    version: str | None
    system: str | None
    system_version: str | None
    mobile: bool | None
    model: str | None
    headless: bool


def read(
    brands: str | None,
    platform: str | None,
    mobile: str | None,
    platform_version: str | None,
    model: str | None,
) -> Hints:
    """Hints from the five header values (unquoted ones are fine).  Never raises."""
    name, version = _brand(brands or "")
    system = SYSTEMS.get(_text(platform).lower())
    number = _VERSION.match(_text(platform_version))
    return Hints(
        family=FAMILIES.get(name, name) if name and name != "HeadlessChrome" else None,
        version=version,
        system=system,
        system_version=_system_version(system, number.group()) if number else None,
        mobile={"?1": True, "?0": False, "true": True, "false": False}.get(_text(mobile).lower()),
        model=_text(model)[:100] or None,
        headless='"HeadlessChrome"' in (brands or ""),
    )


def _text(value: str | None) -> str:
    if not value:
        return ""
    return value.strip().strip('"').strip()


def _brand(brands: str) -> tuple[str | None, str | None]:
    best: tuple[str | None, str | None] = (None, None)
    for name, version in _BRAND.findall(brands[:1_024]):
        letters = _LETTERS.sub("", name.lower())
        if "brand" in letters and "not" in letters:
            continue
        if best[0] in (None, "Chromium") and name != best[0]:
            number = _VERSION.match(version)
            best = (name, number.group() if number else None)
    return best


def _system_version(system: str | None, version: str) -> str | None:
    if system != "Windows":
        return version.removesuffix(".0.0") if system == "Android" else version
    major, _, rest = version.partition(".")
    if int(major[:6]) >= 13:
        return "11"
    if int(major[:6]) >= 1:
        return "10"
    return {"1": "7", "2": "8", "3": "8.1"}.get(rest.partition(".")[0])
