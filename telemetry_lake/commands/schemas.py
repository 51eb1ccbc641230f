"""The commands that say which schema takes a document, and what becomes of it. They need no running stack."""

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

if TYPE_CHECKING:
    from telemetry_lake.convert.converter import Converter
    from telemetry_lake.convert.document_schemas import DocumentSchemas

_SAMPLE_ID: Final = "00000000-0000-4000-8000-000000000000"
"""The document id of documents that are checked."""

app = typer.Typer(
    name="schemas",
    no_args_is_help=True,
    help="Look at the schemas of document types, and try documents on them.",
)


@app.command(name="list")
def list_schemas(
    text: Annotated[str, typer.Argument(metavar="[TEXT]", help="Only types whose name contains it.")] = "",
) -> None:
    """List the versions of document types that are known, and the file that validates each."""
    for (namespace, document_type, version), schemas in _load().known():
        name = f"{namespace}/{document_type}"
        if text in name:
            typer.echo(f"{name:<50} {version:>6}  {schemas[0].file}")


@app.command(no_args_is_help=True)
def show(
    document_type: Annotated[str, typer.Argument(metavar="NAMESPACE/TYPE", help="Such as telemetry/main.")],
) -> None:
    """Show for each version of a type which file validates it and which fields fill its columns."""
    known = [entry for entry in _load().known() if "/".join(entry[0][:2]) == document_type]
    if not known:
        raise typer.BadParameter(
            f"no schema names {document_type}; `python -m telemetry_lake schemas list` shows those that are "
            "known"
        )
    for (_, _, version), schemas in known:
        typer.echo(f"version {version}: {schemas[0].file}")
        for schema in schemas:
            extraction = schema.extraction
            if len(schemas) > 1:
                fields = " or ".join(extraction.only_with_one_of)
                typer.echo(f"  documents with {fields}:" if fields else "  other documents:")
            for column, constant in extraction.constants.items():
                typer.echo(f"  {column:<20} is always {constant}")
            for column, pointers in extraction.columns.items():
                typer.echo(f"  {column:<20} from {', else '.join(pointers)}")
            if (places := extraction.histograms) is not None:
                typer.echo(f"  {'histograms':<20} from {places.inside or 'the document'}")


@app.command(no_args_is_help=True)
def check(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE…", exists=True, dir_okay=False, help="Bodies as clients post them."),
    ],
    document_type: Annotated[
        str,
        typer.Option(
            "--type",
            metavar="NAMESPACE/TYPE/VERSION",
            help="As in the path: telemetry/main, shop/order/3.",
        ),
    ],
) -> None:
    """Convert documents as the drain does and say what became of each: its columns, or what is wrong.

    Exits with 1 when one was rejected.
    """
    from telemetry_lake.convert.converter import Converter
    from telemetry_lake.settings import load_settings

    path = _path(document_type)
    converter = Converter(load_settings().conversion)
    rejected = 0
    for file in files:
        row, problem = _converted(converter, path, file.read_bytes())
        if problem is not None:
            rejected += 1
            typer.echo(f"{file}: {problem}")
            continue
        filled = ", ".join(f"{name}={value}" for name, value in row.items())
        typer.echo(f"{file}: a row, {filled}")
    if rejected:
        typer.echo(f"{rejected} of {len(files)} documents were rejected", err=True)
        sys.exit(1)


def _load() -> "DocumentSchemas":
    from telemetry_lake.convert.document_schemas import load_document_schemas
    from telemetry_lake.settings import load_settings

    settings = load_settings().conversion
    return load_document_schemas(
        settings.schemas_directory,
        settings.accept_unknown_types_of,
        {},
        settings.further_schemas_directories,
        settings.glean_namespaces,
    )


def _path(document_type: str) -> str:
    """Return the path of a ping of this type; raises BadParameter when it has another form."""
    from telemetry_lake.failures import PingRejected
    from telemetry_lake.raw.submission_path import TELEMETRY_NAMESPACE, parse_submission_path

    match document_type.split("/"):
        case [namespace, name] if namespace == TELEMETRY_NAMESPACE:
            path = f"/submit/{namespace}/{_SAMPLE_ID}/{name}/Firefox/1.0/release/20260101000000"
        case [namespace, name, version] if namespace != TELEMETRY_NAMESPACE:
            path = f"/submit/{namespace}/{name}/{version}/{_SAMPLE_ID}"
        case _:
            raise typer.BadParameter(
                "give telemetry/<type>, or <namespace>/<type>/<version> for any other namespace"
            )
    try:
        parse_submission_path(path)
    except PingRejected as why:
        raise typer.BadParameter(f"{document_type}: {why}") from why
    return path


def _converted(converter: "Converter", path: str, body: bytes) -> tuple[dict[str, object], str | None]:
    """Return the filled columns of the row that `body` becomes, or none and why it is rejected."""
    from telemetry_lake.convert.extraction import EXTRACTED_COLUMNS
    from telemetry_lake.raw.raw_object import Promise, RawObject, RawPing, write_raw_object

    now = datetime.now(UTC)
    ping = RawPing(now, "POST", path.encode(), b"", "HTTP/1.1", "192.0.2.1", b"", (), body)
    raw = RawObject("checked", write_raw_object([ping], Promise(1, now, now, "checked", "checked")))
    for conversion in converter.convert(raw):
        for row in conversion.rejected.to_pylist():
            where = f" ({row['schema_path']} of the schema)" if row["schema_path"] else ""
            return {}, f"{row['error_type']}, {row['error_message']}{where}"
        for row in conversion.pings.to_pylist():
            names = [name for name in EXTRACTED_COLUMNS if row[name] is not None]
            counted = {"histograms": len(row["histograms"])} if row["histograms"] else {}
            return {name: row[name] for name in names} | counted, None
    raise AssertionError("a ping became neither a row nor a rejected row")
