"""The status of the stack for people: processes and numbers on a terminal, or one line in a log."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from local_stack.airflow import ADMIN
from local_stack.configuration import Balancer
from local_stack.monitoring import ALERTMANAGER, EXPORTER, PROMETHEUS, PROMETHEUS_PACKAGES
from local_stack.plan import Plan
from local_stack.web_pages import WEB

if TYPE_CHECKING:
    from local_stack.observe import FlowLook, Look, ProcessLook

SECONDS_PER_MINUTE: Final = 60
_UNKNOWN: Final = "?"


def status_screen(plan: Plan, look: "Look", before: "Look | None") -> RenderableType:
    """Return the whole status, with rates since `before`."""
    processes = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("process", "state", "pid", "up", "health"):
        processes.add_column(title)
    for process in look.processes:
        processes.add_row(*_process_cells(process))
    flow = Table(box=None, pad_edge=False, show_header=False)
    flow.add_column(style="bold")
    flow.add_column()
    for name, value in _flow_lines(look.flow, None if before is None else before.flow):
        flow.add_row(name, value)
    places = Table(box=None, pad_edge=False, show_header=False)
    places.add_column(style="bold")
    places.add_column()
    for name, value in places_to_go(plan):
        places.add_row(name, value)
    parts: list[RenderableType] = [processes, Text(), flow, Text(), places]
    if not look.supervisor_runs:
        parts.append(Text("supervisord is not running", style="bold red"))
    return Group(*parts)


def status_line(look: "Look", before: "Look | None") -> str:
    """Return the status in one line, for logs."""
    numbers = ", ".join(
        f"{name}: {value}" for name, value in _flow_lines(look.flow, None if before is None else before.flow)
    )
    wrong = ", ".join(
        f"{process.name}: {process.wrong or process.state}" for process in _unhealthy(look.processes)
    )
    return f"{numbers}; {f'NOT HEALTHY {wrong}' if wrong else 'all healthy'}"


def places_to_go(plan: Plan) -> list[tuple[str, str]]:
    """Return where everything of the stack can be reached."""
    configuration = plan.configuration
    names = {program.name for program in plan.programs}
    balancer = (
        "no balancer is installed, one node"
        if configuration.balancer is Balancer.NONE
        else f"{configuration.balancer} before {' and '.join(node.url for node in plan.nodes)}"
    )
    places = [
        ("send pings to", f"{plan.ingest_url}/submit/…  ({balancer})", plan.nodes[0].name),
        ("web pages", plan.pages.url, WEB),
        (
            "analysis service",
            f"{plan.pages.url}/analyses  (user {ADMIN}, password in {plan.pages.password_file})",
            WEB,
        ),
        ("operations page", f"{plan.pages.url}/operations  (the same user)", WEB),
        (
            "Airflow",
            f"{plan.airflow_url}  (user {ADMIN}, password in {plan.airflow_password_file})",
            "airflow-api-server",
        ),
        (
            "Airflow's database",
            f"{configuration.database} ({configuration.database_reason})",
            "airflow-api-server",
        ),
        ("metrics", plan.monitoring.exporter_url, EXPORTER),
        ("Prometheus", plan.monitoring.prometheus_url, PROMETHEUS),
        ("Alertmanager", plan.monitoring.alertmanager_url, ALERTMANAGER),
        ("S3", plan.s3.s3_url, "seaweedfs"),
        ("Iceberg catalog", plan.s3.catalog_url, "seaweedfs"),
        ("SQS", plan.sqs.url, "elasticmq"),
    ]
    without = (
        []
        if configuration.prometheus or EXPORTER not in names
        else [("Prometheus", f"does not run here: apt-get install {' '.join(PROMETHEUS_PACKAGES)}")]
    )
    return [
        *((name, value) for name, value, program in places if program in names),
        *without,
        ("settings and keys", str(plan.layout.env_file)),
        ("logs", str(plan.layout.logs)),
    ]


def _process_cells(process: "ProcessLook") -> tuple[RenderableType, ...]:
    is_healthy = process.state == "RUNNING" and process.wrong is None
    return (
        process.name,
        Text(process.state.lower(), style="green" if process.state == "RUNNING" else "red"),
        str(process.pid or _UNKNOWN),
        _duration(process.uptime_seconds) if process.pid else _UNKNOWN,
        Text("healthy", style="green")
        if is_healthy
        else Text(process.wrong or f"see {process.log_file}", style="red"),
    )


def _unhealthy(processes: Iterable["ProcessLook"]) -> "list[ProcessLook]":
    return [process for process in processes if process.state != "RUNNING" or process.wrong is not None]


def _flow_lines(flow: "FlowLook", before: "FlowLook | None") -> list[tuple[str, str]]:
    return [
        ("pings acknowledged", f"{_number(flow.acknowledged)}{_rate(flow, before)}"),
        ("segments waiting", _number(flow.segments_waiting)),
        ("index messages waiting", _number(flow.index_messages_waiting)),
        ("rows of live.pings", _number(flow.live_rows)),
        ("rows of live.rejected_pings", _number(flow.rejected_rows)),
        (
            "last commit",
            _UNKNOWN
            if flow.last_commit_age_seconds is None
            else f"{_duration(int(flow.last_commit_age_seconds))} ago",
        ),
        ("completeness", _UNKNOWN if flow.completeness is None else flow.completeness),
    ]


def _rate(flow: "FlowLook", before: "FlowLook | None") -> str:
    if before is None or flow.acknowledged is None or before.acknowledged is None:
        return ""
    # A node that was restarted counts from zero again.
    arrived = max(0, flow.acknowledged - before.acknowledged)
    return f" ({arrived / max(flow.at_seconds - before.at_seconds, 1e-3):.1f}/s)"


def _number(value: int | None) -> str:
    return _UNKNOWN if value is None else f"{value:,}"


def _duration(seconds: int) -> str:
    minutes, rest = divmod(max(0, seconds), SECONDS_PER_MINUTE)
    hours, minutes = divmod(minutes, SECONDS_PER_MINUTE)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
