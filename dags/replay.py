"""# Replay

Lets the drain see again what was set aside. Trigger it by hand and fill in the form:

- **dead letters**: all that are in the dead-letter queue now. With a reason in *waive gates*, batches that
  their gates stopped are published all the same.
- **rejected pings**: those of `live.rejected_pings` that fit every field that is filled in.
- **raw objects**: those of the given days that are not committed; *waive gates* as above.

Replaying twice changes nothing, and nothing that is live is ever doubled.
`python -m telemetry_lake replay --help` does the same.
"""

from dataclasses import asdict
from typing import Any

from airflow.sdk import Param, dag, task

from dags.assets import assets
from dags.lake_drain import PATIENT, lake_connections
from telemetry_lake.failures import ErrorType

WHAT = ["dead letters", "rejected pings", "raw objects"]


def _day(title: str) -> Param:
    return Param(None, title=title, type=["null", "string"], format="date", description="A UTC day.")


@task(inlets=assets("live.rejected_pings"))
def send_again(params: Any = None) -> dict[str, object]:
    """Send again what the form asks for; return what was sent."""
    from telemetry_lake.recovery.replay import ReplayRequest, replay

    with lake_connections() as lake:
        return asdict(replay(lake, ReplayRequest.model_validate(dict(params))))


@dag(
    dag_display_name="Replay",
    schedule=None,
    max_active_runs=1,
    is_paused_upon_creation=False,
    default_args=PATIENT,
    doc_md=__doc__,
    tags=["live"],
    params={
        "what": Param(WHAT[0], title="What to replay", type="string", enum=WHAT),
        "error_type": Param(
            None,
            title="Rejected for",
            type=["null", "string"],
            enum=[None, *ErrorType],
            description="Rejected pings only.",
        ),
        "document_type": Param(
            None, title="Document type", type=["null", "string"], description="Rejected pings only."
        ),
        "first_day": _day("First day"),
        "last_day": _day("Last day"),
        "waive_gates": Param(
            None,
            title="Waive gates, because",
            type=["null", "string"],
            description="Dead letters and raw objects: publish batches that gates stopped, for this reason.",
        ),
    },
)
def replay() -> None:
    """Run the one task."""
    send_again()


replay()
