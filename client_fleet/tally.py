"""What became of the pings: counts, and the latencies of the answers."""

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

_BUCKETS_PER_DECADE: Final = 50
"""A percentile is off by at most 5 %."""
_SMALLEST_SECONDS: Final = 1e-5
_BUCKETS_COUNT: Final = 8 * _BUCKETS_PER_DECADE


class Latencies:
    """Times in seconds, counted in logarithmic buckets: a long run needs no more memory than a short one."""

    def __init__(self) -> None:
        self._counts = [0] * _BUCKETS_COUNT
        self._total = 0

    def add(self, seconds: float) -> None:
        """Count one time."""
        index = int(math.log10(max(seconds, _SMALLEST_SECONDS) / _SMALLEST_SECONDS) * _BUCKETS_PER_DECADE)
        self._counts[min(index, _BUCKETS_COUNT - 1)] += 1
        self._total += 1

    def percentile(self, share: float) -> float | None:
        """Return the seconds that `share` (0 to 1) of all stayed below; None when nothing was counted."""
        rest = share * self._total
        for index, count in enumerate(self._counts):
            rest -= count
            if count and rest <= 0:
                return float(_SMALLEST_SECONDS * 10 ** ((index + 1) / _BUCKETS_PER_DECADE))
        return None


@dataclass(slots=True)
class Tally:
    """Counts of one run; a ping that is tried three times is one of `pings` and three of `attempts`."""

    pings: int = 0
    attempts: int = 0
    acknowledged: int = 0
    """Answered 2xx; the client deleted them."""
    acknowledged_kinds: Counter[str] = field(default_factory=Counter)
    refused: int = 0
    """Answered 4xx; the client deleted them as well."""
    statuses: Counter[int] = field(default_factory=Counter)
    connection_failures: int = 0
    """Attempts that got no answer: refused or broken connections and time-outs."""
    retries: int = 0
    dropped: int = 0
    """Pings given up because too many were waiting, as a client's full disk quota does."""
    unsent: int = 0
    """Pings that were still waiting when the fleet ended."""
    body_bytes: int = 0
    """Bytes of acknowledged bodies."""
    latencies: Latencies = field(default_factory=Latencies)
    """From when a ping was due (or due again) until its answer."""
