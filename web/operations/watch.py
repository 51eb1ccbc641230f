"""What was read last of the exporter, the nodes, Prometheus and the volumes, and since when one is away."""

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, Generic, TypeVar

import httpx

from telemetry_lake.failures import TelemetryLakeError
from telemetry_lake.monitoring.volumes import Volumes, kept_volumes
from telemetry_lake.settings import WebSettings
from telemetry_lake.storage.records import RecordStore
from web.background import Background
from web.operations.parts import ALL_PARTS
from web.operations.prometheus import Point, Prometheus, Rules
from web.operations.reading import TIMEOUT_SECONDS, Samples, Unreadable, fetched

SELDOM_SECONDS: Final = 60
"""What changes slowly, histories and volumes, is read again after this time."""
STOP_WAIT_SECONDS: Final = 2 * TIMEOUT_SECONDS
_log: Final = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Known(Generic[T]):
    """What was read of something, and whether the last try succeeded."""

    value: T | None = None
    read_at: datetime | None = None
    before: T | None = None
    """What the reading before gave."""
    before_at: datetime | None = None
    away_since: datetime | None = None
    problem: str = ""

    def read(self, value: T, at: datetime) -> "Known[T]":
        """Return what is known after a try that succeeded."""
        return Known(value, at, self.value, self.read_at)

    def failed(self, problem: str, at: datetime) -> "Known[T]":
        """Return what is known after a try that failed."""
        return Known(self.value, self.read_at, self.before, self.before_at, self.away_since or at, problem)


@dataclass(frozen=True, slots=True)
class Look:
    """Everything that is known at one moment."""

    exporter: Known[Samples] = Known()
    nodes: Mapping[str, Known[Samples]] = field(default_factory=dict)
    rules: Known[Rules] | None = None
    """None where no Prometheus is set."""
    histories: Known[Mapping[str, tuple[Point, ...]]] = Known()
    """By the name of a part."""
    volumes: Known[Volumes] = Known()

    def of_nodes(self) -> Known[Samples]:
        """Return what all nodes that answer show together; as old as the oldest of them."""
        answering = {url: node for url, node in self.nodes.items() if node.value and not node.problem}
        if not answering:
            return Known()
        before = {url: node.before for url, node in answering.items() if node.before}
        return Known(
            Samples.together({url: node.value for url, node in answering.items() if node.value}),
            min(node.read_at for node in answering.values() if node.read_at),
            Samples.together(before) if before else None,
            min((node.before_at for node in answering.values() if node.before_at), default=None),
        )


class Watch:
    """Reads again and again in a thread of its own. Safe for several threads."""

    def __init__(self, settings: WebSettings, records: RecordStore) -> None:
        self._settings, self._records = settings, records
        self._client = httpx.Client(timeout=TIMEOUT_SECONDS, follow_redirects=False, trust_env=False)
        self._prometheus = (
            None if settings.prometheus_url is None else Prometheus(self._client, settings.prometheus_url)
        )
        self._mutex = threading.Lock()
        self._look = Look(
            nodes={url: Known() for url in settings.node_urls},
            rules=None if self._prometheus is None else Known(),
        )
        self._seldom_at: datetime | None = None
        self._reading = Background(
            "operations",
            self.read,
            rest_seconds=settings.operations_poll_seconds,
            failed="reading what operations shows failed",
        )

    def look(self) -> Look:
        """Return what is known now."""
        with self._mutex:
            return self._look

    def start(self) -> None:
        """Begin to read."""
        self._reading.start()

    def stop(self) -> None:
        """Stop that."""
        self._reading.stop(STOP_WAIT_SECONDS)
        self._client.close()

    def read(self) -> None:
        """Read everything once. What cannot be read keeps its last value, with the reason."""
        now, last = datetime.now(UTC), self.look()
        exporter = _tried(last.exporter, lambda: self._samples(self._settings.exporter_url), now)
        nodes = {
            url: _tried(known, lambda url=url: self._samples(url), now)  # type: ignore[misc]
            for url, known in last.nodes.items()
        }
        rules, histories, volumes = last.rules, last.histories, last.volumes
        if self._prometheus is not None and rules is not None:
            rules = _tried(rules, self._prometheus.rules, now)
        if self._seldom_at is None or (now - self._seldom_at).total_seconds() >= SELDOM_SECONDS:
            self._seldom_at = now
            volumes = _tried(volumes, lambda: kept_volumes(self._records), now)
            if self._prometheus is not None and not (rules and rules.problem):
                histories = _tried(histories, lambda: self._histories(now), now)
        with self._mutex:
            self._look = Look(exporter, nodes, rules, histories, volumes)

    def _samples(self, url: str) -> Samples:
        return Samples.of_text(fetched(self._client, f"{url}/metrics").decode(errors="replace"))

    def _histories(self, until: datetime) -> dict[str, tuple[Point, ...]]:
        assert self._prometheus is not None
        return {
            part.name: self._prometheus.history(part.history, until) for part in ALL_PARTS if part.history
        }


def _tried(known: Known[T], read: Callable[[], T | None], now: datetime) -> Known[T]:
    try:
        value = read()
    except (Unreadable, TelemetryLakeError, ValueError) as error:
        if not known.problem:
            _log.warning("operations: %s", error)
        return known.failed(str(error), now)
    return known if value is None else known.read(value, now)
