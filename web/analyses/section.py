"""The analysis service as a section of the web pages."""

import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

from fastapi import APIRouter

from telemetry_lake.failures import ConfigurationError, TelemetryLakeError
from telemetry_lake.settings import Settings
from telemetry_lake.storage.object_keys import JOB_PREFIX
from telemetry_lake.storage.object_store import ObjectStore
from web.analyses.access import Access
from web.analyses.account import account_router
from web.analyses.api import api_router
from web.analyses.job_form_pages import form_router
from web.analyses.job_pages import job_router
from web.analyses.log_in import log_in_router
from web.analyses.open_id import OpenId
from web.analyses.run_pages import run_router
from web.analyses.service import Service
from web.analyses.users import UsersFile
from web.analyses.visitors import API, START, Visitors
from web.background import Background
from web.layout import Layout, Link

CLEANING_SECONDS: Final = 3_600
STOP_WAIT_SECONDS: Final = 10
_log: Final = logging.getLogger(__name__)


class AnalysesSection:
    """Log-in, jobs, runs and results."""

    def __init__(self, settings: Settings) -> None:
        """Raise ConfigurationError when nobody could log in with these settings."""
        self._settings = web = settings.web
        self._store, self._bucket = ObjectStore(settings.s3), settings.s3.lake_bucket
        self._access = Access(self._store, self._bucket)
        self._users: UsersFile | None = None
        self._open_id: OpenId | None = None
        if web.openid is None:
            self._users = UsersFile(web.users_file)
        elif web.public_url is None:
            raise ConfigurationError(
                "TELEMETRY_LAKE_WEB__OPENID needs TELEMETRY_LAKE_WEB__PUBLIC_URL: the provider sends people "
                "back to it"
            )
        else:
            self._open_id = OpenId(web.openid, web.public_url)
        self._service = Service(settings)
        self._visitors = Visitors(self._access, self._users, web)
        self._cleaning = Background(
            "sessions",
            self._remove_old,
            rest_seconds=CLEANING_SECONDS,
            failed="removing old sessions failed",
        )

    @property
    def visitors(self) -> Visitors:
        """Who is logged in; for sections that have no log-in of their own."""
        return self._visitors

    @property
    def navigation(self) -> Sequence[Link]:
        """The list of jobs."""
        about = "Map-reduce jobs over the pings: write one, try it, run it, repeat it, share its result."
        return (Link("Analyses", START, about=about),)

    @property
    def body_limits(self) -> Mapping[str, int]:
        """Forms and requests that carry the code of a job."""
        forms = (f"{START}/jobs", f"{START}/try-it", f"{START}/count")
        return dict.fromkeys((*forms, API), self._settings.upload_max_bytes)

    def router(self, layout: Layout) -> APIRouter:
        """Return the routes of pages and API."""
        router = APIRouter()
        router.include_router(
            log_in_router(self._visitors, self._access, self._users, self._open_id, self._service, layout)
        )
        router.include_router(account_router(self._visitors, self._access, self._service, layout))
        router.include_router(job_router(self._service, self._visitors, layout))
        router.include_router(form_router(self._service, self._visitors, layout))
        router.include_router(run_router(self._service, self._visitors, layout))
        router.include_router(api_router(self._service, self._visitors))
        return router

    def start(self) -> None:
        """Begin to remove sessions that have ended."""
        self._cleaning.start()

    def stop(self) -> None:
        """Stop that."""
        self._cleaning.stop(STOP_WAIT_SECONDS)
        self._service.close()

    def heartbeat(self) -> tuple[bool, dict[str, object]]:
        """Return whether the bucket answers, without which nobody can log in."""
        try:
            # This role may list its own objects, and not look for the bucket.
            next(self._store.list_objects(self._bucket, JOB_PREFIX), None)
        except TelemetryLakeError as error:
            return False, {"problem": str(error)}
        return True, {"problem": None}

    def _remove_old(self) -> None:
        try:
            self._access.remove_old(datetime.now(UTC).date())
        except TelemetryLakeError as error:
            _log.warning("old sessions cannot be removed: %s", error)
