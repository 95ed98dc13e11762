"""Synthetic events as in speed.md part 2: nested Segment-like events of 1,463 B mean, 3,000 user agents and 2 %
duplicates, always the same for the same seed. Each has 7 to 16 custom properties, out of 18 that the site knows (a
table of about 65 columns) or, `wide`, out of 60 (about 110 columns).

Also writes the payload files that the wrk scripts in `load/` read. A payload line holds `@ID@` where the
script puts a message id that is unique in the run, so nothing on the way can profit from equal bodies.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

MARK = "@ID@"
SDK_PREFIX = "ajs-next-1760000000000-"
ID_BYTES = 36  # what the scripts put in the place of MARK: nonce (8), counter (12), text
KEY = "web-benchmark-key"  # the write key of every run; bodies carry it too, as the browser SDK does
_WORDS = (
    "river", "stone", "paper", "garden", "window", "silver", "market", "copper", "velvet", "harbor", "meadow",
    "lantern", "orchard", "compass", "thunder", "marble", "saddle", "cotton", "willow", "ember", "canyon",
    "falcon", "anchor", "ginger",
)  # fmt: skip
_EVENTS = (
    "Product Viewed",
    "Product Added",
    "Cart Viewed",
    "Checkout Started",
    "Order Completed",
    "Products Searched",
)
_COUNTRIES = ("en-US", "de-DE", "fr-FR", "ja-JP", "pt-BR", "sv-SE", "en-GB", "es-MX")
_TEXT_KEYS = [
    f"{a}_{b}"
    for a in ("product", "cart", "user", "page", "promo", "shop")
    for b in ("name", "color", "group", "label", "source")
]
_NUMBER_KEYS = [
    f"{a}_{b}"
    for a in ("price", "tax", "weight", "count", "score")
    for b in ("net", "gross", "total", "last")
]
_FLAG_KEYS = [
    f"is_{w}"
    for w in ("member", "gift", "sale", "new", "express", "bundle", "digital", "promo", "returning", "tested")
]
WIDE = (_TEXT_KEYS, _NUMBER_KEYS, _FLAG_KEYS)
NARROW = (_TEXT_KEYS[:9], _NUMBER_KEYS[:6], _FLAG_KEYS[:3])
assert sum(map(len, WIDE)) == 60 and sum(map(len, NARROW)) == 18


@dataclass(frozen=True, slots=True)
class World:
    """What events draw from: user agents, visitors, pages."""

    user_agents: tuple[str, ...]
    visitors: tuple[str, ...]
    pages: tuple[tuple[str, str], ...]
    keys: tuple[list[str], list[str], list[str]]
    """Names of text, number and flag properties."""


def _uuid(rng: random.Random) -> str:
    h = f"{rng.getrandbits(128):032x}"
    return f"{h[:8]}-{h[8:12]}-4{h[13:16]}-a{h[17:20]}-{h[20:]}"


def user_agent(rng: random.Random) -> str:
    major, build = rng.randint(100, 142), rng.randint(1000, 7999)
    system = rng.choice(
        (
            "Windows NT 10.0; Win64; x64",
            f"Macintosh; Intel Mac OS X 10_{rng.randint(13, 15)}_{rng.randint(0, 7)}",
            "X11; Linux x86_64",
            f"Linux; Android {rng.randint(10, 16)}; Pixel {rng.randint(5, 9)}",
        )
    )
    engine = "AppleWebKit/537.36 (KHTML, like Gecko)"
    return f"Mozilla/5.0 ({system}) {engine} Chrome/{major}.0.{build}.{rng.randint(10, 199)} Safari/537.36"


def world(
    seed: int = 1, user_agents: int = 3000, visitors: int = 20_000, pages: int = 500, *, wide: bool = False
) -> World:
    rng = random.Random(seed)
    agents: dict[str, None] = {}
    while len(agents) < user_agents:
        agents[user_agent(rng)] = None
    paths = [
        (
            f"/{rng.choice(_WORDS)}/{rng.choice(_WORDS)}-{n}",
            f"{rng.choice(_WORDS).title()} {rng.choice(_WORDS)} | Shop",
        )
        for n in range(pages)
    ]
    keys = WIDE if wide else NARROW
    return World(tuple(agents), tuple(_uuid(rng) for _ in range(visitors)), tuple(paths), keys)


def _words(rng: random.Random, least: int, most: int) -> str:
    return " ".join(rng.choices(_WORDS, k=rng.randint(least, most)))


def _properties(rng: random.Random, w: World) -> dict[str, object]:
    texts, numbers, flags = w.keys
    out: dict[str, object] = {}
    for key in rng.sample(texts, rng.randint(4, 8)):
        out[key] = _words(rng, 1, 6)
    for key in rng.sample(numbers, rng.randint(2, 5)):
        out[key] = round(rng.uniform(0, 900), 2) if rng.random() < 0.7 else rng.randint(0, 5000)
    for key in rng.sample(flags, rng.randint(1, 3)):
        out[key] = rng.random() < 0.5
    return out


def event(rng: random.Random, w: World, message_id: str, at_ms: int = 1_760_000_000_000) -> dict[str, object]:
    path, title = rng.choice(w.pages)
    campaign = {
        "name": rng.choice(_WORDS),
        "source": "newsletter",
        "medium": "email",
        "content": rng.choice(_WORDS),
    }
    known = rng.random() < 0.3
    second = f"2025-10-09T{at_ms // 3_600_000 % 24:02d}:{at_ms // 60_000 % 60:02d}:{at_ms // 1000 % 60:02d}"
    return {
        "type": "track",
        "event": rng.choice(_EVENTS),
        "messageId": message_id,
        "anonymousId": rng.choice(w.visitors),
        "userId": f"user-{rng.randint(1, 50_000)}" if known else None,
        "timestamp": f"{second}.{at_ms % 1000:03d}Z",
        "sentAt": f"{second}.{(at_ms + 7) % 1000:03d}Z",
        "context": {
            "library": {"name": "analytics.js", "version": "next-1.82.0"},
            "locale": rng.choice(_COUNTRIES),
            "timezone": "Europe/Berlin",
            "userAgent": rng.choice(w.user_agents),
            "page": {
                "path": path,
                "referrer": f"https://www.search.example/?q={rng.choice(_WORDS)}",
                "search": f"?utm_source=newsletter&utm_campaign={campaign['name']}",
                "title": title,
                "url": f"https://shop.example{path}?utm_source=newsletter&utm_campaign={campaign['name']}",
            },
            "screen": {
                "width": rng.choice((1280, 1440, 1920, 390)),
                "height": rng.choice((720, 900, 1080, 844)),
                "density": 2,
            },
            "campaign": campaign,
            "traits": {
                "plan": rng.choice(("free", "pro", "team")),
                "company": {"name": _words(rng, 1, 2), "size": rng.randint(1, 900)},
            },
        },
        "properties": _properties(rng, w),
        "integrations": {"All": True},
        "_metadata": {
            "bundled": ["Segment.io"],
            "unbundled": [],
            "nodeVersion": f"v{rng.randint(16, 24)}.{rng.randint(0, 20)}.0",
        },
        "writeKey": KEY,
    }


def encode(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def lines(count: int, seed: int = 7, duplicates: float = 0.02, *, wide: bool = False) -> Iterator[bytes]:
    """`count` events as JSON, one line each; `duplicates` of them repeat an earlier one of the last 50,000."""
    rng, w = random.Random(seed), world(wide=wide)
    recent: list[bytes] = []
    for n in range(count):
        if recent and rng.random() < duplicates:
            yield rng.choice(recent)
            continue
        line = encode(
            event(rng, w, f"ajs-next-{1_760_000_000_000 + n * 3}-{_uuid(rng)}", 1_760_000_000_000 + n * 3)
        ).encode()
        if len(recent) < 50_000:
            recent.append(line)
        else:
            recent[n % 50_000] = line
        yield line


def _pixel(rng: random.Random, w: World) -> str:
    path, title = rng.choice(w.pages)
    pairs = {
        "key": KEY,
        "type": "page",
        "event": rng.choice(_EVENTS),
        "anonymousId": rng.choice(w.visitors),
        "name": title,
        "url": f"https://shop.example{path}",
        "path": path,
        "title": title,
        "ref": "https://www.search.example/",
        "sw": 1920,
        "sh": 1080,
        "dpr": 2,
        "tz": "Europe/Berlin",
        "lang": rng.choice(_COUNTRIES),
        "sid": rng.randint(10**8, 10**9),
        "pv": rng.randint(1, 40),
        "utm_source": "newsletter",
        "utm_campaign": rng.choice(_WORDS),
        "price": 19.9,
        "qty": rng.randint(1, 9),
    }
    assert len(pairs) == 20  # and messageId: 21 parameters
    return "/pixel.gif?messageId=" + MARK + "&" + urlencode(pairs)


def write_payloads(folder: Path) -> dict[str, float]:
    """Writes the files that load/*.lua read; returns the mean body sizes (the report states them)."""
    folder.mkdir(parents=True, exist_ok=True)
    rng, w = random.Random(11), world()
    single = [encode(event(rng, w, SDK_PREFIX + MARK)) for _ in range(256)]
    batches = [
        encode(
            {
                "batch": [event(rng, w, SDK_PREFIX + MARK) for _ in range(100)],
                "sentAt": "2025-10-09T08:00:00.000Z",
            }
        )
        for _ in range(16)
    ]
    pixels = [_pixel(rng, w) for _ in range(256)]
    for name, texts in (
        ("single", single),
        ("batch", batches),
        ("pixel", pixels),
        ("user-agents", w.user_agents),
        (
            "referers",
            [f"https://shop.example{p}?utm_source=newsletter&v={n}" for n, (p, _) in enumerate(w.pages * 6)],
        ),
        (
            "cookies",
            [
                f"_ga=GA1.1.{rng.randint(10**8, 10**9)}.{rng.randint(10**9, 2 * 10**9)};"
                f" session={_uuid(rng)}; theme={rng.choice(_WORDS)}"
                for _ in range(4000)
            ],
        ),
    ):
        (folder / f"{name}.txt").write_text("\n".join(texts) + "\n", encoding="utf-8")

    def mean(texts: list[str]) -> float:
        return sum(len(t.encode()) + t.count(MARK) * (ID_BYTES - len(MARK)) for t in texts) / len(texts)

    return {"single_bytes": mean(single), "batch_bytes": mean(batches), "pixel_bytes": mean(pixels)}
