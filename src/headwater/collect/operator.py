"""Decisions of an operator as records of the raw log: they go the way of every event, and are processed again as one.

They come over ``run/collect-<n>.sock`` only (again.py serves it; who may open it is trusted), and stand under a stream
of their own that no write key can have (event/record.OPERATOR). Processing makes a fact of each, and no row: the ledger
counts it as accepted and `filtered`. One that comes twice has the same message id, and is a duplicate.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from headwater.dialects import native
from headwater.event.record import OPERATOR, Head
from headwater.kit.errors import Rejected

PATH = "/v1/import"
"""Of an import, so that no clock of a client is reckoned with."""
HEAD = Head(OPERATOR, native.NAME, "POST", PATH)
Id = Annotated[str, msgspec.Meta(min_length=1, max_length=512)]


class Unlink(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Whatever linked this anonymous id to this user until now is taken back."""

    type: Literal["unlink"] = "unlink"
    messageId: Id
    anonymousId: Id
    userId: Id


def unlink_of(body: bytes) -> tuple[Unlink, bytes]:
    """The decision, and the bytes of its record. Rejected: it is none."""
    try:
        decision = msgspec.json.decode(body, type=Unlink)
    except msgspec.MsgspecError as error:
        raise Rejected(f"the decision is not what was expected: {error}") from error
    return decision, msgspec.json.encode(msgspec.structs.asdict(decision))
