"""Which collect worker takes what an operator sends: any that answers."""

from __future__ import annotations

from headwater.kit import ask
from headwater.kit.errors import Unavailable
from headwater.ops.look import Look

PING_S = 2.0


async def collector(look: Look) -> str:
    """The socket of a collect worker of this node. Unavailable: none answers."""
    for role in look.parts().roles:
        if role.startswith("collect-"):
            path = f"{look.data}/run/{role}.sock"
            try:
                await ask.ask_async(path, {"op": "ping"}, PING_S)
            except Unavailable:
                continue
            return path
    raise Unavailable("no collect worker answers", code="no_collector", help="`headwater status` says why")
