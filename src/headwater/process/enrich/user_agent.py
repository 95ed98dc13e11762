"""User agent and client hints → browser, system, device, bot or not.

Recognition is ua-parser's with its Rust back-end (13 µs for a new string; the pure Python one needs 570),
built at first use, once per process (0.5 s).  Client hints correct what the browser froze (`client_hints`);
`bots` tells who is one, `device_kind` the kind of device.

Versions are `major.minor.patch`, up to the first part that is missing.  `device_model` of a frozen Android
(`K`) is null.  Limits: Windows 11 without hints is Windows 10.  A null user agent without hints gives nulls,
and is no bot (see `bots`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from sys import intern
from typing import NamedTuple

import pyarrow as pa
from ua_parser import Domain, PartialResult
from ua_parser.loaders import load_lazy_builtins
from ua_parser.regex import Resolver

from headwater.process.enrich import client_hints, device_kind
from headwater.process.enrich.bots import Bots
from headwater.process.enrich.distinct import Field, Memo, Row, texts
from headwater.process.enrich.settings import UserAgentSettings

FIELDS = (
    *texts("ua_family", "ua_version", "os_family", "os_version"),
    *texts("device_family", "device_brand", "device_model", "device_kind"),
    Field("is_bot", pa.bool_()),
    *texts("bot_reason"),
)

_CHROMES = ("Chrome", "Chromium", "Chrome Mobile WebView")
_FROZEN_MODEL = re.compile(r"Android 10; K\)")


class _Seen(NamedTuple):
    """The parts of a user agent, before hints."""

    family: str | None
    version: str | None
    system: str | None
    system_version: str | None
    device: str | None
    brand: str | None
    model: str | None


_NOTHING = _Seen(None, None, None, None, None, None, None)


HINTS = (
    "sec-ch-ua",
    "sec-ch-ua-platform",
    "sec-ch-ua-mobile",
    "sec-ch-ua-platform-version",
    "sec-ch-ua-model",
)
"""Request headers, in the order of ``describe``."""
_BETWEEN = "\0"
"""No header holds it."""


def join_hints(hints: Sequence[str | None]) -> str | None:
    """The headers of HINTS as one text: they come together, so one column is enough. None where none was sent."""
    return _BETWEEN.join(hint or "" for hint in hints) if any(hints) else None


def memo(settings: UserAgentSettings) -> Memo:
    """Memo over two columns: user agent, hints (``join_hints``)."""
    bots = Bots(settings)

    def function(user_agent: str | None, hints: str | None) -> Row:
        parts = hints.split(_BETWEEN) if hints else ()
        return describe(bots, user_agent, *(part or None for part in parts), chars_max=settings.chars_max)

    return Memo(function, FIELDS, entries_max=settings.entries_max)


def describe(
    bots: Bots,
    user_agent: str | None,
    brands: str | None = None,
    platform: str | None = None,
    mobile: str | None = None,
    platform_version: str | None = None,
    model: str | None = None,
    *,
    chars_max: int = 1_024,
) -> Row:
    """The values of FIELDS, in their order.  Never raises."""
    text = None if user_agent is None else user_agent[:chars_max]
    seen = _parse(text) if text else _NOTHING
    reason = bots.reason(text)
    hinted_mobile = None
    if brands or platform or mobile or platform_version or model:
        hints = client_hints.read(brands, platform, mobile, platform_version, model)
        seen, hinted_mobile = _correct(seen, hints), hints.mobile
        if hints.headless and reason is None:
            reason = "headless"
    elif text is None:
        return (*_NOTHING, None, False, None)
    kind = "bot" if reason else device_kind.of(text or "", seen.system, hinted_mobile)
    return (*seen, kind, reason is not None, reason)


@lru_cache(maxsize=4_096)  # the same user agent comes with several hints
def _parse(text: str) -> _Seen:
    result = _resolver()(text, Domain.ALL)
    browser, system, device = result.user_agent, result.os, result.device
    frozen = _FROZEN_MODEL.search(text) is not None
    if not (browser or system or device):
        return _NOTHING
    return _Seen(
        _shared(browser.family) if browser else None,
        _version(browser.major, browser.minor, browser.patch) if browser else None,
        _shared(system.family) if system else None,
        _version(system.major, system.minor, system.patch) if system else None,
        *((None, None, None) if frozen else _device(result)),
    )


def _device(result: PartialResult) -> tuple[str | None, str | None, str | None]:
    device = result.device
    if device is None:
        return None, None, None
    return _shared(device.family), _shared(device.brand), _shared(device.model)


def _correct(seen: _Seen, hints: client_hints.Hints) -> _Seen:
    family, version = seen.family, seen.version
    if hints.family and (family is None or (family.startswith("Chrome") and hints.family not in _CHROMES)):
        family, version = hints.family, hints.version
    elif hints.version and "." in hints.version and _major(hints.version) == _major(version):
        version = hints.version
    system, system_version = seen.system, seen.system_version
    if (
        hints.system
        and hints.system != system
        and not (hints.system == "Linux" and system in device_kind.DESKTOPS)
    ):
        system, system_version = hints.system, None
    if hints.system_version and hints.system == system:
        system_version = hints.system_version
    device, brand, model = seen.device, seen.brand, seen.model
    if hints.model:
        device, brand = _named(hints.model)
        model = hints.model
    return _Seen(family, version, system, system_version, device, brand, model)


def _named(model: str) -> tuple[str | None, str | None]:
    """Family and brand of a model, asked of ua-parser in the form that was usual before the freeze."""
    text = (
        f"Mozilla/5.0 (Linux; Android 10; {model}) AppleWebKit/537.36 Chrome/100.0.0.0 Mobile Safari/537.36"
    )
    family, brand, _ = _device(_resolver()(text, Domain.DEVICE))
    return family or model, None if brand and brand.startswith("Generic") else brand


def _version(*parts: str | None) -> str | None:
    """`17.4.1` of its parts, up to the first that is missing."""
    known: list[str] = []
    for part in parts:
        if not part:
            break
        known.append(part)
    return ".".join(known) or None


def _major(version: str | None) -> str:
    return (version or "").partition(".")[0]


def _shared(text: str | None) -> str | None:
    """One object per family, system and model in the whole cache."""
    return intern(text) if text else None


@lru_cache(maxsize=1)
def _resolver() -> Resolver:
    return Resolver(load_lazy_builtins())
