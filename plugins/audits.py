"""A page of Airflow's user interface: what was audited, batches and dates, and what checks found in each.

`/audits/` lists the audits of a day, `/audits/<batch id>` shows that of a batch, `/audits/dates/<name>` that
of a date of a table, `/audits/tables/<name>` a table with queries for its rows. They say what the log of the
drain's task `validate` says: a user sees them who may read the task logs of the DAG `drain`.
"""

from datetime import UTC, date, datetime
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, Final

from airflow.plugins_manager import AirflowPlugin

if TYPE_CHECKING:
    from fastapi import FastAPI

    from telemetry_lake.audits.pages import AuditRecords

URL_PREFIX: Final = "/audits"
DRAIN: Final = "drain"
"""The DAG whose task logs a user must be allowed to read."""


def audits_app() -> "FastAPI":
    """Return the pages, imported here because every process of Airflow reads this file, and one serves it."""
    from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
    from airflow.api_fastapi.core_api.security import requires_access_dag
    from fastapi import Depends, FastAPI, HTTPException, Path
    from fastapi.responses import HTMLResponse
    from pydantic import AwareDatetime

    from telemetry_lake.audits.pages import (
        page_of_batch,
        page_of_date,
        page_of_day,
        page_of_table,
        page_of_tables,
    )

    may_read_logs = Depends(requires_access_dag("GET", DagAccessEntity.TASK_LOGS, param_dag_id=DRAIN))
    app = FastAPI(
        title="Audits", docs_url=None, redoc_url=None, openapi_url=None, dependencies=[may_read_logs]
    )

    @app.get("/", response_class=HTMLResponse)
    def audits(day: date | None = None, before: AwareDatetime | None = None) -> str:
        """The last audits of a UTC day, today by default, or those of that day before a time."""
        now = datetime.now(UTC)
        return page_of_day(_records(), day or now.date(), now=now, before=before)

    @app.get("/tables/", response_class=HTMLResponse)
    def tables() -> str:
        """All tables of the lake."""
        return page_of_tables()

    @app.get("/tables/{name}", response_class=HTMLResponse)
    def table(name: str) -> str:
        """What a table is, and queries for its rows."""
        page = page_of_table(name)
        if page is None:
            raise HTTPException(404, f"there is no table {name}; {URL_PREFIX}/tables/ lists them")
        return page

    @app.get("/{batch_id}", response_class=HTMLResponse)
    def batch(batch_id: Annotated[str, Path(pattern="^[0-9a-f]{32}$")]) -> str:
        """What the gates found in one batch."""
        page = page_of_batch(_records().ledger, batch_id)
        if page is None:
            raise HTTPException(404, f"batch {batch_id} was not audited; {URL_PREFIX}/ lists those that were")
        return page

    @app.get("/dates/{name:path}", response_class=HTMLResponse)
    def date_of_table(name: str) -> str:
        """What the checks found in one date of a table."""
        try:
            page = page_of_date(_records().dates, name)
        except ValueError as error:
            raise HTTPException(422, str(error)) from error
        if page is None:
            raise HTTPException(404, f"there is no audit {name}; {URL_PREFIX}/ lists those of a day")
        return page

    return app


@cache
def _records() -> "AuditRecords":
    """Return the records of batches, dates and days, where the settings of this machine say that they are.

    One client serves all requests: a new one takes a tenth of a second.
    """
    from telemetry_lake.audits.dates import DateAudits
    from telemetry_lake.audits.pages import AuditRecords
    from telemetry_lake.drain.days import DayLedger
    from telemetry_lake.drain.ledger import Ledger
    from telemetry_lake.settings import Role, load_settings
    from telemetry_lake.storage.object_store import ObjectStore

    settings = load_settings(role=Role.WEB)
    store, bucket = ObjectStore(settings.s3), settings.s3.lake_bucket
    return AuditRecords(Ledger(store, bucket), DateAudits(store, bucket), DayLedger(store, bucket))


class Audits(AirflowPlugin):
    """Adds the pages and an entry in the navigation."""

    name = "audits"
    external_views = [  # noqa: RUF012  (Airflow's form)
        {"name": "Audits", "href": f"{URL_PREFIX}/", "destination": "nav", "url_route": "audits"}
    ]

    @property
    def fastapi_apps(self) -> list[dict[str, Any]]:  # type: ignore[override]  # only the api-server asks
        """The app, built when a process is about to serve it."""
        return [{"app": audits_app(), "url_prefix": URL_PREFIX, "name": "Audits"}]
