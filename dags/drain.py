"""# Drain

Turns what waits on the index queue into rows of `live.pings` and `live.rejected_pings`, exactly once.

**Starts** when the doorbell rings: within seconds while index messages wait. Several runs work side by
side, each on batches of its own.

**Steps**: `claim` cuts the waiting messages into batches; `convert` stages Parquet files, one task a part;
`validate` asks the gates and decides; `publish` makes a batch visible with one commit a table;
`acknowledge` deletes the messages, and fails when something is left to look at.

**Anything may be killed, cleared or run again at any time.** Every step looks in the lake bucket for what
was done before. A run that finds no messages skips its steps and is green.

**Red?** The failed task's last line says what is wrong and what to do; `docs/drain.md` has a section a case.
"""

from typing import Any

from airflow.sdk import TriggerRule, dag, task

from dags.assets import RAW_INDEX, assets
from dags.lake_drain import PATIENT, lake_connections

Json = dict[str, Any]
CLAIMED = "claimed"


@task
def claim(ti: Any = None) -> list[Json]:
    """Cut what waits on the queue into batches that belong to us; return their parts, to be converted."""
    from telemetry_lake.drain.steps import Drain

    with lake_connections() as lake:
        claimed = Drain(lake).claim().model_dump(mode="json")
    ti.xcom_push(CLAIMED, claimed)
    return [part for batch in claimed["batches"] for part in batch["parts"]]


@task
def convert(part: Json) -> None:
    """Stage the rows of some raw objects as Parquet files that no reader sees yet."""
    from telemetry_lake.drain.batch import Part
    from telemetry_lake.drain.steps import Drain

    with lake_connections() as lake:
        Drain(lake).convert(Part.model_validate(part))


@task
def validate(claimed: Json) -> list[list[str]]:
    """Ask the gates whether each batch may become visible, and decide what it consists of."""
    from telemetry_lake.drain.claim import Claimed
    from telemetry_lake.drain.steps import Drain

    with lake_connections() as lake:
        return [audit.lines() for audit in Drain(lake).validate(Claimed.model_validate(claimed))]


# Of the whole drain: Airflow's graph of assets knows what one task reads and writes.
@task(
    trigger_rule=TriggerRule.ALL_DONE_MIN_ONE_SUCCESS,
    inlets=assets(RAW_INDEX),
    outlets=assets("live.pings", "live.rejected_pings"),
)
def publish(claimed: Json) -> list[Json]:
    """Commit each batch that was let pass; one whose gates failed does not hold the others back."""
    from telemetry_lake.drain.claim import Claimed
    from telemetry_lake.drain.steps import Drain

    # Never skipped, also when no batch was let pass: `acknowledge` would be skipped with it.
    with lake_connections() as lake:
        commitments = Drain(lake).publish(Claimed.model_validate(claimed))
        return [commitment.model_dump(mode="json") for commitment in commitments]


@task(trigger_rule=TriggerRule.ALL_DONE_MIN_ONE_SUCCESS)
def acknowledge(claimed: Json) -> None:
    """Delete the messages of what is committed; fail when something is left to look at."""
    from telemetry_lake.drain.claim import Claimed
    from telemetry_lake.drain.steps import Drain, raise_if_unfinished

    with lake_connections() as lake:
        all_claimed = Claimed.model_validate(claimed)
        raise_if_unfinished(all_claimed, Drain(lake).acknowledge(all_claimed))


@dag(
    dag_display_name="Drain",
    schedule=assets(RAW_INDEX),
    catchup=False,
    # One run works while the other waits for Airflow between its tasks. A third only makes batches smaller,
    # and a batch costs 2 s of a core however small. More workers help with the parts of a batch.
    max_active_runs=2,
    is_paused_upon_creation=False,
    # What is converted is published before more is claimed. By default the first tasks of all runs go first,
    # and under 732 pings/s a batch waited 49 s for a free slot between its gates and its commit.
    default_args={**PATIENT, "weight_rule": "upstream"},
    doc_md=__doc__,
    tags=["live"],
)
def drain() -> None:
    """Put the steps into their order."""
    parts: Any = claim()
    claimed = parts[CLAIMED]
    convert.expand(part=parts) >> validate(claimed) >> publish(claimed) >> acknowledge(claimed)


drain()
