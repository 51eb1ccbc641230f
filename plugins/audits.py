"""A page of Airflow's user interface: which batches were audited, and what the gates found in each.

`/audits/` lists the audits of a day, `/audits/<batch id>` shows one, to whoever is logged in to Airflow.
"""

from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Annotated, Any, Final

from airflow.plugins_manager import AirflowPlugin

if TYPE_CHECKING:
    from fastapi import FastAPI

    from telemetry_lake.ledger import Ledger

URL_PREFIX: Final = "/audits"


def audits_app() -> "FastAPI":
    """The pages. Imports are in here because every process of Airflow reads this file; one serves it."""
    from airflow.api_fastapi.core_api.security import GetUserDep
    from fastapi import FastAPI, HTTPException, Path
    from fastapi.responses import HTMLResponse

    from telemetry_lake.audit_pages import page_of_batch, page_of_day

    app = FastAPI(title="Audits", docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/", response_class=HTMLResponse)
    def audits(_: GetUserDep, day: date | None = None) -> str:
        """The audits of a UTC day; today's when none is given."""
        today = datetime.now(UTC).date()
        return page_of_day(_ledger(), day or today, today=today)

    @app.get("/{batch_id}", response_class=HTMLResponse)
    def audit(batch_id: Annotated[str, Path(pattern="^[0-9a-f]{32}$")], _: GetUserDep) -> str:
        """What the gates found in one batch."""
        page = page_of_batch(_ledger(), batch_id)
        if page is None:
            raise HTTPException(404, f"batch {batch_id} was not audited; {URL_PREFIX}/ lists those that were")
        return page

    return app


def _ledger() -> "Ledger":
    """The ledger of this machine's settings."""
    from telemetry_lake.ledger import Ledger
    from telemetry_lake.object_store import ObjectStore
    from telemetry_lake.settings import load_settings

    settings = load_settings()
    return Ledger(ObjectStore(settings.s3), settings.s3.lake_bucket)


class Audits(AirflowPlugin):
    """Adds the pages and an entry of the navigation."""

    name = "audits"
    external_views = [  # noqa: RUF012  (Airflow's form)
        {"name": "Audits", "href": f"{URL_PREFIX}/", "destination": "nav", "url_route": "audits"}
    ]

    @property
    def fastapi_apps(self) -> list[dict[str, Any]]:  # type: ignore[override]  # only the api-server asks
        """The app, when somebody wants to serve it."""
        return [{"app": audits_app(), "url_prefix": URL_PREFIX, "name": "Audits"}]
