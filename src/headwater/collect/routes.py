"""Which path is what, and which methods it answers to."""

from __future__ import annotations

import re
from enum import Enum
from typing import NamedTuple

from headwater.dialects import native, pixel, segment


class Kind(Enum):
    """What is done with a request."""

    TAKE = "take"
    """It carries events."""
    SETTINGS = "settings"
    """The settings that Segment's browser SDK loads."""
    METRICS = "metrics"
    """Its metrics: dropped."""
    TAG = "tag"
    PING = "ping"
    ROBOTS = "robots"
    NOTHING = "nothing"


class Route(NamedTuple):
    """A path and what it is for. ``name`` is its label in counters: few, never from a client."""

    name: str
    kind: Kind
    methods: tuple[str, ...]
    dialect: str = ""
    success: bool = False
    """Answers say `"success": true`, as Segment's clients expect."""


POST = ("POST",)
GET = ("GET", "HEAD")
READY = "/ready"
"""As `/ping`, and it fails as well while events are refused with 503."""
SETTINGS = re.compile(r"/v1/projects/([^/]+)/settings")
TAG = re.compile(r"/headwater(\.[0-9a-f]{1,64})?\.m?js")

ROUTES: dict[str, Route] = {
    **{path: Route("segment", Kind.TAKE, POST, "segment", success=True) for path in segment.TYPE_OF_PATH},
    **{
        path: Route("segment_batch", Kind.TAKE, POST, "segment", success=True) for path in segment.BATCH_PATHS
    },
    **{path: Route("native", Kind.TAKE, POST, "native") for path in native.PATHS},
    **{path: Route("pixel", Kind.TAKE, GET, "pixel") for path in pixel.PATHS},
    "/v1/m": Route("segment_metrics", Kind.METRICS, POST, success=True),
    "/ping": Route("ping", Kind.PING, GET),
    READY: Route("ready", Kind.PING, GET),
    "/robots.txt": Route("robots", Kind.ROBOTS, GET),
}
SETTINGS_ROUTE = Route("segment_settings", Kind.SETTINGS, GET)
TAG_ROUTE = Route("tag", Kind.TAG, GET)
NOWHERE = Route("unknown", Kind.NOTHING, ())


def route_of(path: str) -> tuple[Route, str]:
    """The route of a path and the path that it is known by (one slash at the end does not matter)."""
    found = ROUTES.get(path)
    if found is not None:
        return found, path
    if TAG.fullmatch(path):
        return TAG_ROUTE, path
    if SETTINGS.fullmatch(path):
        return SETTINGS_ROUTE, path
    shorter = path.removesuffix("/")
    return ROUTES.get(shorter, NOWHERE), shorter
