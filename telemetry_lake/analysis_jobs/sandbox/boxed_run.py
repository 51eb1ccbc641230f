"""A map-reduce job on this machine, with the analyst's code in a box.

`python -m telemetry_lake.analysis_jobs.sandbox.boxed_run jobs.mapreduce …` takes the arguments of
`jobs/mapreduce.py`. This process, which has keys, does before and after the job what needs them: it puts the
script and the filter into the box, looks up the table in the catalog, and writes the output to its place. In
the box runs the job itself, with a catalog in a file that knows this one table, and with an S3 that has its
files (`door`).
"""

import json
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from pyiceberg.catalog import load_catalog

from telemetry_lake.analysis_jobs.sandbox.box import Box, Limits, new_box, sandbox_state
from telemetry_lake.analysis_jobs.sandbox.door import open_door
from telemetry_lake.analysis_jobs.sandbox.sample import compile_kernels
from telemetry_lake.failures import (
    REFUSED_EXIT_STATUS,
    AccessRefused,
    FatalError,
    RetriableError,
    TelemetryLakeError,
)
from telemetry_lake.mapreduce.form import Table, refuse_live_pings
from telemetry_lake.mapreduce.output import new_output
from telemetry_lake.mapreduce.script.fetch import fetched
from telemetry_lake.mapreduce.script.script import pack_script
from telemetry_lake.settings import PREFIX, Role, Settings, load_settings
from telemetry_lake.tables.catalog import load_lake_catalog
from telemetry_lake.tables.catalog_failures import catalog_failures
from telemetry_lake.tables.files import READ_ONLY_FILE_IO

PROCESSES_MAX: Final = 4_096
"""Threads count as well, and Spark has some hundreds on a large machine."""
_INSIDE: Final = "telemetry_lake.analysis_jobs.sandbox.inside"
_CATALOG: Final = "catalog.db"
_SOCKET: Final = "s3.sock"
_OUTPUT: Final = "output"
_NOT_USED: Final = "none"

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def box_settings(settings: Settings, catalog: str) -> dict[str, str]:
    """Return the settings of a job in a box, as variables: none of them is a secret.

    `catalog` is the file of its catalog, as seen from inside. What it signs its requests with is not looked
    at by the door.
    """
    return {
        f"{PREFIX}S3__REGION": settings.s3.region,
        f"{PREFIX}S3__ACCESS_KEY_ID": _NOT_USED,
        f"{PREFIX}S3__SECRET_ACCESS_KEY": _NOT_USED,
        f"{PREFIX}CATALOG__NAME": settings.catalog.name,
        f"{PREFIX}CATALOG__PROPERTIES": json.dumps({"type": "sql", "uri": f"sqlite:///{catalog}"}),
        # Spark's session wants a catalog; a map-reduce job reads no table through it.
        f"{PREFIX}CATALOG__SPARK_PROPERTIES": json.dumps({"type": "hadoop", "warehouse": "/nowhere"}),
    }


def put_table(box: Box, settings: Settings, name: str) -> str:
    """Put a catalog into the box in which the table `name` is as it is now.

    Returns where all files of the table are, `s3://bucket/prefix/`. Raises AccessRefused when the key of
    `settings` may not read it.
    """
    with catalog_failures(f"looking up the table {name} for a script"):
        found = load_lake_catalog(settings, file_io=READ_ONLY_FILE_IO).load_table(name)
    properties = {key: str(value) for key, value in found.io.properties.items()}
    catalog = load_catalog(
        settings.catalog.name, **{**properties, "type": "sql", "uri": f"sqlite:///{box.folder / _CATALOG}"}
    )
    catalog.create_namespace(name.rpartition(".")[0])
    catalog.register_table(name, found.metadata_location)
    catalog.close()
    (box.folder / _CATALOG).chmod(0o644)
    return found.location().rstrip("/") + "/"


