"""Bodies of requests to the ops listener."""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.requests import Request

from headwater.kit.errors import Rejected

NOT_TRUSTED = "only over the unix socket, or with a token"


async def json_body(request: Request, bytes_max: int) -> dict[str, Any]:
    """The body as a JSON object, bounded while it arrives."""
    data = bytearray()
    async for part in request.stream():
        data += part
        if len(data) > bytes_max:
            raise Rejected(f"the body is larger than {bytes_max} bytes", code="body_size")
    try:
        return msgspec.json.decode(bytes(data) or b"{}", type=dict[str, Any])
    except msgspec.MsgspecError as error:
        raise Rejected(f"the body is not a JSON object: {error}", code="body_format") from error
