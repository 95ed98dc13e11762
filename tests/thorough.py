"""How often and how long the heavy tests try: `make test` has fifteen minutes on two cores, `make thorough` has not."""

from __future__ import annotations

import os
from typing import TypeVar

T = TypeVar("T")
THOROUGH = bool(os.environ.get("HEADWATER_THOROUGH"))


def often(usually: T, thoroughly: T) -> T:
    """What a test uses: the first in `make test`, the second in `make thorough`."""
    return thoroughly if THOROUGH else usually
