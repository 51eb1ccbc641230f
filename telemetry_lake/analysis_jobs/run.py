"""A run as it is now: what was asked for, how far it has come, and who may see it."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final
from urllib.parse import quote

from telemetry_lake.analysis_jobs.documents import Outcome, RunRequest, RunState, Visibility
from telemetry_lake.mapreduce.progress import Progress
from telemetry_lake.settings import AnalysisSettings

SECONDS_IN_HOUR: Final = 3_600


@dataclass(frozen=True, slots=True)
class Run:
    """A run as it is now."""

    request: RunRequest
    state: RunState
    visibility: Visibility
    """The narrower one of the run's and of what its job has now."""
    progress: Progress | None
    outcome: Outcome | None
    started_at: datetime | None
    """When it began; None for one that waits, or when Airflow does not say."""
    problem: str = ""
    """Why the state may be out of date."""
    machine_hour_price: float = 0
    airflow_page: str | None = None

    @property
    def run_id(self) -> str:
        """Its id."""
        return self.request.run_id

    @property
    def ended_at(self) -> datetime | None:
        """When it ended."""
        return self.outcome.ended_at if self.outcome else None

    def queue_seconds(self, now: datetime) -> float:
        """Return how long it waited before it began, or has waited up to `now`."""
        return max(((self.started_at or self.ended_at or now) - self.request.asked_at).total_seconds(), 0.0)

    def run_seconds(self, now: datetime) -> float:
        """Return how long it ran, or has run up to `now`."""
        if self.started_at is None:
            return 0.0
        return max(((self.ended_at or now) - self.started_at).total_seconds(), 0.0)

    def cost(self, now: datetime) -> float | None:
        """Return the estimate of what it cost, in dollars; None without a price in the settings."""
        if not self.machine_hour_price:
            return None
        hours = self.run_seconds(now) / SECONDS_IN_HOUR
        return hours * self.request.machines * self.machine_hour_price


def page_in_service(settings: AnalysisSettings, run_id: str) -> str | None:
    """Return the address of a run's page in the analysis service; None when the settings name no service."""
    url = settings.service_url
    return None if url is None else f"{url.rstrip('/')}/analyses/runs/{quote(run_id, safe='')}"
