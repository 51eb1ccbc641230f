"""A limit on the bytes read in a second, so that the cluster they come from keeps working."""

import time
from collections.abc import Callable

BURST_SECONDS = 1.0
"""What was not read in the last second may be read at once, and no more."""


class Throttle:
    """Makes its caller wait so that `bytes_per_second` are not exceeded; for one thread."""

    def __init__(
        self,
        bytes_per_second: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._rate = bytes_per_second
        self._clock = clock
        self._sleep = sleep
        self._free_at = clock()

    def take(self, count: int) -> None:
        """Count `count` bytes that were read, and wait until more may be read."""
        now = self._clock()
        self._free_at = max(self._free_at, now - BURST_SECONDS) + count / self._rate
        if self._free_at > now:
            self._sleep(self._free_at - now)
