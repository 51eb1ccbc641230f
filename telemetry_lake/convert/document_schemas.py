"""The JSON Schemas of the document types, and which fields of a document become which columns.

A file `schemas/<namespace>/<docType>/<docType>.<version>.schema.json` makes a document type known. What
is special to the lake stands in the same file under `x-telemetry-lake`, which other users of JSON Schema
ignore (see `extraction.Extraction`). `schemas/include/` holds what several files share by `$ref`, with the
`x-telemetry-lake` that holds for them all.

The folder name `any` stands for every document type of a namespace, or for every namespace, and `any` in
the place of the version for every version of a type; what names more comes first.

Further folders may hold the schemas of others in the same layout, such as `schemas/` of
https://github.com/mozilla-services/mozilla-pipeline-schemas. A version of a type that such a folder knows is
validated by it, in the draft that its `$schema` names. It says nothing about columns: those are filled as our
own schemas say for the family that the document belongs to.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import jsonschema_rs
from pydantic import ValidationError

from telemetry_lake.convert.extraction import EXTRACTED_COLUMNS, GENERIC_EXTRACTION, Extraction
from telemetry_lake.convert.lift import Decide, Lifter
from telemetry_lake.failures import ConfigurationError, ErrorType, PingRejected, Stage

ANY: Final = "any"
INCLUDE_FOLDER: Final = "include"
ANNOTATION: Final = "x-telemetry-lake"
GLEAN_FILE: Final = "glean.json"
"""In the folder of what is shared: the schema of every ping of Glean."""
GLEAN_VERSION: Final = "1"
"""The version in the paths of Glean's pings."""
MESSAGE_MAX_CHARACTERS: Final = 500

Key = tuple[str, str, str]
"""Namespace, document type and version."""

_FILE_NAME: Final = re.compile(
    r"(?P<type>[A-Za-z0-9][A-Za-z0-9_-]*)\.(?P<version>[0-9]{1,6}|any)\.schema\.json"
)


@dataclass(frozen=True, slots=True)
class DocumentSchema:
    """One version of one document type; without a validator, everything is valid."""

    extraction: Extraction
    lifter: Lifter
    validator: jsonschema_rs.Validator | None = None
    file: Path | None = None
    """Where the validator comes from."""
    sees_histograms: bool = False
    """Whether it has to see histograms: it is a schema of others, and ours leave them to the conversion."""

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
    generic: DocumentSchema
    """For types that need no schema."""
    _schemas: dict[Key, DocumentSchema] = field(default_factory=dict)
    _of_others: dict[Key, tuple[DocumentSchema, ...]] = field(default_factory=dict)
    """For a type that a further folder knows: its validator with each family that documents may be of."""
    _newest_of_others: dict[tuple[str, str], str] = field(default_factory=dict)
    """The version of a type by which a ping that names none is validated."""
    _known_types: set[tuple[str, str]] = field(default_factory=set)
    _named_types: set[str] = field(default_factory=set)

    def find(
        self, namespace: str, document_type: str, version: str | None, document: Mapping[str, object]
    ) -> DocumentSchema:
        """Return the schema for a document.

        Raises PingRejected with `unknown_document_type` or `unknown_document_version`.
        """
        if version is None:
            version = self._newest_of_others.get((namespace, document_type))
        if version is not None:
            key = (namespace, document_type, version)
            for schema in self._of_others.get(key) or self._families(key):
                if schema.extraction.applies_to(document):
                    return schema
        if namespace in self.accept_unknown_types_of:
            return self.generic
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
        """Return whether no schema names this type, in any namespace: clients can send any number of them."""
        return document_type not in self._named_types

    def known(self) -> list[tuple[Key, list[DocumentSchema]]]:
        """Return every version of a type that a schema names, and the schemas that may apply, in order."""
        own = {key: [schema] for key, schema in self._schemas.items()}
        others = {key: list(schemas) for key, schemas in self._of_others.items()}
        return sorted((own | others).items(), key=lambda entry: entry[0])

    def _families(self, key: Key) -> list[DocumentSchema]:
        """Return our own schemas that may apply to a type, in the order in which they are asked."""
        namespace, document_type, version = key
        keys = (
            (namespace, document_type, version),
            (namespace, document_type, ANY),
            (namespace, ANY, version),
            (ANY, document_type, version),
            (ANY, ANY, version),
        )
        return [schema for key in keys if (schema := self._schemas.get(key)) is not None]

    def _add(self, key: Key, schema: DocumentSchema) -> None:
        self._schemas[key] = schema
        self._known_types.add(key[:2])
        self._named_types.add(key[1])

    def _add_of_others(self, key: Key, validator: jsonschema_rs.Validator, file: Path) -> None:
        families = [*self._families(key), self.generic]
        self._of_others[key] = tuple(
            replace(family, validator=validator, file=file, sees_histograms=True) for family in families
        )
        newest = self._newest_of_others.get(key[:2])
        if key[2] != ANY and (newest is None or int(newest) < int(key[2])):
            self._newest_of_others[key[:2]] = key[2]
        self._known_types.add(key[:2])
        self._named_types.add(key[1])


