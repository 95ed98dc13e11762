"""A wall clock that a test can move: every Python that starts with this folder on its path reads it with an offset.

The offset, in seconds, is the content of the file that ``HEADWATER_TEST_CLOCK`` names, read at each call. Clocks that
do not jump on a real machine (monotonic, boot) are left alone.
"""

import os
import time

path = os.environ.get("HEADWATER_TEST_CLOCK", "")
real_ns, real = time.time_ns, time.time


def offset_s() -> int:
    """Seconds by which the clock is wrong."""
    try:
        with open(path) as file:
            return int(file.read() or "0")
    except OSError:
        return 0


if path:
    time.time_ns = lambda: real_ns() + offset_s() * 10**9
    time.time = lambda: real() + offset_s()
