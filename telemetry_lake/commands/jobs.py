"""The commands of `python -m telemetry_lake jobs`: what the pages of the analysis service do."""

import getpass
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from telemetry_lake.failures import FatalError

if TYPE_CHECKING:
    from telemetry_lake.analysis_jobs.documents import Job, JobDraft
    from telemetry_lake.analysis_jobs.people import Person
    from telemetry_lake.analysis_jobs.run import Run
    from telemetry_lake.analysis_jobs.runs import Runs
    from telemetry_lake.analysis_jobs.store import JobStore

TIME_FORMAT: Final = "%Y-%m-%d %H:%M"

app = typer.Typer(rich_markup_mode=None)
jobs_app = typer.Typer(
    help="Jobs of the analysis service: submit, schedule, watch and share map-reduce scripts.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(jobs_app, name="jobs")

_who: dict[str, Any] = {}

Name = Annotated[str, typer.Argument(help="The name of a job.")]
RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="The id of a run.")]


@jobs_app.callback()
def person(
    user: Annotated[str | None, typer.Option("--as", help="As whom to act; by default your login.")] = None,
    group: Annotated[list[str] | None, typer.Option(help="A group that you are in; repeatable.")] = None,
    admin: Annotated[bool, typer.Option("--admin", help="Act on the jobs of others, too.")] = False,
) -> None:
    """Jobs of the analysis service: submit, schedule, watch and share map-reduce scripts."""
    _who.update(name=user or getpass.getuser(), groups=frozenset(group or ()), is_admin=admin)


@jobs_app.command(name="list")
def list_jobs(
    everybody: Annotated[bool, typer.Option("--all", help="Also what others share with you.")] = False,
) -> None:
    """List your jobs with the state of the last run and the time of the next."""
    from telemetry_lake.analysis_jobs.schedule import is_scheduled, next_times

    store, you, now = _store(), _person(), datetime.now(UTC)
    latest = store.latest()
    shown = [job for job in store.seen_by(you) if everybody or job.owner == you.name]
    for job in shown:
        last = latest.get(job.name)
        times = next_times(job.schedule, now, 1) if is_scheduled(job) else []
        following = f"next {times[0]:{TIME_FORMAT}}" if times else "paused" if job.paused else "not scheduled"
        state = f"{last.last_state} {last.last_ended_at:{TIME_FORMAT}}" if last else "no run has ended"
        typer.echo(f"{job.name}\t{job.owner}\t{job.visibility}\t{state}\t{following}")
    typer.echo(f"{len(shown)} jobs; times are UTC", err=True)


@jobs_app.command()
def show(name: Name) -> None:
    """Show a job, its next times and its last runs."""
    from telemetry_lake.analysis_jobs.schedule import next_times

    runs, you, now = _runs(), _person(), datetime.now(UTC)
    job = runs.jobs.get(name, you)
    typer.echo(job.model_dump_json(indent=1, exclude={"change"}))
    for time in next_times(job.schedule, now):
        typer.echo(f"next\t{time:{TIME_FORMAT}} UTC")
    for run in runs.of_job(you, name):
        typer.echo(_line(run, now))


@jobs_app.command()
def new(
    name: Name,
    script: Annotated[
        Path, typer.Option(exists=True, dir_okay=False, help="The script; its modules come along.")
    ],
    description: Annotated[str, typer.Option(help="What it is for.")] = "",
    dates: Annotated[
        str, typer.Option(help="FIRST..LAST, yesterday, period, last-7-days or all.")
    ] = "yesterday",
    filter_: Annotated[
        Path | None, typer.Option("--filter", exists=True, dir_okay=False, help="A filter document.")
    ] = None,
    output_format: Annotated[str, typer.Option("--format", help="text, csv or parquet.")] = "text",
    every: Annotated[str, typer.Option(help="once, daily, weekly or monthly.")] = "once",
    day: Annotated[
        str | None, typer.Option(help="Of the week, 0 (Monday) to 6, or of the month, 1 to 28 or last.")
    ] = None,
    hour: Annotated[int, typer.Option(help="The hour of its runs, UTC.")] = 6,
    visibility: Annotated[str, typer.Option(help="private, group or public.")] = "private",
) -> None:
    """Create a job. `edit` takes all fields that a job can have."""
    store, you = _store(), _person()
    text = filter_.read_text(encoding="utf-8") if filter_ is not None else None
    given = {
        "name": name,
        "description": description,
        "group": min(you.groups) if visibility == "group" and you.groups else None,
        "code": _code(store, script),
        "request": {"dates": dates, "format": output_format, "filter": text},
        "schedule": {"every": every, "hour": hour, **_day(every, day)},
        "visibility": visibility,
    }
    job = store.create(you, _draft(given))
    typer.echo(f"{job.name} is there; run it with: python -m telemetry_lake jobs run {job.name}")


@jobs_app.command()
def edit(
    name: Name,
    document: Annotated[
        Path | None,
        typer.Option(
            exists=True, dir_okay=False, help="The job as JSON, as `show` prints it; without, standard input."
        ),
    ] = None,
    script: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="Only replace the script, by this one.")
    ] = None,
) -> None:
    """Save a changed job; if somebody has saved a newer version than the given one, nothing is saved."""
    import json

    store, you = _store(), _person()
    job = store.get(name, you)
    if script is not None:
        saved = store.save(you, _draft({**_fields(job), "code": _code(store, script)}), job.version)
    else:
        try:
            given = json.loads(document.read_bytes() if document is not None else sys.stdin.buffer.read())
            version = int(given["version"])
        except (ValueError, KeyError, TypeError) as error:
            raise FatalError(
                f"give the job as JSON with its version, as `jobs show {name}` prints it first: {error!r}"
            ) from error
        known = {field: given[field] for field in type(job.draft).model_fields if field in given}
        saved = store.save(you, _draft({**_fields(job), **known, "name": name}), version)
    typer.echo(f"{saved.name} is version {saved.version} now")


