"""Links of Airflow's user interface into the lake: from a task to its audit, rows and dashboard, and a menu.

The links of a task are made by the api-server when a person opens the task. So they cost a run nothing, and
none is kept. A link that would lead nowhere is not shown. Where the web pages are is
`TELEMETRY_LAKE_ANALYSIS__SERVICE_URL`; without it there are only the links that stay in Airflow.
"""

import json
import logging
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import urlencode

from airflow.plugins_manager import AirflowPlugin
from airflow.sdk import BaseOperatorLink

AUDITS: Final = "/audits/"
TABLES: Final = f"{AUDITS}tables/"
DRAIN: Final = "drain"
SHOWN_BY_DASHBOARD: Final = frozenset({"derived.histogram_aggregates", "dashboard_cubes"})
SPARE: Final = timedelta(seconds=1)
"""The page lists what was audited before a moment, and this task's last audit may be as late as its end."""

_log = logging.getLogger(__name__)


def pages_url() -> str | None:
    """Return where people find the web pages; None when the settings do not say it, or are wrong."""
    from telemetry_lake.failures import ConfigurationError
    from telemetry_lake.settings import load_settings

    try:
        url = load_settings().analysis.service_url
    except ConfigurationError as error:
        _log.warning("no links to the web pages: %s", error)
        return None
    return None if url is None else url.rstrip("/")


def written_by(operator: Any) -> list[str]:
    """Return the names of the assets that a task writes."""
    return [outlet.name for outlet in operator.outlets or () if hasattr(outlet, "name")]


class AuditLink(BaseOperatorLink):
    """Leads from a task to what was audited in its run: of the drain a batch, else the dates of tables."""

    name = "Audit"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """Return the audit of the run's one batch, or the list of audits up to the end of the task."""
        if ti_key.dag_id == DRAIN:
            batches = _claimed_batches(ti_key)
            if len(batches) == 1:
                return f"{AUDITS}{batches[0]}"
            return _audits_until(ti_key) if batches else ""
        is_audited = any("." in name for name in written_by(operator))
        return _audits_until(ti_key) if is_audited else ""


class RowsLink(BaseOperatorLink):
    """Leads from a task to the first table that it writes: its columns, and queries to copy."""

    name = "Rows"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:  # noqa: ARG002 (Airflow passes it)
        """Return the page of the table."""
        tables = [name for name in written_by(operator) if "." in name]
        return f"{TABLES}{tables[0]}" if tables else ""


class DashboardLink(BaseOperatorLink):
    """Leads from what makes the dashboard to it."""

    name = "Dashboard"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:  # noqa: ARG002 (Airflow passes it)
        """Return the first page of the web pages."""
        is_shown = SHOWN_BY_DASHBOARD.intersection(written_by(operator))
        return f"{url}/" if is_shown and (url := pages_url()) else ""


def _claimed_batches(ti_key: Any) -> list[str]:
    """Return the batches that the run of the drain claimed; none when its record is gone."""
    from airflow.models.xcom import XComModel
    from airflow.utils.session import create_session

    with create_session() as session:
        claimed = session.scalar(
            XComModel.get_many(
                key="claimed", run_id=ti_key.run_id, dag_ids=DRAIN, task_ids="claim"
            ).with_only_columns(XComModel.value)
        )
    found = json.loads(claimed) if isinstance(claimed, str) else claimed or {}
    return [str(batch["batch_id"]) for batch in found.get("batches", ())]


def _audits_until(ti_key: Any) -> str:
    """Return the list of audits that ends with those of a task; empty before the task has begun."""
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.session import create_session
    from sqlalchemy import select

    wanted = {"dag_id": ti_key.dag_id, "task_id": ti_key.task_id, "run_id": ti_key.run_id}
    with create_session() as session:
        row = session.execute(
            select(TaskInstance.start_date, TaskInstance.end_date).filter_by(
                **wanted, map_index=ti_key.map_index
            )
        ).first()
    if row is None or row.start_date is None:
        return ""
    if row.end_date is None:
        return f"{AUDITS}?{urlencode({'day': datetime.now(UTC).date().isoformat()})}"
    before = row.end_date.astimezone(UTC) + SPARE
    return f"{AUDITS}?{urlencode({'day': before.date().isoformat(), 'before': before.isoformat()})}"


class LakeLinks(AirflowPlugin):
    """Adds the links of tasks, and those of the menu."""

    name = "lake_links"
    global_operator_extra_links = [AuditLink(), RowsLink(), DashboardLink()]  # noqa: RUF012 (Airflow's form)

    @property
    def external_views(self) -> list[dict[str, Any]]:  # type: ignore[override]  # asked when pages are shown
        """The entries of the menu. Those that have no route open a tab of their own."""
        tables = {"name": "Tables", "href": TABLES, "destination": "nav", "url_route": "lake-tables"}
        url = pages_url()
        if url is None:
            return [tables]
        places = {
            "Lake: dashboard": "/",
            "Lake: analyses": "/analyses",
            "Lake: operations": "/operations",
            "Lake: runbooks": "/operations/runbooks",
        }
        others = [
            {"name": name, "href": f"{url}{path}", "destination": "nav"} for name, path in places.items()
        ]
        return [tables, *others]
