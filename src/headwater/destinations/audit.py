"""What a destination knows of people, for ``headwater identity show`` and ``log``: the facts that it keeps beside its
rows, and how many rows they reach. Asked between two rounds of the deliverer, so that it sees whole steps only.

``show``: id, visitors_max? → visitors (identity/audit.py), more, junk · ``log``: since_us?, limit? → facts
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import msgspec

from headwater.destinations.port import Settling
from headwater.identity import audit
from headwater.identity.junk import Junk
from headwater.kit.errors import Rejected

if TYPE_CHECKING:
    from headwater.destinations.deliver import Deliverer

ID_CHARS_MAX = 512
VISITORS, VISITORS_MAX = 100, 1000
FACTS, FACTS_MAX = 100, 10_000


def answer(deliverer: Deliverer, layout: str, request: Mapping[str, Any]) -> dict[str, Any]:
    """One question; the caller holds the destination. Rejected: it keeps no facts, or the question is none."""
    if deliverer.settler is None:
        raise Rejected(f"destination {deliverer.name} keeps no facts about visitors", code="identity_none")
    settling, settings = cast(Settling, deliverer.destination), deliverer.settler.settings
    if request.get("do") == "log":
        since_us = whole(request, "since_us", 0, 1 << 62)
        found = settling.newest_facts(since_us, whole(request, "limit", FACTS, FACTS_MAX))
        return {"facts": msgspec.to_builtins(audit.logged(found))}
    asked = request.get("id")
    if request.get("do") != "show" or not isinstance(asked, str) or not 0 < len(asked) <= ID_CHARS_MAX:
        raise Rejected(f"expected `show` with an id of 1 to {ID_CHARS_MAX} characters, or `log`", code="id")
    junk = Junk(settings.junk_ids)
    limit = whole(request, "visitors_max", VISITORS, VISITORS_MAX)
    devices = [one for one in settling.ids_of_user(asked, limit + 1) if one != asked]
    ids = [asked, *devices[:limit]]
    found = audit.visitors(
        ids, settling.facts(ids), settling.rows_by_user(layout, ids), settings.policy, junk
    )
    if not found[0].links and not found[0].rows_anonymous:
        found = found[1:]  # a user's id, or one that was never seen
    return {
        "id": asked,
        "visitors": msgspec.to_builtins(found),
        "more": len(devices) > limit,
        "junk": junk.user(asked) or junk.anonymous(asked),
    }


def whole(request: Mapping[str, Any], name: str, default: int, most: int) -> int:
    """A whole number of a question."""
    value = request.get(name)
    if value is None:
        return default
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
        raise Rejected(f"`{name}`: expected a whole number, at most {most}, got {value!r}", code=name)
    return value
