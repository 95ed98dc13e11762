"""Writes a run as JSON (everything measured) and as Markdown (what a reader needs)."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.harness import Result


def _cell(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return f"{value:,.2f}" if isinstance(value, float) else str(value)


def table(result: Result) -> str:
    head = "| " + " | ".join(result.columns) + " |\n|" + "---|" * len(result.columns)
    rows = ["| " + " | ".join(_cell(c) for c in row) + " |" for row in result.rows]
    return "\n".join([head, *rows]) if rows else "(nothing measured)"


def markdown(run: dict[str, object], results: list[Result]) -> str:
    machine = run["machine"]
    assert isinstance(machine, dict)
    disturbed = sum(r.disturbed for r in results)
    sync = machine["fdatasync_ms"]
    packages = ", ".join(f"{k} {v}" for k, v in machine["packages"].items())
    tools = "; ".join(f"{k}: {v}" for k, v in machine["tools"].items())
    rule = (
        "Ratios within one table come from interleaved rounds on one machine and may be compared; absolute numbers"
        " and numbers of different runs may not. How to read: [../README.md](../README.md)."
    )
    out = [
        f"# Benchmarks of {run['date']}",
        "",
        rule,
        "",
    ]
    if run["quick"]:
        out += ["**A quick run: it shows that the suite works. Its numbers are not results.**", ""]
    if disturbed:
        out += [
            f"**{disturbed} slices were disturbed by other load on the machine (marked in the JSON)."
            " These numbers are not fit for publication.**",
            "",
        ]
    out += [
        f"* Commit {run['commit']}; {run['rounds']} rounds of {run['seconds']} s; load and server on a core each.",
        f"* {machine['cpu']}, {machine['cpus']} CPUs, {machine['memory_gb']} GB, Linux {machine['kernel']};"
        f" load average at the start {', '.join(f'{x:.2f}' for x in machine['load_average_at_start'])}",
        f"* Python {machine['python']} ({machine['python_build']}); {packages}",
        f"* {tools}",
        f"* Disk: {machine['disk']}; pwrite + fdatasync of 96 KiB p50 {sync['p50']} ms, p99 {sync['p99']} ms",
        f"* Payloads, bytes: {', '.join(f'{k[:-6]} {v:,.0f}' for k, v in run['payloads'].items())}",  # type: ignore[attr-defined]
        "",
    ]
    for r in results:
        out += [f"## {r.workload}", "", table(r), ""]
        out += [f"* {note}" for note in r.notes]
        out += [""] if r.notes else []
    return "\n".join(out)


def write(stem: Path, run: dict[str, object], results: list[Result]) -> tuple[Path, Path]:
    """Writes STEM.json and STEM.md."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    as_json, as_text = stem.with_suffix(".json"), stem.with_suffix(".md")
    everything = {**run, "results": [{f: getattr(r, f) for f in Result.__slots__} for r in results]}
    as_json.write_text(json.dumps(everything, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    as_text.write_text(markdown(run, results), encoding="utf-8")
    return as_json, as_text
