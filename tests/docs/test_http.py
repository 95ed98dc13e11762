"""docs/reference/http.md names every path and code of the collector, and its answers are what the door says."""

from __future__ import annotations

import json
import re

import pytest

from headwater.collect import cors
from headwater.collect.routes import ROUTES
from headwater.collect.settings import CollectSettings
from headwater.collect.tag import NAMES
from tests.parts import ROOT
from tests.unit.collect.harness import SERVER, Bench, get, post

PAGE = (ROOT / "docs/reference/http.md").read_text("utf-8")
RAISED = r"(?:Busy|Rejected|Unavailable|Broken)\([^)]*?code=\"([a-z_]+)\""
ANSWERED = r"(?:Refused|refuse|error)\(\s*\d{3},\s*\"([a-z_]+)\""


AT_THE_START = {"end_unreadable"}
"""Codes of the log that end a start, and never come to a client."""


def codes(folder: str) -> set[str]:
    """The codes that the modules of a folder give to refusals."""
    texts = [source.read_text("utf-8") for source in (ROOT / "src/headwater" / folder).glob("*.py")]
    return {code for text in texts for pattern in (RAISED, ANSWERED) for code in re.findall(pattern, text)}


def test_every_path_is_named() -> None:
    paths = (*ROUTES, *(f"/{name}" for name in NAMES))
    assert [path for path in paths if f"`{path}`" not in PAGE] == []


def test_every_code_is_named() -> None:
    found = (codes("collect") | codes("log")) - AT_THE_START
    assert {"quota", "no_key", "draining", "bad_request", "encoding", "log_full"} <= found
    assert sorted(code for code in found if f"`{code}`" not in PAGE) == []


def test_every_limit_is_as_written() -> None:
    settings = CollectSettings()
    rows = re.findall(r"^\| ([\d,]+) ?(KiB|MiB|s|) \| .* \| `(\w+)` \|$", PAGE, re.MULTILINE)
    assert len(rows) >= 8
    for number, unit, name in rows:
        factor = {"KiB": 1024, "MiB": 1024**2}.get(unit, 1)
        assert getattr(settings, name) == int(number.replace(",", "")) * factor, name


def test_cors_headers_are_as_written() -> None:
    words = " ".join(PAGE.split())
    assert cors.ALLOWED_HEADERS in words
    assert cors.ALLOWED_METHODS in words


@pytest.mark.parametrize(
    "request_",
    [
        post("/events", b'[{"event": "A"}, {"type": "track"}, {"event": "B"}]', key=SERVER),
        post("/events", b'{"type": "track"}', key=SERVER),
        post("/v1/batch", b'{"batch": [{"type": "page", "userId": "u1"}, {"event": "Paid"}]}', key=SERVER),
        post("/events", b'{"event": "A"}', key=""),
        post("/events", b'{"event": "A"}', key="wrong-secret"),
        post("/events", b'{"event": "A"}', "Origin: https://x.example", key=SERVER),
        post("/events", b"a" * (CollectSettings().body_bytes_max + 1), key=SERVER),
        get("/ping"),
    ],
    ids=["partly", "all refused", "batch", "no key", "unknown key", "server key", "too large", "ping"],
)
def test_an_answer_is_as_written(request_: bytes) -> None:
    answer = Bench().ask(request_)
    said = re.sub(r'"receipt":"[^"]*"', '"receipt":"R"', json.dumps(answer.json, separators=(",", ":")))
    assert said in re.sub(r'"receipt":"[^"]*"', '"receipt":"R"', PAGE)
