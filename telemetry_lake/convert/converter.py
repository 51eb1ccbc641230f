"""From a raw object to rows: what happens to each ping, in this order.

1. `path`: parse the submission path; look the country up and drop the client's address.
2. `decompress`: gunzip, within the limit.
3. `decode`: parse the JSON; it must be an object.
4. `identify`: find version and schema of the document type.
5. `validate`: against the JSON Schema.
6. `convert`: move fields into columns and histograms into typed lists.

Whatever the first step is that says no, the ping becomes a rejected row with its bytes. A ping gives one
row, and the same row whenever it is converted.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final, Protocol

import pyarrow as pa

from telemetry_lake import columns
from telemetry_lake.convert.arrays import of_texts
from telemetry_lake.convert.country import ADDRESS_HEADERS, FORWARDED_FOR, CountryLookup
from telemetry_lake.convert.decompress import decompress_document
from telemetry_lake.convert.definition_store import DefinitionStore, NoDefinitions
from telemetry_lake.convert.dimensions import dimension_values, load_dimensions
from telemetry_lake.convert.document_schemas import (
    DocumentSchema,
    Extraction,
    HistogramPlaces,
    load_document_schemas,
)
from telemetry_lake.convert.document_text import document_text, parse_document
from telemetry_lake.convert.histogram_columns import HistogramColumn, Mark, Reading, put_back_members
from telemetry_lake.convert.histogram_definitions import HistogramDefinitions
from telemetry_lake.convert.histograms import (
    Json,
    LiftedHistograms,
    histogram_containers,
    lift_histograms,
    value_at,
)
from telemetry_lake.convert.lift import Lifter, lifted_text
from telemetry_lake.convert.normalize import normalized_channel, normalized_os, sample_id
from telemetry_lake.convert.rows import (
    Identity,
    Request,
    Rows,
    ping_rows,
    rejected_rows,
    rejected_values,
)
from telemetry_lake.failures import ErrorType, PingRejected, Stage
from telemetry_lake.raw_object import Promise
from telemetry_lake.settings import MIB, ConversionSettings
from telemetry_lake.submission_path import SubmissionPath, parse_submission_path

if TYPE_CHECKING:
    from telemetry_lake.object_store import ObjectStore

CHUNK_MAX_PINGS: Final = 128
CHUNK_MAX_DOCUMENT_BYTES: Final = 24 * MIB
"""A chunk ends with the ping that reaches one of them."""

_NO_HISTOGRAMS: Final = LiftedHistograms([], [], 0)


class Origin(StrEnum):
    """Which way a ping came in; the column `origin` of `live.rejected_pings`."""

    INGEST = "ingest"
    """Posted to an ingest server."""
    BACKFILL = "backfill"
    """Copied out of the historic archive."""


class Received(Protocol):
    """What is converted as one: a raw object, or a part of a historic file in the form of one."""

    @property
    def key(self) -> str:
        """What the column `raw_object` says."""

    @property
    def promise(self) -> Promise:
        """What it holds; asked for when all its record batches have been read."""

    def record_batches(self) -> Iterator[pa.RecordBatch]:
        """The pings in their order, with the columns of `raw_object.RAW_SCHEMA`."""


@dataclass(frozen=True, slots=True)
class Conversion:
    """A chunk of pings: those that became rows of `live.pings`, and those that were rejected."""

    pings: pa.Table
    rejected: pa.Table


@dataclass(slots=True)
class _Ping:
    """One ping between the steps."""

    path: SubmissionPath
    country: str
    document: bytes
    identity: Identity


class Converter:
    """Converts raw objects. Built once per process; not meant to be shared between threads.

    Raises ConfigurationError when schemas, dimensions or the country database cannot be used.
    """

    def __init__(
        self,
        settings: ConversionSettings,
        object_store: "ObjectStore | None" = None,
        *,
        one_by_one: bool = False,
        origin: Origin = Origin.INGEST,
    ) -> None:
        """`object_store` is needed for histogram definitions in S3 only.

        `one_by_one` converts every histogram in plain Python: slower, with the same rows. `origin` is noted
        in the rows of rejected pings.
        """
        self._one_by_one = one_by_one
        self._origin = origin
        self._histograms = HistogramColumn()
        self._settings = settings
        self._schemas = load_document_schemas(settings.schemas_directory, settings.accept_unknown_types_of)
        document = load_dimensions(settings.dimensions_file)
        self._dimensions = {
            name: dimension_values(document, name)
            for name in columns.DIMENSIONS
            if name != columns.SUBMISSION_DATE
        }
        self._invented_types: set[str] = set()
        self._lifters: dict[int, tuple[Extraction, Lifter]] = {}
        self._definitions = DefinitionStore(settings, object_store)
        self._countries = CountryLookup(settings.country_database, settings.trusted_proxies)

    def convert(self, raw: Received) -> Iterator[Conversion]:
        """The pings of `raw` as rows, a few hundred at a time.

        Raises DamagedRawObject, at the latest after the last chunk.
        """
        position = 0
        self._invented_types.clear()
        for batch in raw.record_batches():
            yield from self._convert_batch(raw.key, position, batch)
            position += batch.num_rows

    def _convert_batch(
        self, raw_key: str, first_position: int, batch: pa.RecordBatch
    ) -> Iterator[Conversion]:
        received: list[tuple[SubmissionPath, Request, str]] = []
        rows, rejected = ping_rows(), rejected_rows()
        bodies = batch.column("body")
        for request, country in _requests(batch, first_position, self._countries):
            try:
                received.append((parse_submission_path(request.path), request, country))
            except PingRejected as why:
                rejected.add(request, rejected_values(Identity(), bodies[request.row].as_py(), why))
        # Nearly the order in which rows are stored, and one in which pings of a build come together.
        received.sort(key=_path_order)
        document_bytes = 0
        # Each ping from its body to its row before the next one, so that its document stays in the cache.
        for path, request, country in received:
            body = bodies[request.row].as_py()
            identity = Identity(path.document_id, path.namespace, path.document_type, path.document_version)
            mark = self._histograms.mark()
            try:
                document = decompress_document(body, self._settings.document_max_bytes)
                document_bytes += len(document)
                values = self._convert_ping(_Ping(path, country, document, identity), mark)
            except PingRejected as why:
                self._histograms.roll_back(mark)
                rejected.add(request, rejected_values(identity, body, why))
            else:
                self._histograms.end_ping()
                rows.add(request, values)
            if len(rows) + len(rejected) >= CHUNK_MAX_PINGS or document_bytes >= CHUNK_MAX_DOCUMENT_BYTES:
                yield self._take(raw_key, batch, rows, rejected)
                rows, rejected, document_bytes = ping_rows(), rejected_rows(), 0
        if len(rows) or len(rejected):
            yield self._take(raw_key, batch, rows, rejected)

    def _take(self, raw_key: str, batch: pa.RecordBatch, rows: Rows, rejected: Rows) -> Conversion:
        return Conversion(
            rows.table(raw_key, batch, {columns.HISTOGRAMS: self._histograms.take()}),
            rejected.table(raw_key, batch, {columns.ORIGIN: of_texts([self._origin.value] * len(rejected))}),
        )

    def _convert_ping(self, ping: _Ping, mark: Mark) -> Sequence[object]:
        """The row of a ping, whose histograms go into their column behind `mark`; raises PingRejected."""
        if not self._one_by_one:
            reading = self._histograms.read(ping.document)
            if reading is not None:
                try:
                    values = self._convert_read(ping, reading, mark)
                except PingRejected:
                    values = None
                    # Messages name places in the text; they are to be those of the text that was sent.
                    if not reading.containers:
                        raise
                if values is not None:
                    return values
                self._histograms.roll_back(mark)
        document = parse_document(ping.document)
        schema = self._identify(ping, document)
        schema.validate(document)
        places = schema.extraction.histograms
        histograms = _NO_HISTOGRAMS
        if places is not None:
            has_histograms = any(container for *_, container in histogram_containers(document, places))
            definitions = self._definitions_for(document, places, has_histograms)
            histograms = lift_histograms(document, places, definitions)
            self._histograms.append(histograms.rows)
        return self._row(ping, document, schema, histograms.containers, histograms.unknown)

    def _convert_read(self, ping: _Ping, reading: Reading, mark: Mark) -> Sequence[object] | None:
        """The row of a ping whose histograms have been read; None when it has to go the slow way."""
        document = parse_document(reading.rest, has_long_numbers=reading.has_long_numbers)
        schema = self._identify(ping, document)
        schema.validate(document)
        places = schema.extraction.histograms
        if places is None:
            return None if reading.containers else self._row(ping, document, schema, [], 0)
        there = list(histogram_containers(document, places))
        if [container.pointer for container in reading.containers] != [pointer for pointer, *_ in there]:
            return None
        definitions = self._definitions_for(document, places, reading.has_members)
        settled = self._histograms.settle(mark, ping.document, definitions)
        if settled is None:
            return None
        put_back_members([container for *_, container in there], settled.put_back)
        lifted = [
            (container.pointer, container.source)
            for number, container in enumerate(reading.containers)
            if number in settled.filled
        ]
        return self._row(ping, document, schema, lifted, settled.unknown)

    def _identify(self, ping: _Ping, document: Json) -> DocumentSchema:
        version = ping.path.document_version or _version_inside(document)
        ping.identity.document_version = version
        schema = self._schemas.find(ping.path.namespace, ping.path.document_type, version, document)
        if self._schemas.is_invented(ping.path.document_type):
            self._admit(ping.path.document_type)
        return schema

    def _admit(self, document_type: str) -> None:
        """Raises PingRejected with `unknown_document_type` when the raw object has too many such types."""
        most = self._settings.invented_types_max_count
        if document_type not in self._invented_types and len(self._invented_types) >= most:
            raise PingRejected(
                ErrorType.UNKNOWN_DOCUMENT_TYPE,
                f"no schema names the document type {document_type}, and this raw object has {most} such "
                "types already",
                stage=Stage.IDENTIFY,
            )
        self._invented_types.add(document_type)

    def _row(
        self,
        ping: _Ping,
        document: Json,
        schema: DocumentSchema,
        lifted_histograms: list[tuple[str, str]],
        unknown_histograms: int,
    ) -> Sequence[object]:
        path = ping.path
        said, lifted = self._lifter(schema.extraction).lift(
            document,
            {
                columns.DOCUMENT_ID: path.document_id,
                columns.DOCUMENT_TYPE: path.document_type,
                columns.DOCUMENT_VERSION: ping.identity.document_version,
                columns.APP_NAME: path.app_name or path.namespace,
                columns.APP_UPDATE_CHANNEL: path.app_update_channel,
                columns.APP_VERSION: path.app_version,
                columns.APP_BUILD_ID: path.app_build_id,
                columns.OS: None,
                columns.OS_VERSION: None,
                columns.ARCHITECTURE: None,
                columns.CLIENT_ID: None,
            },
        )
        client_id = said[columns.CLIENT_ID]
        # In the order of rows.PING_VALUES.
        return (
            path.document_id,
            path.namespace,
            path.document_type,
            ping.identity.document_version,
            *[decide(said.get(name)) for name, decide in self._dimensions.items()],
            normalized_channel(said[columns.APP_UPDATE_CHANNEL]),
            said[columns.OS],
            said[columns.OS_VERSION],
            normalized_os(said[columns.OS]),
            said[columns.ARCHITECTURE],
            ping.country,
            client_id,
            None if client_id is None else sample_id(client_id),
            unknown_histograms,
            document_text(document),
            lifted_text((*lifted, *lifted_histograms)),
            len(ping.document),
        )

    def _lifter(self, extraction: Extraction) -> Lifter:
        known = self._lifters.get(id(extraction))
        if known is None:
            # The extraction is kept beside its lifter, so that its id cannot become another's.
            known = self._lifters[id(extraction)] = (extraction, Lifter(extraction, self._dimensions))
        return known[1]

    def _definitions_for(
        self, document: Json, places: HistogramPlaces, has_histograms: bool
    ) -> HistogramDefinitions | None:
        """The definitions for a document's histograms, None when the document does without.

        Raises PingRejected with `unknown_histogram_revision` when its type cannot and it has histograms.
        """
        if places.revision is None:
            return None
        try:
            return self._definitions.definitions(value_at(document, places.revision))
        except NoDefinitions as error:
            if not (places.definitions_required and has_histograms):
                return None
            raise PingRejected(
                ErrorType.UNKNOWN_HISTOGRAM_REVISION, str(error), stage=Stage.CONVERT
            ) from error


def _path_order(received: tuple[SubmissionPath, Request, str]) -> tuple[str, ...]:
    path, *_ = received
    return path.document_type, path.app_update_channel or "", path.app_build_id or ""


def _requests(
    batch: pa.RecordBatch, first_position: int, countries: CountryLookup
) -> Iterator[tuple[Request, str]]:
    """Each ping's captured request and its country. The client's address does not leave this function."""
    paths: list[bytes] = batch.column("path").to_pylist()  # type: ignore[assignment]
    queries: list[bytes] = batch.column("query").to_pylist()  # type: ignore[assignment]
    hosts: list[bytes] = batch.column("host").to_pylist()  # type: ignore[assignment]
    addresses: list[str] = batch.column("remote_address").to_pylist()  # type: ignore[assignment]
    headers: list[list[tuple[str, bytes]]] = batch.column("headers").to_pylist()  # type: ignore[assignment]
    for row, captured in enumerate(headers):
        kept: dict[str, str] = {}
        forwarded_for: list[str] = []
        for name, value in captured:
            text = value.decode("latin-1")
            if name == FORWARDED_FOR:
                forwarded_for.append(text)
            elif name not in ADDRESS_HEADERS:
                # A header that came twice is one with both values (RFC 9110, section 5.3).
                kept[name] = f"{kept[name]}, {text}" if name in kept else text
        request = Request(
            first_position + row,
            row,
            paths[row].decode("latin-1"),
            queries[row].decode("latin-1"),
            hosts[row].decode("latin-1"),
            kept,
        )
        yield request, countries.country_of(forwarded_for, addresses[row])


def _version_inside(document: Mapping[str, object]) -> str | None:
    """The version that a document of Firefox names: `ver` in the old form, `version` in the unified one."""
    version = document.get("ver", document.get("version"))
    if type(version) is int or isinstance(version, str):
        return str(version)
    return None
