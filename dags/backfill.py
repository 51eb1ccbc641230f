"""# Backfill

Copies a range of dates of the historic archive into `live.pings` and `live.rejected_pings`, and proves for
each date that everything arrived before any of it is visible. One run copies one range; ranges may be small,
and a run may take days.

**Steps**: `plan` lists the archive once; `run` copies and converts what is not copied yet; `verify` compares,
by unit, records, bytes, ids and digests of the archive with what was written, and prints a report a date;
`publish` makes each date visible in one commit a table. How far it is stands in the log of `run`, and
`python -m jobs.backfill status` says the same at any time.

**Anything may be killed, cleared or run again at any time.** Every step goes on where it stopped, and nothing
is doubled, even by two runs at once. *MiB a second* and *units at the same time* spare the old cluster.

**Red at `publish`?** A date has losses that were not accepted, or unexplained differences; the last
lines of the log name them. The other dates of the range are published. Look at the report in the log of
`verify`, then trigger the run again with *accept losses* filled in, or mend the archive and give a label.

**Undo a date**: `python -m jobs.backfill undo --help`. Everything else is in `docs/backfill.md`.
"""

from datetime import timedelta

from airflow.sdk import Param, dag

from dags.assets import FINISHED_DATES
from dags.date_form import archive_dates_param
from dags.owners import ENGINEERS
from dags.spark_job import spark_job

WHICH = (
    *("--dates", "{{ params.dates }}"),
    *("--root", "{{ params.root or '' }}"),
    *("--directories", "{{ params.directories or '' }}"),
    *("--label", "{{ params.label or '' }}"),
)
"""The options of every step, so that all of them mean the same backfill."""


@dag(
    dag_display_name="Backfill",
    schedule=None,
    catchup=False,
    max_active_runs=2,
    is_paused_upon_creation=False,
    default_args={"owner": ENGINEERS, "retries": 3, "retry_delay": timedelta(minutes=2)},
    params={
        "dates": archive_dates_param("2014-03-01..2014-03-07"),
        "root": Param(
            None,
            type=["null", "string"],
            pattern=r"^((webhdfs|s3|file)://.*)?$",
            title="Root of the archive",
            description="webhdfs://<name node>:<port>/<path>, s3://<bucket>/<prefix> or file:///<path>; "
            "that of the settings when empty.",
        ),
        "directories": Param(
            None,
            type=["null", "string"],
            title="Directories",
            description="Below the root, with commas; those of the settings when empty.",
        ),
        "label": Param(
            None,
            type=["null", "string"],
            maxLength=64,
            title="Label",
            description="Makes another backfill of the same dates, after the archive was mended.",
        ),
        "parallel_units": Param(8, type="integer", minimum=1, maximum=10_000, title="Units at the same time"),
        "max_mib_per_second": Param(
            0,
            type="number",
            minimum=0,
            title="MiB a second",
            description="How much may be read from the archive by all processes together; 0 for no limit.",
        ),
        "accept_losses": Param(
            None,
            type=["null", "string"],
            pattern=r"^[a-z_, ]*$",
            title="Accept losses",
            description="Classes of losses, with commas, that these dates may be published without.",
        ),
        "because": Param(
            None,
            type=["null", "string"],
            title="Because",
            description="Why they are accepted; kept with the decision.",
        ),
    },
    doc_md=__doc__,
    tags=["live", "spark"],
)
def backfill() -> None:
    """Run four jobs, one after the other."""
    plan = spark_job("plan", "jobs.backfill", ["plan", *WHICH], execution_timeout=timedelta(hours=12))
    run = spark_job(
        "run",
        "jobs.backfill",
        [
            *("run", *WHICH),
            *("--parallel-units", "{{ params.parallel_units }}"),
            *("--mib-per-second", "{{ params.max_mib_per_second }}"),
        ],
        execution_timeout=timedelta(days=21),
    )
    verify = spark_job("verify", "jobs.backfill", ["verify", *WHICH], execution_timeout=timedelta(days=7))
    publish = spark_job(
        "publish",
        "jobs.backfill",
        [
            *("publish", *WHICH),
            *(
                "--accept-losses",
                "{{ params.accept_losses or '' }}",
                "--because",
                "{{ params.because or '' }}",
            ),
        ],
        execution_timeout=timedelta(days=7),
        writes=["live.pings", "live.rejected_pings", FINISHED_DATES],
    )
    plan >> run >> verify >> publish


backfill()
