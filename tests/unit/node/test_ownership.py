"""When a new owner may begin to deliver."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from headwater.node.ownership import Mirrors
from headwater.ops.everywhere import Answers

CONTEXT: Any = SimpleNamespace(node=SimpleNamespace(folder_id="0000000000010000"))


def told(role: str, epoch: int, state: str = "running") -> dict[str, Any]:
    return {"role": role, "state": state, "detail": {"epoch": epoch}}


@pytest.mark.parametrize(
    ("reports", "released"),
    [
        ([told("deliver-w", 7), told("deliver-x", 8)], True),
        ([told("deliver-w", 7), told("deliver-x", 6)], False),
        ([told("deliver-w", 6, "draining")], False),
        ([told("deliver-w", 6, "stopped")], True),
        ([{"role": "deliver-w", "state": "running", "detail": {}}], False),
        ([told("process-0", 0)], True),
    ],
)
def test_partitions_are_released_when_no_other_deliverer_goes_by_an_older_table(
    reports: list[dict[str, Any]], released: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirrors = Mirrors(CONTEXT, SimpleNamespace(alone=False))  # type: ignore[arg-type]
    monkeypatch.setattr(mirrors, "everywhere", lambda part: Answers({"b": reports}, ["c"]))
    assert mirrors.released(7) is released
