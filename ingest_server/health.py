"""The pages that a node shows: Dockerflow's health and version, and Prometheus metrics.

https://github.com/mozilla-services/Dockerflow
"""

import json
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector, CollectorRegistry

from ingest_server.answers import DISK_FULL, STATUSES, Answer
from ingest_server.counters import COMMIT_SECONDS_BUCKETS, REQUEST_SECONDS_BUCKETS, SPOOL_STATES, Counters
from telemetry_lake import __version__
from telemetry_lake.project_files import PROJECT_ROOT
from telemetry_lake.settings import IngestSettings

METRIC_PREFIX: Final = "telemetry_lake_ingest_"
_JSON: Final = "application/json"


def public_pages() -> dict[bytes, Callable[[], Answer]]:
    """Return what makes the answer of each path that everybody may read."""
    shown_version = Answer(200, "OK", json.dumps(version_of(PROJECT_ROOT)) + "\n", content_type=_JSON)
    return {
        b"/__lbheartbeat__": lambda: Answer(200, "OK", "OK\n"),
        b"/__version__": lambda: shown_version,
    }


def private_pages(counters: Counters, settings: IngestSettings) -> dict[bytes, Callable[[], Answer]]:
    """Return what makes the answer of each path that is for operators."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(NodeMetrics(counters, settings))
    return {
        b"/__heartbeat__": partial(heartbeat, counters),
        b"/metrics": lambda: Answer(
            200, "OK", generate_latest(registry).decode(), content_type=CONTENT_TYPE_LATEST
        ),
    }


def heartbeat(counters: Counters) -> Answer:
    """Say whether every worker would accept a ping now, and how the spool, S3 and SQS are."""
    refusing_status = counters.largest("refusing_status")
    is_full = refusing_status == DISK_FULL.status
    status, reason = 200, "OK"
    if refusing_status:
        status, reason = (DISK_FULL.status, DISK_FULL.reason) if is_full else (500, "Internal Server Error")
    body = {
        "status": status,
        "checks": {
            "disk": "the spool is full" if is_full else "ok",
            "commit": "pings cannot be made durable" if refusing_status and not is_full else "ok",
            "s3": _reachable(counters, "s3"),
            "sqs": _reachable(counters, "sqs"),
        },
        "spool_free_bytes": _free_bytes(counters),
        "spool_waiting_bytes": counters.total("spool_open_bytes") + counters.total("spool_sealed_bytes"),
        "oldest_segment_age_seconds": round(_oldest_age_seconds(counters), 3),
    }
    return Answer(status, reason, json.dumps(body) + "\n", content_type=_JSON)


def version_of(root: Path) -> dict[str, str]:
    """Return what `version.json` below `root` says, else what the work tree does.

    `telemetry_lake` is the version of the code that runs, whatever the file says that was built with it.
    """
    try:
        shown = dict(json.loads((root / "version.json").read_text()))
    except FileNotFoundError:
        shown = {"source": "", "version": __version__, "commit": _commit(root / ".git"), "build": ""}
    return {**shown, "telemetry_lake": __version__}


class NodeMetrics(Collector):
    """Every metric of docs/ingest_spec.md, summed over the processes of the node when it is asked for."""

    def __init__(self, counters: Counters, settings: IngestSettings) -> None:
        self._counters = counters
        self._settings = settings

    def collect(self) -> Iterator[Metric]:
        """The closed list of metrics."""
        total = self._counters.total
        requests = CounterMetricFamily(METRIC_PREFIX + "requests", "Answers by status.", labels=["status"])
        for status in STATUSES:
            requests.add_metric([str(status)], total(f"status_{status}"))
        yield requests
        yield self._histogram(
            "request", "From a submission's first byte to its 200.", REQUEST_SECONDS_BUCKETS
        )
        yield self._histogram("commit", "One group's write and fdatasync.", COMMIT_SECONDS_BUCKETS)
        for name, meaning in _COUNTERS.items():
            yield CounterMetricFamily(METRIC_PREFIX + name, meaning, value=total(name))
        restarts = CounterMetricFamily(
            METRIC_PREFIX + "child_restarts", "Processes that died and were started again.", labels=["child"]
        )
        for child in ("worker", "shipper", "observer"):
            restarts.add_metric([child], total(f"{child}_restarts"))
        yield restarts
        for name, meaning in _GAUGES.items():
            yield GaugeMetricFamily(METRIC_PREFIX + name, meaning, value=total(name))
        for service in ("s3", "sqs"):
            if total(f"{service}_looks"):
                yield GaugeMetricFamily(
                    f"{METRIC_PREFIX}{service}_reachable",
                    "Whether it answered when the shipper looked last.",
                    value=total(f"{service}_reachable"),
                )
        yield from self._spool_metrics()

    def _histogram(self, name: str, meaning: str, bounds: tuple[float, ...]) -> Metric:
        total = self._counters.total
        labels = [*map(str, bounds), "+Inf"]
        count = 0.0
        buckets = []
        for index, label in enumerate(labels):
            count += total(f"{name}_le_{index}")
            buckets.append((label, count))
        return HistogramMetricFamily(
            f"{METRIC_PREFIX}{name}_seconds", meaning, buckets=buckets, sum_value=total(f"{name}_seconds")
        )

    def _spool_metrics(self) -> Iterator[Metric]:
        total = self._counters.total
        segments = GaugeMetricFamily(METRIC_PREFIX + "spool_segments", "Segments by state.", labels=["state"])
        sizes = GaugeMetricFamily(
            METRIC_PREFIX + "spool_bytes", "Bytes of segments by state.", labels=["state"]
        )
        for state in SPOOL_STATES:
            segments.add_metric([state], total(f"spool_{state}_segments"))
            sizes.add_metric([state], total(f"spool_{state}_bytes"))
        yield segments
        yield sizes
        yield GaugeMetricFamily(
            METRIC_PREFIX + "spool_free_bytes",
            "Free bytes on the spool's disk.",
            value=_free_bytes(self._counters),
        )
        yield GaugeMetricFamily(
            METRIC_PREFIX + "spool_room_bytes",
            "Bytes that the spool still takes before pings are answered 507.",
            value=_room_bytes(self._counters, self._settings),
        )
        yield GaugeMetricFamily(
            METRIC_PREFIX + "oldest_segment_age_seconds",
            "Age of the oldest segment that is not shipped.",
            value=_oldest_age_seconds(self._counters),
        )


_COUNTERS: Final = {
    "body_bytes": "Bytes of acknowledged bodies.",
    "commit_failures": "Groups that could not be made durable.",
    "aborted_requests": "Requests whose client went away or was too slow.",
    "refused_connections": "Connections that were one too many.",
    "shipped_segments": "Raw objects announced to the queue.",
    "shipped_pings": "Their pings.",
    "shipped_bytes": "Their bytes in S3.",
    "upload_errors": "Failed tries to reach S3.",
    "queue_errors": "Failed tries to reach SQS.",
    "damaged_segments": "Segments set aside.",
    "salvaged_pings": "Pings saved from segments set aside.",
}


_GAUGES: Final = {
    "connections": "Open connections.",
    "held_bytes": "What requests hold of the workers' memory.",
}


def _free_bytes(counters: Counters) -> float:
    return counters.total("spool_free_before_bytes") - counters.total("appended_bytes")


def _room_bytes(counters: Counters, settings: IngestSettings) -> float:
    """Return how much more the spool takes, by both limits that `ingest_server.gate` asks for."""
    waiting_bytes = counters.total("spool_before_bytes") + counters.total("appended_bytes")
    room = min(
        settings.spool_max_bytes - waiting_bytes, _free_bytes(counters) - settings.spool_min_free_bytes
    )
    return max(0.0, room)


def _oldest_age_seconds(counters: Counters) -> float:
    """Return the age of the oldest segment that is not shipped; 0 without any."""
    oldest = counters.total("spool_oldest_seconds")
    return max(0.0, time.time() - oldest) if oldest else 0.0


def _reachable(counters: Counters, service: str) -> str:
    if not counters.total(f"{service}_looks"):
        return "unknown"
    return "ok" if counters.total(f"{service}_reachable") else "unreachable"


def _commit(git: Path) -> str:
    try:
        head = (git / "HEAD").read_text().strip()
        return (git / head.removeprefix("ref: ")).read_text().strip() if head.startswith("ref: ") else head
    except OSError:
        return ""
