"""What the C library does with freed memory.

glibc gives large freed blocks back to the kernel at once and fetches them again, page by page, for the next request:
in a collect worker that takes batches, a fifth of all CPU (measured: 0.49 → 0.38 ms per POST of 146 KB). Where memory
is bounded by settings anyway, keeping it is better.
"""

from __future__ import annotations

import ctypes
import gc

M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3
"""mallopt(3): parameters of glibc; other C libraries have no such function, or refuse."""


def keep_freed(keep_bytes: int, *, block_bytes_max: int = 16 * 1024 * 1024) -> bool:
    """Keep up to ``keep_bytes`` of freed memory, in blocks of up to ``block_bytes_max``. False where it cannot be."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, block_bytes_max)) and bool(mallopt(M_TRIM_THRESHOLD, keep_bytes))


GC_THRESHOLD = 50_000
"""Objects between two looks for garbage in cycles: ours are few, and looking at large caches is dear."""


def settle(keep_freed_bytes: int) -> None:
    """At the end of a start: what is there now stays; of what comes, little is garbage in cycles, and its room is
    needed again at once."""
    keep_freed(keep_freed_bytes)
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD, 20, 100)
