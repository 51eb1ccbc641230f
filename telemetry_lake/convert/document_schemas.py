"""The JSON Schemas of the document types, and which fields of a document become which columns.

A file `schemas/<namespace>/<docType>/<docType>.<version>.schema.json` makes a document type known. What
is special to the lake stands in the same file under `x-telemetry-lake`, which other users of JSON Schema
ignore (see `Extraction`). `schemas/include/` holds what several files share by `$ref`, with the
`x-telemetry-lake` that holds for them all.

The folder name `any` stands for every document type of a namespace, or for every namespace; a file for
the type itself comes first.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final

import jsonschema_rs
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from telemetry_lake import columns
from telemetry_lake.failures import ConfigurationError, ErrorType, PingRejected, Stage

ANY: Final = "any"
INCLUDE_FOLDER: Final = "include"
ANNOTATION: Final = "x-telemetry-lake"
MESSAGE_MAX_CHARACTERS: Final = 500

_FILE_NAME: Final = re.compile(r"(?P<type>[A-Za-z0-9][A-Za-z0-9_-]*)\.(?P<version>[0-9]{1,6})\.schema\.json")

Pointer = Annotated[str, Field(pattern=r"^(/[^/~,=]+)+$")]
"""A JSON Pointer (RFC 6901) without escapes."""

EXTRACTED_COLUMNS: Final = frozenset(
    {
        columns.DOCUMENT_ID,
        columns.DOCUMENT_TYPE,
        columns.DOCUMENT_VERSION,
        columns.REASON,
        columns.APP_NAME,
        columns.APP_UPDATE_CHANNEL,
        columns.APP_VERSION,
        columns.APP_BUILD_ID,
        columns.OS,
        columns.OS_VERSION,
        columns.ARCHITECTURE,
        columns.CLIENT_ID,
    }
)
"""The columns that a field of a document can fill."""


class HistogramPlaces(BaseModel):
    """Where a document keeps its histograms."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    inside: Pointer | None = None
    """The object that has `histograms` and `keyedHistograms` (and `processes`); the document without it."""
    processes: bool = False
    """Whether `processes/<process>/` holds further `histograms` and `keyedHistograms`."""
    revision: Pointer | None = None
    """The field that names the revision of Firefox, whose definitions say what the histograms are."""
    definitions_required: bool = False
    """Reject pings whose definitions cannot be had; otherwise each histogram's own range is believed."""


