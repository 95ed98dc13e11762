"""The one place where benchmarks call Headwater's own functions (everything else goes through its commands).

TO BE FILLED AT MERGE. Until then `process_stages` says that it is not built, and `process-stages` is reported so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any


class NotBuilt(Exception):
    """The part of the product that this measures does not exist yet."""


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of processing. `run` takes what the stage before returned; the first takes the raw lines of a batch."""

    name: str
    run: Callable[[Any], Any]


def process_stages(batch_events: int) -> Sequence[Stage]:
    """The stages parse, dedupe, enrich, shape, commit, wired as the processor wires them, with fresh state.

    Stage one takes `list[bytes]` (one JSON event each, with the stamps the stage needs made up by this adapter);
    each later one takes its predecessor's result. `commit` must really write and fdatasync, into a temporary folder
    below `benchmarks.servers.CACHE` (not /tmp, which may be memory). Called once per round: dedupe begins empty.
    Sketch of the body, with design.md section 8's names:

        from headwater.process import parse, dedupe, enrich, shape, commit
        state = ...
        return [Stage("parse", ...), Stage("dedupe", ...), Stage("enrich", ...), Stage("shape", ...), Stage("commit", ...)]
    """
    raise NotBuilt("benchmarks/product.py: process_stages() is to be filled when headwater.process exists")
