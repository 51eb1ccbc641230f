"""The exporter: reads each source in a thread of its own, and shows at `/metrics` what was read last.

A scrape reads nothing. A source that fails keeps its last figures for `INTERVALS_UNTIL_STALE` of its
intervals; then they are absent, and only `exporter_source_…` says that there was something.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import start_http_server
from prometheus_client.registry import Collector, CollectorRegistry

from telemetry_lake.failures import FatalError
from telemetry_lake.monitoring import metric as listed
from telemetry_lake.monitoring.exporter_metrics import EXPORTER_METRICS
from telemetry_lake.monitoring.sources.facts import Fact, Source, value

if TYPE_CHECKING:
    from telemetry_lake.monitoring.sources.batches import BatchSource
    from telemetry_lake.settings import Settings

INTERVALS_UNTIL_STALE: Final = 3
STOP_SECONDS: Final = 5.0
"""How long a stopping exporter waits for what is being read."""

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Reading:
    """What was read of a source last; times are in seconds since 1970."""

    source: Source
    facts: Sequence[Fact] = ()
    is_good: bool | None = None
    """Whether the last reading succeeded; None before the first one has ended."""
    good_at: float | None = None
    seconds: float = 0
    errors: int = 0
    problem: str = ""
    """What was wrong at the last reading; each problem is logged once."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def read(self) -> None:
        """Read the source once; whatever it raises is counted and logged."""
        begun = time.monotonic()
        now = datetime.now(UTC)
        try:
            facts = self.source.read(now)
        except Exception as error:  # noqa: BLE001  after any error the other sources, and the next try, go on
            problem = f"{type(error).__name__}: {error}"
            if problem != self.problem:
                _log.warning("%s cannot be read: %s", self.source.name, problem)
            with self.lock:
                self.is_good, self.errors, self.problem = False, self.errors + 1, problem
                self.seconds = time.monotonic() - begun
            return
        with self.lock:
            if self.problem:
                _log.info("%s can be read again", self.source.name)
            self.problem = ""
            self.facts, self.is_good, self.good_at = facts, True, now.timestamp()
            self.seconds = time.monotonic() - begun

    def shown(self, now: float) -> list[Fact]:
        """Return what holds at a time, and how the reading went."""
        name = self.source.name
        with self.lock:
            own = [value("exporter_source_errors_total", self.errors, name)]
            if self.is_good is None:
                return own
            stale_after = INTERVALS_UNTIL_STALE * self.source.interval_seconds
            # A source that hangs neither succeeds nor fails.
            is_stale = self.good_at is None or now - self.good_at > stale_after
            own += [
                value("exporter_source_up", self.is_good and not is_stale, name),
                value("exporter_source_seconds", self.seconds, name),
            ]
            if self.good_at is not None:
                own.append(
                    Fact("telemetry_lake_exporter_source_age_seconds", (name,), self.good_at, is_age=True)
                )
            return own if is_stale else [*own, *self.facts]


