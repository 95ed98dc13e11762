"""µs per event of each enrich function: batches of 10 k rows, 3,000 distinct values, CPU time, best of 15.

    PYTHONPATH=src python benchmarks/enrich.py

`first` is the first sight of every distinct value, `warm` a batch of known ones, `codes` the same with
dictionary arrays; `per distinct` is what a new value costs.
"""

import random
import tempfile
import time as clock
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pyarrow as pa
from mmdb_writer import MMDBWriter
from netaddr import IPSet  # type: ignore[import-untyped]

from headwater.process.enrich import geo, language, page, referrer, settings, time, user_agent
from headwater.process.enrich.distinct import Memo

ROWS, DISTINCT, RUNS = 10_000, 3_000, 15
dice = random.Random(7)


def spread(values: list[str | None]) -> pa.Array:
    return pa.array([dice.choice(values) for _ in range(ROWS)], pa.string())


def cost(run: Callable[[], object], runs: int = RUNS) -> float:
    best = float("inf")
    for _ in range(runs):
        begin = clock.process_time()
        run()
        best = min(best, clock.process_time() - begin)
    return best / ROWS * 1e6


def report(name: str, make: Callable[[], Memo], *columns: pa.Array) -> None:
    make().apply(*(column.slice(0, 1) for column in columns))
    memos = [make() for _ in range(3)]
    first = cost(lambda: memos.pop().apply(*columns), runs=3)
    memo = make()
    memo.apply(*columns)
    warm = cost(lambda: memo.apply(*columns))
    codes = cost(lambda: memo.apply(*columns, dictionary=True))
    each = first * ROWS / memo.misses
    print(f"{name:28} first {first:6.2f}  warm {warm:5.2f}  codes {codes:5.2f}  per distinct {each:6.2f}")


def main() -> None:
    chosen = settings.EnrichSettings()
    agents: list[str | None] = [
        f"Mozilla/5.0 (Linux; Android {i % 9 + 6}; SM-G{i}) AppleWebKit/537.36 (KHTML, like Gecko) "
        f"Chrome/{i % 40 + 90}.0.{i}.12 Mobile Safari/537.36"
        if i % 2
        else "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) "
        f"Chrome/{i}.0.0.0 Safari/537.36"
        for i in range(DISTINCT)
    ]
    nothing = pa.nulls(ROWS, pa.string())
    column = spread(agents)
    report("user agent", lambda: user_agent.memo(chosen.user_agent), column, nothing)
    hints = {
        agent: (
            f'"Chromium";v="{i % 40 + 90}", "Google Chrome";v="{i % 40 + 90}", "Not-A.Brand";v="99"',
            '"Android"' if i % 2 else '"Windows"',
            "?1" if i % 2 else "?0",
        )
        for i, agent in enumerate(agents)
    }
    hinted = pa.array([user_agent.join_hints(hints[agent]) for agent in column.to_pylist()], pa.string())
    report("user agent, 3 hints", lambda: user_agent.memo(chosen.user_agent), column, hinted)
    urls = spread(
        [
            f"https://www.shop.example/products/{i}?utm_source=news&utm_medium=email"
            f"&utm_campaign=c{i % 50}&gclid=Cj0{i}&x=1"
            if i % 3
            else f"https://www.shop.example/products/{i}"
            for i in range(DISTINCT)
        ]
    )
    report("page", lambda: page.memo(chosen.page), urls)
    hosts = ["www.google.com/search?q=a+b", "l.facebook.com/l.php", "www.shop.example/a", "blog.example/p"]
    referrers = spread(
        [f"https://{hosts[i % 4]}{'&' if i % 4 == 0 else '?'}n={i}" for i in range(DISTINCT)] + [None] * 1_000
    )
    report("referrer", lambda: referrer.memo(chosen.referrer), referrers, spread(["www.shop.example"]))
    tags = spread(["en-US", "de-DE", "fr", None, "zh-Hant-TW"])
    accepts = spread([f"en-US,en;q=0.9,de;q=0.{i}" for i in range(40)])
    report("language", lambda: language.memo(chosen.language), tags, accepts)

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "city.mmdb"
        writer = MMDBWriter(ip_version=6, ipv4_compatible=True, database_type="City")
        record = {
            "country": {"iso_code": "DE", "names": {"en": "Germany"}},
            "subdivisions": [{"iso_code": "BE", "names": {"en": "Berlin"}}],
            "city": {"names": {"en": "Berlin"}},
            "location": {"latitude": 52.5, "longitude": 13.4, "time_zone": "Europe/Berlin"},
        }
        for i in range(256):
            writer.insert_network(IPSet([f"10.{i}.0.0/16"]), record)
        writer.to_db_file(str(path))
        places = geo.Geo(settings.GeoSettings(databases=(str(path),)))
        addresses = spread([f"10.{i % 256}.{i // 256}.7" for i in range(DISTINCT)])
        places.apply(addresses.slice(0, 1), 0.0)
        first = cost(lambda: places.apply(addresses, 0.0), runs=1)
        warm = cost(lambda: places.apply(addresses, 0.0))
        print(f"{'geo':28} first {first:6.2f}  warm {warm:5.2f}  per distinct {first * ROWS / DISTINCT:6.2f}")

    begin = 1_700_000_000_000
    received = pa.array([(begin + i) * 1_000_000 for i in range(ROWS)], pa.int64())

    def iso(shift: int, tail: str) -> pa.Array:
        moments = pa.array([(begin + i + shift) * 1_000 for i in range(ROWS)], pa.timestamp("us"))
        return pa.array(
            [f"{moment.isoformat(timespec='milliseconds')}{tail}" for moment in moments.to_pylist()]
        )

    sent = iso(-50, "Z")
    for name, given in (
        ("time, ISO", iso(-70, "Z")),
        ("time, one junk value", pa.concat_arrays([pa.array(["junk"]), iso(-70, "Z").slice(1)])),
        ("time, no zone", iso(-70, "")),
        ("time, epoch ms", pa.array([str(begin + i - 70) for i in range(ROWS)])),
        ("time, other form (Python)", iso(-70, " GMT")),
    ):
        used = cost(partial(time.canonical, received, given, sent, nothing, chosen.time))
        print(f"{name:28} {used:12.2f}")


if __name__ == "__main__":
    main()
