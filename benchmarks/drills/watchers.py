"""A Prometheus and an Alertmanager that watch a drilled stack, and the web hook that they tell.

They run the same rules as in production, with all durations shortened by one factor, and tell everything at
once: rules are evaluated every second, and Alertmanager neither waits for more alarms of a group nor holds
back what it told a moment ago.
"""

import json
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import SecretStr

from lake_testing.stack import RunningProgram, free_ports
from local_stack.monitoring import alertmanager_program, prometheus_program
from local_stack.program import LOOPBACK, Program, probe
from telemetry_lake.monitoring.alarms import rules
from telemetry_lake.monitoring.alertmanager import alertmanager_configuration
from telemetry_lake.monitoring.watchdog import WATCHDOG, WatchersSilent, check_watchdog
from telemetry_lake.settings import AlertSettings

INTERVAL: Final = "1s"
"""Between two scrapes, between two evaluations, and between two tellings."""
RESOLVE_TIMEOUT: Final = "10s"


@dataclass(frozen=True, slots=True)
class Told:
    """What the web hook was told of one alarm at one moment."""

    alarm: str
    is_firing: bool
    labels: Mapping[str, str]
    summary: str
    runbook: str
    receiver: str
    at_seconds: float
    """On the monotonic clock."""


class Sink:
    """What was told so far, and what fires now."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._told: list[Told] = []
        self._firing: dict[str, Told] = {}
        self.port = 0
        self.refuses = False
        """Whether it answers 500, as a web hook that is broken."""

    def tell(self, content: Mapping[str, Any]) -> None:
        """Take one call of Alertmanager."""
        now = time.monotonic()
        with self._lock:
            for alert in content["alerts"]:
                told = Told(
                    alert["labels"]["alertname"],
                    alert["status"] == "firing",
                    alert["labels"],
                    alert["annotations"].get("summary", ""),
                    alert["annotations"].get("runbook", ""),
                    content["receiver"],
                    now,
                )
                self._told.append(told)
                if told.is_firing:
                    self._firing[alert["fingerprint"]] = told
                else:
                    self._firing.pop(alert["fingerprint"], None)

    def firing(self, *, but: Iterable[str] = (WATCHDOG,)) -> list[Told]:
        """Return what fires now, the watchdog aside."""
        with self._lock:
            return [told for told in self._firing.values() if told.alarm not in but]

    def first_firing(self, alarm: str, since_seconds: float, instance: str | None = None) -> Told | None:
        """Return what was told first of a firing `alarm` since a moment, of one instance or of any."""
        with self._lock:
            return next(
                (
                    told
                    for told in self._told
                    if told.alarm == alarm
                    and told.is_firing
                    and told.at_seconds >= since_seconds
                    and instance in (None, told.labels.get("instance"))
                ),
                None,
            )

    def fires(self, alarm: str) -> bool:
        """Return whether `alarm` fires now, of whatever instance."""
        return any(told.alarm == alarm for told in self.firing(but=()))

    def fired_since(self, since_seconds: float) -> set[str]:
        """Return the names of all alarms that were told firing since a moment, the watchdog aside."""
        with self._lock:
            return {
                told.alarm
                for told in self._told
                if told.is_firing and told.at_seconds >= since_seconds and told.alarm != WATCHDOG
            }


@contextmanager
def running_sink() -> Iterator[Sink]:
    """Run the web hook for the length of the block."""
    sink = Sink()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if not sink.refuses:
                sink.tell(content)
            self.send_response(500 if sink.refuses else 200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer((LOOPBACK, 0), Handler)
    server.daemon_threads = True
    sink.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
    thread.start()
    try:
        yield sink
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Watchers:
    """The two programs, and the addresses that Prometheus reads: for each job its targets."""

    def __init__(self, directory: Path, sink: Sink, *, factor: float, alarms: Iterable[str]) -> None:
        self._directory = directory
        self._targets = directory / "targets"
        self._targets.mkdir(parents=True)
        first_port = free_ports(2)
        self.prometheus = RunningProgram(
            _prometheus(
                directory,
                port=first_port,
                alertmanager_port=first_port + 1,
                rule_file=rules(alarms, factor=factor),
            )
        )
        self.alertmanager = RunningProgram(_alertmanager(directory, port=first_port + 1, sink=sink))
        self.prometheus_url = f"http://{LOOPBACK}:{first_port}"
        self.alertmanager_port = first_port + 1

    def watch(self, job: str, targets: Sequence[str]) -> None:
        """Have Prometheus read these addresses as `job`, and no others; it notices within a second or two."""
        file = self._targets / f"{job}.json"
        written = file.with_suffix(".new")
        written.write_text(json.dumps([{"targets": list(targets), "labels": {"job": job}}]))
        written.rename(file)

    def complaint(self) -> str | None:
        """Return what the outer watcher says of these two, None while it is content."""
        try:
            check_watchdog(f"http://{LOOPBACK}:{self.alertmanager_port}")
        except WatchersSilent as complaint:
            return str(complaint)
        return None

    def value(self, query: str) -> float | None:
        """Return the value of the first series that `query` finds now, None when it finds none."""
        answer = probe("Prometheus", f"{self.prometheus_url}/api/v1/query", form={"query": query})
        found = json.loads(answer)["data"]["result"]
        return float(found[0]["value"][1]) if found else None


@contextmanager
def running_watchers(
    directory: Path,
    sink: Sink,
    *,
    factor: float,
    alarms: Iterable[str],
    targets: Mapping[str, Sequence[str]],
) -> Iterator[Watchers]:
    """Run Prometheus and Alertmanager with the rules of these alarms. Yields them, and ends them.

    `targets` are addresses that Prometheus reads, by their jobs.
    """
    watchers = Watchers(directory, sink, factor=factor, alarms=alarms)
    for job, addresses in targets.items():
        watchers.watch(job, addresses)
    watchers.watch("alertmanager", [f"{LOOPBACK}:{watchers.alertmanager_port}"])
    try:
        watchers.alertmanager.start()
        watchers.prometheus.start()
        yield watchers
    finally:
        watchers.prometheus.kill()
        watchers.alertmanager.kill()


def _prometheus(directory: Path, *, port: int, alertmanager_port: int, rule_file: dict[str, Any]) -> Program:
    rules_file = directory / "rules.yaml"
    configuration = {
        "global": {"scrape_interval": INTERVAL, "scrape_timeout": INTERVAL, "evaluation_interval": INTERVAL},
        "rule_files": [str(rules_file)],
        "alerting": {
            "alertmanagers": [{"static_configs": [{"targets": [f"{LOOPBACK}:{alertmanager_port}"]}]}]
        },
        "scrape_configs": [
            {
                "job_name": "drilled",
                "file_sd_configs": [
                    {"files": [str(directory / "targets" / "*.json")], "refresh_interval": INTERVAL}
                ],
            }
        ],
    }
    program = prometheus_program(
        directory,
        configuration,
        "--rules.alert.resend-delay=1s",
        "--log.level=warn",
        port=port,
        log_file=directory / "prometheus.log",
    )
    return replace(program, files={**program.files, rules_file: yaml.safe_dump(rule_file, width=10_000)})


def _alertmanager(directory: Path, *, port: int, sink: Sink) -> Program:
    file = directory / "alertmanager.yaml"
    program = alertmanager_program(
        directory, file, "--log.level=warn", port=port, log_file=directory / "alertmanager.log"
    )
    return replace(program, files={file: yaml.safe_dump(drilled_configuration(sink.port))})


def drilled_configuration(sink_port: int) -> dict[str, Any]:
    """Return the routes and inhibitions of production, told to the sink at once."""
    hooks = (SecretStr(f"http://{LOOPBACK}:{sink_port}/"),)
    configuration = alertmanager_configuration(
        alerts=AlertSettings(page_webhooks=hooks, ticket_webhooks=hooks, watchdog_webhooks=hooks)
    )
    configuration["global"]["resolve_timeout"] = RESOLVE_TIMEOUT
    _tell_at_once(configuration["route"])
    return configuration


def _tell_at_once(route: dict[str, Any]) -> None:
    route.update(group_wait="0s", group_interval=INTERVAL)
    if "repeat_interval" in route:
        route["repeat_interval"] = INTERVAL if "watchdog" in route["receiver"] else "1h"
    for inner in route.get("routes", ()):
        _tell_at_once(inner)
