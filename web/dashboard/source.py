"""What the routes answer from: the cubes, the index of their metrics, and settings that change answers."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from telemetry_lake.dashboard.answers import Thresholds
from telemetry_lake.dashboard.cubes import Cubes
from telemetry_lake.dashboard.local_copy import LocalCopy
from telemetry_lake.dashboard.search import MetricIndex


@dataclass(frozen=True, slots=True)
class Reading:
    """One version of the cubes while a request reads it."""

    cubes: Cubes
    index: MetricIndex
    etag: str


class Source:
    """Opens the current version for requests. Safe for several threads."""

    def __init__(
        self, copy: LocalCopy, thresholds: Thresholds, stale_after_hours: float, settings_digest: str
    ) -> None:
        self._copy = copy
        self.thresholds = thresholds
        self.stale_after_hours = stale_after_hours
        self._settings_digest = settings_digest
        self._mutex = threading.Lock()
        self._index: tuple[str, MetricIndex] | None = None

    @contextmanager
    def reading(self) -> Iterator[Reading]:
        """Keep the current version open for the time of the block; raises NoCubes."""
        with self._copy.opened() as cubes:
            # `today` in a URL means another date tomorrow.
            etag = f'W/"{cubes.version}-{self._settings_digest}-{datetime.now(UTC):%Y%m%d}"'
            yield Reading(cubes, self._index_of(cubes), etag)

    def _index_of(self, cubes: Cubes) -> MetricIndex:
        with self._mutex:
            if self._index is None or self._index[0] != cubes.version:
                self._index = (cubes.version, MetricIndex(cubes.metrics.values()))
            return self._index[1]
