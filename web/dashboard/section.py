"""The dashboard as a section: it keeps its copy of the cubes current and answers from it."""

import hashlib
import json
import logging
import os
import threading
from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from typing import Final

from fastapi import APIRouter

from telemetry_lake import __version__
from telemetry_lake.dashboard.answers import Thresholds
from telemetry_lake.dashboard.cubes import CubeLimits
from telemetry_lake.dashboard.local_copy import LocalCopy, NoCubes
from telemetry_lake.failures import ConfigurationError, TelemetryLakeError
from telemetry_lake.histograms.bucket_ranges import BucketRange, HistogramType, bucket_bounds
from telemetry_lake.settings import Settings, WebSettings
from telemetry_lake.storage.object_store import ObjectStore
from web.background import Background
from web.dashboard.old_routes import old_router
from web.dashboard.routes import dashboard_router
from web.dashboard.source import Source
from web.layout import Layout, Link

STOP_WAIT_SECONDS: Final = 10
BACKGROUND_NICENESS: Final = 10
_log: Final = logging.getLogger(__name__)


class DashboardSection:
    """Distributions and evolutions."""

    def __init__(self, settings: Settings) -> None:
        """Raise ConfigurationError when the directory of the copy cannot be used, or no threshold is set for
        other machines.
        """
        web = settings.web
        _refuse_forgotten_thresholds(web)
        self._copy = LocalCopy(
            ObjectStore(settings.s3),
            settings.s3.lake_bucket,
            web.cubes_directory,
            CubeLimits(
                web.queries_at_once,
                web.query_wait_seconds,
                web.query_timeout_seconds,
                web.query_memory_max_bytes,
            ),
        )
        thresholds = Thresholds(web.minimum_clients, web.minimum_clients_elsewhere)
        # What changes answers besides the cubes.
        known = json.dumps([__version__, web.minimum_clients, web.minimum_clients_elsewhere], sort_keys=True)
        self._source = Source(
            self._copy, thresholds, web.stale_after_hours, hashlib.sha256(known.encode()).hexdigest()[:8]
        )
        self._problem: str | None = None
        self._fetching = Background(
            "cubes",
            self._bring_up_to_date,
            rest_seconds=web.cubes_poll_seconds,
            failed="looking for new cubes failed",
            prepare=_prepare,
        )

    @property
    def navigation(self) -> Sequence[Link]:
        """Distribution, evolution, metrics, API."""
        return (
            Link("Distribution", "/distribution", True, "What values of a metric clients send."),
            Link("Evolution", "/evolution", True, "How they change from build to build, or from day to day."),
            Link("Metrics", "/metrics", about="All metrics that there is data of."),
            Link("API", "/api", about="The same numbers for programs."),
        )

    @property
    def body_limits(self) -> Mapping[str, int]:
        """All requests are small."""
        return {}

    def router(self, layout: Layout) -> APIRouter:
        """Return the routes of pages, API and exports."""
        router = dashboard_router(self._source, layout)
        router.include_router(old_router(self._source))
        return router

    def start(self) -> None:
        """Begin to keep the copy of the cubes current."""
        self._fetching.start()

    def stop(self) -> None:
        """Stop that, and close the copy."""
        self._fetching.stop(STOP_WAIT_SECONDS)
        self._copy.close()

    def heartbeat(self) -> tuple[bool, dict[str, object]]:
        """Return whether there are cubes, and which."""
        try:
            with self._copy.opened() as cubes:
                until = cubes.manifest.data_until
                return True, {
                    "version": cubes.version,
                    "built_at": cubes.manifest.built_at.isoformat(),
                    "data_until": None if until is None else until.isoformat(),
                    "unmerged": self._copy.unmerged,
                    "problem": self._copy.problem,
                }
        except NoCubes as error:
            return False, {"version": None, "problem": str(error)}

    def _bring_up_to_date(self) -> float | None:
        """Fetch what is new, or merge some days; there is no rest while more may be merged."""
        try:
            if self._copy.refresh():
                _log.warning("serving the cubes of version %s", self._copy.version)
            merged = self._copy.merge()
        except TelemetryLakeError as error:
            if str(error) != self._problem:
                _log.warning("the cubes cannot be brought up to date: %s", error)
            self._problem = str(error)
            return None
        self._problem = None
        return 0 if merged else None


def _prepare() -> None:
    """Do what takes seconds before anybody asks for it, and give way to readers from then on."""
    for kind in (HistogramType.EXPONENTIAL, HistogramType.LINEAR):
        bucket_bounds(BucketRange(kind, 1, 100, 10))
    # Of this thread alone: readers come before what is fetched and merged for later ones.
    this_thread = threading.get_native_id()
    niceness = max(os.getpriority(os.PRIO_PROCESS, this_thread), BACKGROUND_NICENESS)
    os.setpriority(os.PRIO_PROCESS, this_thread, niceness)


def _refuse_forgotten_thresholds(web: WebSettings) -> None:
    """Raise ConfigurationError when other machines would see what few clients sent, and nobody chose that."""
    if _is_loopback(web.host) or {"minimum_clients", "minimum_clients_elsewhere"} & web.model_fields_set:
        return
    raise ConfigurationError(
        f"the dashboard listens on {web.host}, where other machines reach it, and no threshold of clients is "
        "set, so that it would show what single clients sent. Set TELEMETRY_LAKE_WEB__MINIMUM_CLIENTS and "
        "TELEMETRY_LAKE_WEB__MINIMUM_CLIENTS_ELSEWHERE (docs/dashboard.md); an explicit 0 shows everything"
    )


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