@jobs_app.command()
def pause(name: Name) -> None:
    """Keep a schedule from starting runs."""
    _set_paused(name, paused=True)


@jobs_app.command()
def resume(name: Name) -> None:
    """Let a schedule start runs again, from now on."""
    _set_paused(name, paused=False)


@jobs_app.command()
def delete(name: Name) -> None:
    """Delete a job; its runs and their results stay."""
    store, you = _store(), _person()
    store.delete(you, name, store.get(name, you).version)
    typer.echo(f"{name} is deleted")


@jobs_app.command()
def run(
    name: Name,
    failed: Annotated[
        bool, typer.Option("--failed", help="Again for each time that did not succeed.")
    ] = False,
) -> None:
    """Run a job now, and print the id of the run."""
    from telemetry_lake.analysis_jobs.runs import new_token

    runs, you, token = _runs(changes=True), _person(), new_token()
    started = runs.start_failed(you, name, token) if failed else [runs.start(you, name, token)]
    for request in started:
        typer.echo(request.run_id)
    if not started:
        typer.echo("nothing failed", err=True)


@jobs_app.command()
def cancel(run_id: RunArgument) -> None:
    """End a run, or keep it from beginning."""
    typer.echo(_line(_runs(changes=True).cancel(_person(), run_id), datetime.now(UTC)))


@jobs_app.command()
def log(run_id: RunArgument) -> None:
    """Show how far a run has come, why it failed, and the last part of what it printed."""
    runs = _runs()
    found = runs.get(_person(), run_id)
    typer.echo(_line(found, datetime.now(UTC)), err=True)
    if found.outcome is not None and found.outcome.error:
        typer.echo(found.outcome.error, err=True)
    typer.echo(runs.log(found), nl=False)


@jobs_app.command()
def result(
    name: Annotated[str, typer.Argument(help="A job, whose newest good run is taken, or the id of a run.")],
    to: Annotated[Path | None, typer.Option(help="The file to write; without, standard output.")] = None,
) -> None:
    """Fetch the result of a run."""
    runs, you = _runs(), _person()
    found = runs.get(you, name) if "." in name else runs.latest_good(you, name)
    files = runs.results(found)
    if not files:
        raise FatalError(f"{found.run_id} has no result: it is {found.state}")
    with runs.jobs.objects.opened(runs.jobs.bucket, files[0].key) as content:
        target = sys.stdout.buffer if to is None else to.open("wb")
        while chunk := content.read(1 << 20):
            target.write(chunk)
        target.flush()
        if to is not None:
            target.close()


@jobs_app.command()
def late() -> None:
    """List what was due or asked for and has not begun; exits with 1 if there is anything."""
    now = datetime.now(UTC)
    found = _runs().late(now)
    for one in found:
        typer.echo(one.sentence(now))
    if found:
        raise typer.Exit(1)
    typer.echo("nothing is late", err=True)


def _set_paused(name: str, *, paused: bool) -> None:
    store, you = _store(), _person()
    store.set_paused(you, name, paused, store.get(name, you).version)
    typer.echo(f"{name} is {'paused' if paused else 'scheduled again'}")


def _person() -> "Person":
    from telemetry_lake.analysis_jobs.people import Person

    return Person(**_who)


def _store() -> "JobStore":
    from telemetry_lake.analysis_jobs.store import JobStore
    from telemetry_lake.settings import Role, load_settings

    return JobStore.of(load_settings(role=Role.ANALYSES))


def _runs(*, changes: bool = False) -> "Runs":
    """Return the runs; where the settings do not say where Airflow is, those that can only be looked at.

    Raises ConfigurationError when the settings do not say it, and the command `changes` something there.
    """
    from telemetry_lake.analysis_jobs.airflow_api import AirflowApi
    from telemetry_lake.analysis_jobs.notify import Notifier
    from telemetry_lake.analysis_jobs.runs import Runs
    from telemetry_lake.analysis_jobs.store import JobStore
    from telemetry_lake.settings import Role, load_settings

    settings = load_settings(role=Role.ANALYSES)
    airflow = AirflowApi(settings.airflow) if changes or settings.airflow.url is not None else None
    jobs = JobStore.of(settings)
    return Runs(jobs, settings, airflow, Notifier(jobs, settings).on_end)


def _draft(given: Mapping[str, Any]) -> "JobDraft":
    from telemetry_lake.analysis_jobs.documents import read_draft

    return read_draft(given)


def _fields(job: "Job") -> dict[str, Any]:
    return job.draft.model_dump(mode="json")


def _day(every: str, day: str | None) -> dict[str, Any]:
    number = int(day) if day is not None and day.isascii() and day.isdigit() else day
    if every == "weekly":
        return {"weekday": number}
    return {} if number is None else {"day": number}


def _code(store: "JobStore", script: Path) -> dict[str, Any]:
    """Keep a script with the modules beside it that it imports."""
    from telemetry_lake.mapreduce.script.script import pack_script

    files = {
        Path(module.file).relative_to(script.parent).as_posix(): Path(module.file).read_bytes()
        for module in pack_script(script).modules.values()
    }
    return {"kind": "file", "digest": store.put_code(files), "entry": script.name, "origin": script.name}


def _line(run: "Run", now: datetime) -> str:
    said = run.outcome or run.progress
    records = "" if said is None or said.records is None else f"{said.records:,} records"
    times = f"waited {run.queue_seconds(now):.0f} s\tran {run.run_seconds(now):.0f} s"
    return f"{run.run_id}\t{run.state}\t{times}\t{records}\t{run.problem}".rstrip()