class Exporter(Collector):
    """Reads sources until it is stopped, and shows their facts in the order of the list of metrics."""

    def __init__(self, sources: Iterable[Source], batches: "BatchSource | None" = None) -> None:
        self.readings = [Reading(source) for source in sources]
        self._batches = batches
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Begin to read every source."""
        for reading in self.readings:
            thread = threading.Thread(
                target=self._read_on, args=(reading,), name=reading.source.name, daemon=True
            )
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        """Read no more; what is being read may end within `STOP_SECONDS`."""
        self._stopping.set()
        deadline = time.monotonic() + STOP_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _read_on(self, reading: Reading) -> None:
        while not self._stopping.is_set():
            reading.read()
            self._stopping.wait(reading.source.interval_seconds)

    def collect(self) -> Iterator[Metric]:
        """Yield every metric of which something is known."""
        now = time.time()
        by_name: dict[str, list[Fact]] = {}
        for fact in (*self._own(), *(fact for reading in self.readings for fact in reading.shown(now))):
            by_name.setdefault(fact.name, []).append(fact)
        for metric in EXPORTER_METRICS:
            if metric.name in by_name:
                yield _family(metric, by_name[metric.name], now)

    def _own(self) -> Iterator[Fact]:
        yield value("exporter_cpu_seconds_total", time.process_time())
        if self._batches is not None:
            yield value("exporter_folded_rows_total", self._batches.folded_rows)


def _family(metric: listed.Metric, facts: Iterable[Fact], now: float) -> Metric:
    family: CounterMetricFamily | GaugeMetricFamily
    if metric.kind is listed.Kind.COUNTER:
        family = CounterMetricFamily(
            metric.name.removesuffix("_total"), metric.meaning, labels=metric.label_names
        )
    else:
        family = GaugeMetricFamily(metric.name, metric.meaning, labels=metric.label_names)
    for fact in facts:
        family.add_metric(fact.labels, fact.value_at(now))
    return family


def serve(make: Callable[[], Exporter], host: str, port: int, stopping: threading.Event) -> None:
    """Show the metrics at `http://host:port/metrics` until `stopping` is set.

    It listens at once; `make` returns what is shown, which takes seconds of loading libraries. Raises
    FatalError when the port is taken, and what `make` raises.
    """
    registry = CollectorRegistry(auto_describe=False)
    try:
        server, thread = start_http_server(port, host, registry)
    except OSError as error:
        raise FatalError(
            f"the exporter cannot listen on {host}:{port}: {error.strerror}. End what listens there, or give "
            "another --port"
        ) from error
    exporter = None
    try:
        exporter = make()
        registry.register(exporter)
        exporter.start()
        _log.info("metrics are at http://%s:%d/metrics", host, port)
        stopping.wait()
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
        if exporter is not None:
            exporter.stop()


def exporter_of(settings: "Settings") -> Exporter:
    """Return the exporter of a lake. Raises ConfigurationError when its schemas cannot be read."""
    from telemetry_lake.analysis_jobs.runs import Runs
    from telemetry_lake.analysis_jobs.store import JobStore
    from telemetry_lake.drain.connections import LakeConnections
    from telemetry_lake.monitoring.sources.airflow import AirflowSource, exporters_api
    from telemetry_lake.monitoring.sources.batches import BatchSource
    from telemetry_lake.monitoring.sources.lake_sources import (
        AnalysisSource,
        AnomalySource,
        CompletenessSource,
        CostSource,
        QueueSource,
        TableSource,
    )
    from telemetry_lake.monitoring.sources.row_labels import RowLabels
    from telemetry_lake.monitoring.sources.web_pages import WebSource
    from telemetry_lake.monitoring.sources.work import WorkSource

    settings = patient_once(settings)
    directory = settings.monitoring.state_directory
    lake = LakeConnections(settings)
    tables = TableSource(lake)
    batches = BatchSource(lake, RowLabels.of(settings.conversion), directory)
    sources: list[Source] = [
        QueueSource(lake.queue),
        batches,
        tables,
        CompletenessSource(lake.days),
        WorkSource(lake, tables, directory),
        AnalysisSource(Runs(JobStore.of(settings), settings, None)),
        AnomalySource(lake.records),
        CostSource(settings.monitoring, batches, tables),
    ]
    if settings.airflow.url is None:
        _log.warning("TELEMETRY_LAKE_AIRFLOW__URL is not set: nothing is known of Airflow")
    else:
        sources.append(AirflowSource(exporters_api(settings.airflow), directory))
    if settings.monitoring.web_url is None:
        _log.warning("TELEMETRY_LAKE_MONITORING__WEB_URL is not set: nothing is known of the web pages")
    else:
        sources.append(WebSource(settings.monitoring.web_url))
    return Exporter(sources, batches)


def patient_once(settings: "Settings") -> "Settings":
    """Return the settings with which S3 and SQS are tried once: the next reading is only seconds away."""
    once = {"max_attempts": 1, "connect_timeout_seconds": 3.0, "read_timeout_seconds": 15.0}
    return settings.model_copy(
        update={
            "s3": settings.s3.model_copy(update=once),
            "sqs": settings.sqs.model_copy(update=once),
        }
    )