def run(settings: Settings, module: str, options: dict[str, str], others: list[str]) -> None:
    """Run the job `module` in a box: `options` name things that are outside of it, `others` are passed on.

    Raises FatalError when the job fails or is stopped.
    """
    analyst, reader = settings.acting_as(Role.ANALYST), settings.acting_as(Role.SCRIPT)
    table = Table(options["table"])
    refuse_live_pings(table)
    state = sandbox_state()
    if not state.is_apart:
        typer.echo(f"warning: {state.sentence}", err=True)
    output = options["output"]
    compile_kernels()
    with new_box() as box:
        arguments = [f"--table={table}", *others]
        with fetched(options["script"], analyst.s3) as file:
            for source in pack_script(file).modules.values():
                name = f"code/{Path(source.file).relative_to(file.parent).as_posix()}"
                box.put(name, Path(source.file).read_bytes())
            arguments.append(f"--script={box.inside(f'code/{file.name}')}")
        if "filter" in options:
            with fetched(options["filter"], analyst.s3) as file:
                box.put("filter.json", file.read_bytes())
            arguments.append(f"--filter={box.inside('filter.json')}")
        arguments.append(f"--output={box.inside(f'out/{_OUTPUT}')}")
        place = put_table(box, reader, table.table_name)
        with open_door(box.folder / _SOCKET, reader.s3, (place,)):
            ended = box.run(
                [
                    *(
                        sys.executable,
                        "-m",
                        _INSIDE,
                        box.inside(_SOCKET),
                    ),
                    *(sys.executable, "-m", module, *arguments),
                ],
                Limits(
                    memory_bytes=settings.analysis.sandbox_memory_max_bytes,
                    disk_bytes=settings.analysis.sandbox_disk_max_bytes,
                    processes=PROCESSES_MAX,
                ),
                environment={
                    **box_settings(settings, box.inside(_CATALOG)),
                    **_java(),
                    "SPARK_LOCAL_IP": "127.0.0.1",
                    "HADOOP_USER_NAME": "script",
                },
                on_output=_print,
            )
        if ended.stopped is not None:
            raise FatalError(f"the script did not end by itself: {ended.stopped}. Nothing was written")
        if ended.exit_status != 0:
            raise typer.Exit(ended.exit_status)
        result = box.open_result(_OUTPUT, max_bytes=settings.analysis.sandbox_disk_max_bytes)
        if result is None:
            raise FatalError("the job ended without an output: its script ended it")
        with result, new_output(output, analyst.s3) as file_of_output:
            shutil.copyfileobj(result, file_of_output)
    typer.echo(f"the output is {output}")


def _java() -> dict[str, str]:
    home = os.environ.get("JAVA_HOME")  # noqa: TID251 (Java's own, no setting of the lake)
    return {} if home is None else {"JAVA_HOME": home}


def _print(chunk: bytes) -> None:
    with suppress(OSError):
        sys.stdout.buffer.write(chunk)
        sys.stdout.buffer.flush()


@contextmanager
def _ends_tidily() -> Iterator[None]:
    """Let SIGTERM, which comes when the time is up, remove the box as any other end does."""

    def end(*_: Any) -> None:
        sys.exit(128 + signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def main(
    context: typer.Context,
    module: Annotated[str, typer.Argument(help="The job, for example jobs.mapreduce.")],
    script: Annotated[str, typer.Option(help="The script: a path or s3://bucket/key.")],
    output: Annotated[str, typer.Option(help="Where the output goes: a path or s3://bucket/key.")],
    filter_: Annotated[str | None, typer.Option("--filter", help="A filter document.")] = None,
    table: Annotated[Table, typer.Option(help="The table that is read.")] = Table.STABLE,
) -> None:
    """Run a map-reduce job in a box. All other options are passed on to the job."""
    options = {"script": script, "output": output, "table": table.value}
    if filter_ is not None:
        options["filter"] = filter_
    try:
        with _ends_tidily():
            run(load_settings(), module, options, context.args)
    except TelemetryLakeError as error:
        again = " (trying again may help)" if isinstance(error, RetriableError) else ""
        typer.echo(f"error: {error}{again}", err=True)
        raise typer.Exit(REFUSED_EXIT_STATUS if isinstance(error, AccessRefused) else 1) from None


if __name__ == "__main__":
    app()