def load_document_schemas(
    directory: Path,
    accept_unknown_types_of: frozenset[str],
    decide: Mapping[str, Decide],
    further_directories: Sequence[Path] = (),
    glean_namespaces: frozenset[str] = frozenset(),
) -> DocumentSchemas:
    """Load the schemas in `directory`; `decide` says what columns will hold of values (`Lifter`).

    `further_directories` hold schemas of others; where two know the same version of a type, the first one's
    counts. In `glean_namespaces` every type without a schema of its own has that of Glean. Raises
    ConfigurationError, which names the file that is wrong.
    """
    if not directory.is_dir():
        raise ConfigurationError(
            f"the folder of JSON Schemas {directory} does not exist; correct the setting schemas_directory"
        )
    shared: dict[str, dict[str, object]] = {}
    for file in sorted((directory / INCLUDE_FOLDER).glob("*.json")):
        schema = _read(file)
        shared[str(schema.get("$id"))] = schema
    registry = jsonschema_rs.Registry(list(shared.items()))
    generic = DocumentSchema(GENERIC_EXTRACTION, Lifter(GENERIC_EXTRACTION, decide))
    schemas = DocumentSchemas(accept_unknown_types_of, generic)
    sources = [(file, key, _read(file)) for file, key in _files(directory)]
    glean_file = directory / INCLUDE_FOLDER / GLEAN_FILE
    of_files = {key for _, key, _ in sources}
    of_glean = [(namespace, ANY, GLEAN_VERSION) for namespace in sorted(glean_namespaces)]
    sources += [(glean_file, key, _read(glean_file)) for key in of_glean if key not in of_files]
    for file, key, schema in sources:
        inherited = shared.get(str(schema.get("$ref")), {})
        try:
            extraction = _extraction(inherited.get(ANNOTATION), schema.get(ANNOTATION))
            lifter = Lifter(extraction, decide)
            validator: jsonschema_rs.Validator = jsonschema_rs.Draft202012Validator(
                schema, registry=registry, mask="the value"
            )
        except (ValidationError, ValueError, TypeError) as error:
            raise ConfigurationError(f"the JSON Schema {file} cannot be used: {error}") from error
        schemas._add(key, DocumentSchema(extraction, lifter, validator, file))
    for further in reversed(further_directories):
        for key, validator, file in _validators_of_others(further):
            schemas._add_of_others(key, validator, file)
    return schemas


def named_document_types(
    directory: Path, further_directories: Sequence[Path] = ()
) -> frozenset[tuple[str, str]]:
    """Return the namespaces and document types that the schemas in these directories name.

    A type that only a schema for `any` type or namespace lets in is not named. Raises ConfigurationError when
    a file has a wrong name.
    """
    keys = [key for _, key in _files(directory)]
    for further in further_directories:
        keys += [key for _, key in _files_of_others(further)]
    return frozenset(key[:2] for key in keys if ANY not in key[:2])


def _validators_of_others(directory: Path) -> Iterator[tuple[Key, jsonschema_rs.Validator, Path]]:
    for file, key in _files_of_others(directory):
        try:
            validator = jsonschema_rs.validator_for(_read(file), mask="the value", offline=True)
        except ValueError as error:
            raise ConfigurationError(f"the JSON Schema {file} cannot be used: {error}") from error
        yield key, validator, file


def _files_of_others(directory: Path) -> Iterator[tuple[Path, Key]]:
    found = False
    for file in sorted(directory.glob("*/*/*.schema.json")):
        match = _FILE_NAME.fullmatch(file.name)
        if match is not None and match["type"] == file.parent.name:
            found = True
            yield file, (file.parent.parent.name, file.parent.name, match["version"])
    if not found:
        raise ConfigurationError(
            f"{directory} holds no <namespace>/<docType>/<docType>.<version>.schema.json; correct "
            "the setting further_schemas_directories"
        )


def _files(directory: Path) -> Iterator[tuple[Path, Key]]:
    for file in sorted(directory.glob("*/*/*")):
        namespace, document_type = file.parent.parent.name, file.parent.name
        match = _FILE_NAME.fullmatch(file.name)
        if match is None or match["type"] != document_type:
            raise ConfigurationError(
                f"{file} is not named {document_type}.<version>.schema.json after the folder that it is in"
            )
        yield file, (namespace, document_type, match["version"])


def _extraction(inherited: object, own: object) -> Extraction:
    """Add what a file says to what the file that it refers to says."""
    if inherited is None and own is None:
        return GENERIC_EXTRACTION
    base, extra = Extraction.model_validate(inherited or {}), Extraction.model_validate(own or {})
    extraction = Extraction(
        columns={**base.columns, **extra.columns},
        constants={**base.constants, **extra.constants},
        histograms=extra.histograms or base.histograms,
        only_with_one_of=extra.only_with_one_of or base.only_with_one_of,
        or_nothing_but=extra.or_nothing_but or base.or_nothing_but,
    )
    if unknown := {*extraction.columns, *extraction.constants}.difference(EXTRACTED_COLUMNS):
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