class Extraction(BaseModel):
    """What `x-telemetry-lake` says."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    columns: dict[str, tuple[Pointer, ...]] = {}
    """For a column the fields that can fill it; the first that is there and not null does."""
    constants: dict[str, str] = {}
    """Columns that have the same value in every document of the type."""
    histograms: HistogramPlaces | None = None
    only_with: tuple[str, ...] = ()
    """Fields that a document must have for an `any` schema to apply to it."""


GENERIC_EXTRACTION: Final = Extraction(columns={columns.CLIENT_ID: ("/client_id", "/clientId")})
"""For schemas that say nothing of their own, and for types that need no schema."""


@dataclass(frozen=True, slots=True)
class DocumentSchema:
    """One version of one document type; without a validator, everything is valid."""

    extraction: Extraction
    validator: jsonschema_rs.Validator | None = None

    def validate(self, document: Mapping[str, object]) -> None:
        """Raise PingRejected with `schema_violation` for the first thing that does not fit."""
        if self.validator is None:
            return
        try:
            if self.validator.is_valid(document):
                return
            violation = next(iter(self.validator.iter_errors(document)))
        except ValueError as error:
            raise PingRejected(
                ErrorType.SCHEMA_VIOLATION, f"the document cannot be validated: {error}", stage=Stage.VALIDATE
            ) from error
        where = _pointer(violation.instance_path) or "the document"
        raise PingRejected(
            ErrorType.SCHEMA_VIOLATION,
            f"{where}: {violation.message}"[:MESSAGE_MAX_CHARACTERS],
            stage=Stage.VALIDATE,
            schema_path=_pointer(violation.schema_path),
        )


@dataclass(slots=True)
class DocumentSchemas:
    """All schemas of a folder."""

    accept_unknown_types_of: frozenset[str]
    _schemas: dict[tuple[str, str, str], DocumentSchema] = field(default_factory=dict)
    _known_types: set[tuple[str, str]] = field(default_factory=set)
    _named_types: set[str] = field(default_factory=set)

    def find(
        self, namespace: str, document_type: str, version: str | None, document: Mapping[str, object]
    ) -> DocumentSchema:
        """The schema for a document.

        Raises PingRejected with `unknown_document_type` or `unknown_document_version`.
        """
        if version is not None:
            for key in (
                (namespace, document_type, version),
                (namespace, ANY, version),
                (ANY, document_type, version),
                (ANY, ANY, version),
            ):
                schema = self._schemas.get(key)
                if schema is not None and all(name in document for name in schema.extraction.only_with):
                    return schema
        if namespace in self.accept_unknown_types_of:
            return DocumentSchema(GENERIC_EXTRACTION)
        if (namespace, document_type) not in self._known_types and (namespace, ANY) not in self._known_types:
            raise PingRejected(
                ErrorType.UNKNOWN_DOCUMENT_TYPE,
                f"there is no schema for the document type {document_type} of the namespace {namespace}",
                stage=Stage.IDENTIFY,
            )
        raise PingRejected(
            ErrorType.UNKNOWN_DOCUMENT_VERSION,
            f"there is no schema for the document type {document_type} of the namespace {namespace} "
            + ("without a version" if version is None else f"in version {version[:20]}"),
            stage=Stage.IDENTIFY,
        )

    def is_invented(self, document_type: str) -> bool:
        """Whether no schema names this type, in whatever namespace: clients may send any number of such."""
        return document_type not in self._named_types

    def _add(self, key: tuple[str, str, str], schema: DocumentSchema) -> None:
        self._schemas[key] = schema
        self._known_types.add(key[:2])
        self._named_types.add(key[1])


def load_document_schemas(directory: Path, accept_unknown_types_of: frozenset[str]) -> DocumentSchemas:
    """The schemas in `directory`; raises ConfigurationError, which names the file that is wrong."""
    if not directory.is_dir():
        raise ConfigurationError(f"the folder of JSON Schemas {directory} is not there")
    shared: dict[str, dict[str, object]] = {}
    for file in sorted((directory / INCLUDE_FOLDER).glob("*.json")):
        schema = _read(file)
        shared[str(schema.get("$id"))] = schema
    registry = jsonschema_rs.Registry(list(shared.items()))
    schemas = DocumentSchemas(accept_unknown_types_of)
    for file, key in _files(directory):
        schema = _read(file)
        inherited = shared.get(str(schema.get("$ref")), {})
        try:
            extraction = _extraction(inherited.get(ANNOTATION), schema.get(ANNOTATION))
            validator = jsonschema_rs.Draft202012Validator(schema, registry=registry, mask="the value")
        except (ValidationError, ValueError, TypeError) as error:
            raise ConfigurationError(f"the JSON Schema {file} cannot be used: {error}") from error
        schemas._add(key, DocumentSchema(extraction, validator))
    return schemas


def _files(directory: Path) -> Iterator[tuple[Path, tuple[str, str, str]]]:
    for file in sorted(directory.glob("*/*/*")):
        namespace, document_type = file.parent.parent.name, file.parent.name
        match = _FILE_NAME.fullmatch(file.name)
        if match is None or match["type"] != document_type:
            raise ConfigurationError(
                f"{file} is not named {document_type}.<version>.schema.json after the folder that it is in"
            )
        yield file, (namespace, document_type, match["version"])


def _extraction(inherited: object, own: object) -> Extraction:
    """What a file says, added to what the file it refers to says."""
    if inherited is None and own is None:
        return GENERIC_EXTRACTION
    base, extra = Extraction.model_validate(inherited or {}), Extraction.model_validate(own or {})
    extraction = Extraction(
        columns={**base.columns, **extra.columns},
        constants={**base.constants, **extra.constants},
        histograms=extra.histograms or base.histograms,
        only_with=extra.only_with or base.only_with,
    )
    if unknown := (set(extraction.columns) | set(extraction.constants)) - EXTRACTED_COLUMNS:
        raise ValueError(f"{ANNOTATION} names columns that no field can fill: {', '.join(sorted(unknown))}")
    return extraction


def _pointer(path: Sequence[str | int]) -> str:
    escaped = (str(part).replace("~", "~0").replace("/", "~1") for part in path)
    return "".join(f"/{part}" for part in escaped)[:MESSAGE_MAX_CHARACTERS]


def _read(file: Path) -> dict[str, object]:
    try:
        schema = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"the JSON Schema {file} cannot be read: {error}") from error
    if not isinstance(schema, dict):
        raise ConfigurationError(f"the JSON Schema {file} is not an object")
    return schema
