"""The pages that a node shows: Dockerflow's health and version, and Prometheus metrics.

https://github.com/mozilla-services/Dockerflow
"""

import json
import time
import tomllib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector, CollectorRegistry

from ingest_server.answers import DISK_FULL, STATUSES, Answer
from ingest_server.counters import COMMIT_SECONDS_BUCKETS, REQUEST_SECONDS_BUCKETS, Counters
from ingest_server.spool import Spool, Waiting
from telemetry_lake.settings import PROJECT_ROOT

METRIC_PREFIX: Final = "telemetry_lake_ingest_"
_JSON: Final = "application/json"


def pages(
    spool: Spool, counters: Counters, refusal: Callable[[], Answer | None]
) -> dict[bytes, Callable[[], Answer]]:
    """What each readable path shows; `refusal` is the answer that a ping would get, None when accepted."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(NodeMetrics(spool, counters))
    shown_version = Answer(200, "OK", json.dumps(version_of(PROJECT_ROOT)) + "\n", content_type=_JSON)
    return {
        b"/__lbheartbeat__": lambda: Answer(200, "OK", "OK\n"),
        b"/__heartbeat__": partial(heartbeat, spool, counters, refusal),
        b"/__version__": lambda: shown_version,
        b"/metrics": lambda: Answer(
            200, "OK", generate_latest(registry).decode(), content_type=CONTENT_TYPE_LATEST
        ),
    }


def heartbeat(spool: Spool, counters: Counters, refusal: Callable[[], Answer | None]) -> Answer:
    """Whether a ping would be accepted now, and how the spool, S3 and SQS are."""
    answer = refusal()
    is_full = answer is DISK_FULL
    status, reason = (
        (200, "OK") if answer is None else (507, answer.reason) if is_full else (500, "Internal Server Error")
    )
    waiting = (spool.waiting_open(), spool.waiting_sealed())
    body = {
        "status": status,
        "checks": {
            "disk": "the spool is full" if is_full else "ok",
            "commit": "pings cannot be made durable" if answer is not None and not is_full else "ok",
            "s3": _reachable(counters, "s3"),
            "sqs": _reachable(counters, "sqs"),
        },
        "spool_free_bytes": spool.free_bytes(),
        "spool_waiting_bytes": sum(item.bytes for item in waiting),
        "oldest_segment_age_seconds": round(_age_seconds(*waiting), 3),
    }
    return Answer(status, reason, json.dumps(body) + "\n", content_type=_JSON)


def version_of(root: Path) -> dict[str, str]:
    """`version.json` below `root`, else what the work tree tells."""
    try:
        return dict(json.loads((root / "version.json").read_text()))
    except FileNotFoundError:
        pass
    try:
        release = str(tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"])
    except FileNotFoundError:
        release = ""
    return {"source": "", "version": release, "commit": _commit(root / ".git"), "build": ""}


class NodeMetrics(Collector):
    """Every metric of docs/ingest_spec.md, summed over the processes of the node when it is asked for."""

    def __init__(self, spool: Spool, counters: Counters) -> None:
        self._spool = spool
        self._counters = counters

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
        for child in ("worker", "shipper"):
            restarts.add_metric([child], total(f"{child}_restarts"))
        yield restarts
        yield GaugeMetricFamily(
            METRIC_PREFIX + "connections", "Open connections.", value=total("connections")
        )
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
        states = {
            "open": self._spool.waiting_open(),
            "sealed": self._spool.waiting_sealed(),
            "damaged": self._spool.set_aside_already(),
        }
        segments = GaugeMetricFamily(METRIC_PREFIX + "spool_segments", "Segments by state.", labels=["state"])
        sizes = GaugeMetricFamily(
            METRIC_PREFIX + "spool_bytes", "Bytes of segments by state.", labels=["state"]
        )
        for state, waiting in states.items():
            segments.add_metric([state], waiting.segments)
            sizes.add_metric([state], waiting.bytes)
        yield segments
        yield sizes
        yield GaugeMetricFamily(
            METRIC_PREFIX + "spool_free_bytes",
            "Free bytes on the spool's disk.",
            value=self._spool.free_bytes(),
        )
        yield GaugeMetricFamily(
            METRIC_PREFIX + "oldest_segment_age_seconds",
            "Age of the oldest segment that is not shipped.",
            value=_age_seconds(states["open"], states["sealed"]),
        )


_COUNTERS: Final = {
    "body_bytes": "Bytes of acknowledged bodies.",
    "commit_failures": "Groups that could not be made durable.",
    "aborted_requests": "Requests whose client went away or was too slow.",
    "shipped_segments": "Raw objects announced to the queue.",
    "shipped_pings": "Their pings.",
    "shipped_bytes": "Their bytes in S3.",
    "upload_errors": "Failed tries to reach S3.",
    "queue_errors": "Failed tries to reach SQS.",
    "damaged_segments": "Segments set aside.",
    "salvaged_pings": "Pings saved from segments set aside.",
}


def _age_seconds(*waiting: Waiting) -> float:
    """The age of the oldest segment among them; 0 without any."""
    oldest = [item.oldest_seconds for item in waiting if item.oldest_seconds is not None]
    return max(0.0, time.time() - min(oldest)) if oldest else 0.0


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
