"""Metrics of the closed list, shown by Prometheus' own client library at an address of a test."""

import threading
from typing import Final
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from lake_testing.stack import free_ports
from local_stack.program import LOOPBACK
from telemetry_lake.monitoring.metric import Kind
from telemetry_lake.monitoring.metrics import BY_NAME

PREFIX: Final = "telemetry_lake_"


class ShownMetrics:
    """A `/metrics` whose values a test sets; `url` is where it is."""

    def __init__(self) -> None:
        self.port = free_ports(1)
        self.url = f"http://{LOOPBACK}:{self.port}"
        self._registry = CollectorRegistry()
        self._made: dict[str, Counter | Gauge | Histogram] = {}
        self._server: tuple[WSGIServer, threading.Thread] | None = None

    def start(self) -> None:
        """Answer from now on."""
        self._server = start_http_server(self.port, LOOPBACK, registry=self._registry)

    def stop(self) -> None:
        """Answer no more."""
        if self._server is not None:
            server, thread = self._server
            server.shutdown()
            server.server_close()
            thread.join()
            self._server = None

    def show(self, name: str, value: float, **labels: str) -> None:
        """Show this value of a metric, without its common prefix; a counter rises by it."""
        full_name = PREFIX + name
        metric = self._made.get(full_name)
        if metric is None:
            kind = {Kind.COUNTER: Counter, Kind.GAUGE: Gauge, Kind.HISTOGRAM: Histogram}[
                BY_NAME[full_name].kind
            ]
            metric = kind(full_name, "A metric of a test.", tuple(labels), registry=self._registry)
            self._made[full_name] = metric
        series = metric.labels(**labels) if labels else metric
        if isinstance(series, Gauge):
            series.set(value)
        elif isinstance(series, Counter):
            series.inc(value)
        else:
            series.observe(value)
