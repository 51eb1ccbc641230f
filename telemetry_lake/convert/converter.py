"""From a raw object to rows: what happens to each ping, in this order.

1. `parse_path`: parse the submission path.
2. `decompress`: within the limits.
3. `decode`: parse the JSON, within its limits; it must be an object.
4. `identify`: find version and schema of the document type.
5. `validate`: against the JSON Schema.
6. `lift_histograms`: move histograms into typed lists.
7. `lift_fields`: move fields into columns.

The first step that raises PingRejected decides: the ping becomes a rejected row with its bytes. A ping gives
one row, and the same row whenever it is converted. What is derived from what was sent (`derived`) is added
for a chunk of pings at a time, and so is what was captured of the requests (`captured`).
"""

import logging
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final, Protocol

import pyarrow as pa

from telemetry_lake import columns
from telemetry_lake.convert.arrays import of_texts
from telemetry_lake.convert.captured import CapturedRequests
from telemetry_lake.convert.decompress import decompress_document, needs_header
from telemetry_lake.convert.derivation.client_ids import client_id_of, load_broken_client_ids
from telemetry_lake.convert.derivation.country import CountryLookup
from telemetry_lake.convert.derivation.derived import decisions, derived_columns, submission_date
from telemetry_lake.convert.derivation.dimensions import load_dimensions
from telemetry_lake.convert.document_schemas import MESSAGE_MAX_CHARACTERS, load_document_schemas
from telemetry_lake.convert.fast_histograms.column import HistogramColumn, PingRows
from telemetry_lake.convert.histogram_readers import HistogramReader, UnusualHistogramsError, read_fast
from telemetry_lake.convert.ping import Ping
from telemetry_lake.convert.plain_histograms import value_at
from telemetry_lake.convert.rows import Rows, ping_rows, ping_values, rejected_rows, rejected_values
from telemetry_lake.documents.exact_json import with_texts
from telemetry_lake.documents.restore import HALVES_SPELLED, with_halves_spelled
from telemetry_lake.documents.text import document_text, has_halves, parse_document, without_halves
from telemetry_lake.failures import ErrorType, PingRejected, Stage, TelemetryLakeError
from telemetry_lake.histograms.definition_store import DefinitionStore, NoDefinitions
from telemetry_lake.histograms.definitions import HistogramDefinitions
from telemetry_lake.raw.raw_object import Promise
from telemetry_lake.raw.submission_path import parse_submission_path
from telemetry_lake.settings import ConversionSettings
from telemetry_lake.units import MIB

if TYPE_CHECKING:
    from telemetry_lake.storage.object_store import ObjectStore

CHUNK_MAX_PINGS: Final = 128
CHUNK_MAX_DOCUMENT_BYTES: Final = 24 * MIB
"""A chunk ends with the ping that reaches one of them."""


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
        """The value of the column `raw_object`."""

    @property
    def promise(self) -> Promise:
        """What it holds; asked for when all its record batches have been read."""

    def record_batches(self) -> Iterator[pa.RecordBatch]:
        """Yield the pings in their order, with the columns of `raw_object.RAW_SCHEMA`."""


class Conversions(Protocol):
    """What converts: a `Converter`, or something that watches one."""

    def convert(self, raw: Received) -> "Iterator[Conversion]":
        """Yield the pings of `raw` as rows, a chunk at a time."""


@dataclass(frozen=True, slots=True)
class Conversion:
    """A chunk of pings: those that became rows of `live.pings`, and those that were rejected."""

    pings: pa.Table
    rejected: pa.Table


_VERSION_NAMES: Final = ("version", "ver", "v")
_CLASSIC_VERSION_NAMES: Final = ("ver", "version", "v")
_VERSION: Final = re.compile(r"[0-9]{1,6}")

_log = logging.getLogger(__name__)

Step = Callable[[Ping], Ping]
"""Takes a ping one step further; raises PingRejected with its stage when the ping goes no further."""


class Converter:
    """Converts raw objects. Built once per process; not meant to be shared between threads.

    Raises ConfigurationError when schemas, dimensions, client ids or the country database cannot be used.
    """

    def __init__(
        self,
        settings: ConversionSettings,
        object_store: "ObjectStore | None" = None,
        *,
        read_histograms: HistogramReader = read_fast,
        origin: Origin = Origin.INGEST,
    ) -> None:
        """Load schemas, dimensions and the country database.

        `object_store` is needed for histogram definitions in S3 only. `read_histograms` is one of the ways in
        `histogram_readers`; all give the same rows. `origin` is noted in the rows of rejected pings.
        """
        dimensions = load_dimensions(settings.dimensions_file)
        self._settings = settings
        self._origin = origin
        self._read_histograms = read_histograms
        self._histograms = HistogramColumn()
        self._schemas = load_document_schemas(
            settings.schemas_directory,
            settings.accept_unknown_types_of,
            {
                **decisions(dimensions),
                columns.CLIENT_ID: client_id_of(load_broken_client_ids(settings.broken_client_ids_file)),
            },
            settings.further_schemas_directories,
            settings.glean_namespaces,
        )
        self._derived = derived_columns(dimensions)
        self.invented_types: set[str] = set()
        """The types that no schema names of the pings of the raw object so far."""
        self._definitions = DefinitionStore(settings, object_store)
        self._countries = CountryLookup(settings.country_database, settings.trusted_proxies)
        self._document_steps: tuple[Step, ...] = (
            self._decode,
            self._identify,
            self._validate,
            self._lift_histograms,
            lift_fields,
        )

    def convert(self, raw: Received) -> Iterator[Conversion]:
        """Yield the pings of `raw` as rows, a hundred or so at a time.

        Raises DamagedRawObject, at the latest after the last chunk.
        """
        position = 0
        self.invented_types.clear()
        for batch in raw.record_batches():
            yield from self.convert_batch(raw.key, batch, position)
            position += batch.num_rows

    def convert_batch(self, raw_key: str, batch: pa.RecordBatch, position: int) -> Iterator[Conversion]:
        """Yield the pings of a record batch, of which the first has this position in its raw object."""
        requests = CapturedRequests(batch, position, self._countries)
        for pings, rejected in self._chunks(requests):
            yield self._conversion(raw_key, requests, pings, rejected)

    def reject(self, raw_key: str, batch: pa.RecordBatch, position: int, why: PingRejected) -> Conversion:
        """Return the only ping of `batch` as a rejected row, without a look into its document."""
        requests = CapturedRequests(batch, position, self._countries)
        (ping,) = requests.pings()
        ping.body = requests.body(ping.row)
        with suppress(PingRejected):
            parse_path(ping)
        rejected = rejected_rows()
        rejected.add(ping.row, rejected_values(ping, why))
        return self._conversion(raw_key, requests, ping_rows(), rejected)

    def _chunks(self, requests: CapturedRequests) -> Iterator[tuple[Rows, Rows]]:
        """Convert the pings of a record batch; yield rows of the two live tables, a chunk at a time."""
        pings, rejected = ping_rows(), rejected_rows()
        parsed: list[Ping] = []
        for ping in requests.pings():
            try:
                parsed.append(parse_path(ping))
            except PingRejected as why:
                ping.body = requests.body(ping.row)
                rejected.add(ping.row, rejected_values(ping, why))
        # Nearly the order in which rows are stored, and one in which pings of a build come together.
        parsed.sort(key=_path_order)
        parsed.reverse()
        document_bytes = 0
        # Each ping from its body to its row before the next one, so that its document stays in the cache, and
        # none is held when its row has been added.
        while parsed:
            ping = parsed.pop()
            ping.body = requests.body(ping.row)
            if needs_header(ping.body):
                ping.content_encoding = requests.content_encoding(ping.row)
            try:
                with self._histograms.ping() as histogram_rows:
                    self._convert_document(self._decompress(ping), histogram_rows)
            except PingRejected as why:
                rejected.add(ping.row, rejected_values(ping, why))
            except Exception as error:
                if self._origin is not Origin.BACKFILL or isinstance(error, TelemetryLakeError | MemoryError):
                    raise
                _log.exception("converting record %d of a historic file", ping.row)
                rejected.add(ping.row, rejected_values(ping, _defect(error)))
            else:
                pings.add(ping.row, ping_values(ping))
            document_bytes += len(ping.text)
            if len(pings) + len(rejected) >= CHUNK_MAX_PINGS or document_bytes >= CHUNK_MAX_DOCUMENT_BYTES:
                yield pings, rejected
                pings, rejected, document_bytes = ping_rows(), rejected_rows(), 0
        if len(pings) or len(rejected):
            yield pings, rejected

    def _convert_document(self, ping: Ping, histogram_rows: PingRows) -> Ping:
        """Take the document of `ping` through its steps, in the first reading that can convert it."""
        for reading in self._read_histograms(ping.text, histogram_rows):
            ping.reading = reading
            try:
                for step in self._document_steps:
                    ping = step(ping)
            except UnusualHistogramsError:
                continue
            except PingRejected:
                if reading.is_final:
                    raise
            else:
                return ping
        raise AssertionError("the last reading of a document neither converted it nor rejected it")

    def _conversion(
        self, raw_key: str, requests: CapturedRequests, pings: Rows, rejected: Rows
    ) -> Conversion:
        histograms = self._histograms.take()
        return Conversion(
            pings.table(raw_key, requests, {columns.HISTOGRAMS: histograms}, self._derived),
            rejected.table(
                raw_key,
                requests,
                {columns.ORIGIN: of_texts([self._origin.value] * len(rejected))},
                [submission_date()],
            ),
        )

    def _decompress(self, ping: Ping) -> Ping:
        limits = self._settings
        ping.text = decompress_document(
            ping.body, limits.document_max_bytes, limits.document_max_expansion, ping.content_encoding
        )
        return ping

    def _decode(self, ping: Ping) -> Ping:
        """Parse the JSON text that the reading of the document gives."""
        reading = ping.reading
        ping.document = parse_document(
            reading.text,
            self._settings.document_max_values,
            has_long_numbers=reading.has_long_numbers,
            is_shallow=reading.is_shallow,
        )
        ping.has_halves = has_halves(ping.document, reading.text)
        return ping

    def _identify(self, ping: Ping) -> Ping:
        path = ping.submission
        ping.document_version = path.document_version or _version_inside(ping.document)
        ping.schema = self._schemas.find(
            path.namespace, path.document_type, ping.document_version, ping.document
        )
        if self._schemas.is_invented(path.document_type):
            self._admit(path.document_type)
        return ping

    def _admit(self, document_type: str) -> None:
        """Raise PingRejected with `unknown_document_type` when the raw object has too many such types."""
        most = self._settings.invented_types_max_count
        if document_type not in self.invented_types and len(self.invented_types) >= most:
            raise PingRejected(
                ErrorType.UNKNOWN_DOCUMENT_TYPE,
                f"no schema names the document type {document_type}, and this raw object has {most} such "
                "types already",
                stage=Stage.IDENTIFY,
            )
        self.invented_types.add(document_type)

    def _validate(self, ping: Ping) -> Ping:
        document = ping.document
        if ping.schema.sees_histograms and ping.reading.text is not ping.text:
            document = parse_document(ping.text, self._settings.document_max_values)
        ping.schema.validate(with_texts(document, without_halves) if ping.has_halves else document)
        return ping

    def _lift_histograms(self, ping: Ping) -> Ping:
        ping.histograms = ping.reading.lift(
            ping.document,
            ping.schema.extraction.histograms,
            lambda has_histograms: self._definitions_for(ping, has_histograms),
        )
        return ping

    def _definitions_for(self, ping: Ping, has_histograms: bool) -> HistogramDefinitions | None:
        """Return the definitions for a document's histograms, None when the document does without.

        Raises PingRejected with `unknown_histogram_revision` when its type cannot and it has histograms.
        """
        places = ping.schema.extraction.histograms
        if places is None or places.revision is None:
            return None
        try:
            return self._definitions.definitions(value_at(ping.document, places.revision))
        except NoDefinitions as error:
            if not (places.definitions_required and has_histograms):
                return None
            raise PingRejected(
                ErrorType.UNKNOWN_HISTOGRAM_REVISION, str(error), stage=Stage.CONVERT
            ) from error


def _defect(error: Exception) -> PingRejected:
    """Return why a record of the archive is rejected that meets a defect of the conversion.

    A raw object of the drain is converted again then, ping by ping in a process of its own (`isolated`).
    """
    return PingRejected(
        ErrorType.CONVERSION_FAILED,
        f"the conversion of the record failed with {type(error).__name__}: {error}"[:MESSAGE_MAX_CHARACTERS],
        stage=Stage.CONVERT,
    )


def parse_path(ping: Ping) -> Ping:
    """Take the parts out of the path of the request."""
    ping.path = parse_submission_path(ping.raw_path)
    return ping


def lift_fields(ping: Ping) -> Ping:
    """Move fields into columns, and make the text of what is left."""
    path = ping.submission
    # In the order of EXTRACTED_COLUMNS: what the path says, before the document says it better.
    ping.sent = [
        path.document_id,
        path.document_type,
        ping.document_version,
        None,
        path.app_name or path.namespace,
        path.app_update_channel,
        path.app_version,
        path.app_build_id,
        None,
        None,
        None,
        None,
    ]
    ping.lifted = ping.schema.lifter.lift(ping.document, ping.sent)
    if ping.has_halves:
        ping.lifted.insert(0, HALVES_SPELLED)
        ping.document = with_halves_spelled(ping.document)
    ping.rest = document_text(ping.document)
    return ping


def _path_order(ping: Ping) -> tuple[str, str, str]:
    path = ping.submission
    return path.document_type, path.app_update_channel or "", path.app_build_id or ""


def _version_inside(document: Mapping[str, object]) -> str | None:
    """Return the version that a document of Firefox names, as a number or a text of digits; None without one.

    `version` is that of the unified format, `ver` of the one before it, `v` of the pings of phones. Where it
    says something that is no version, such as that of an application, the next name is asked. The format
    before the unified one has `info`, and no `payload`.
    """
    is_classic = "info" in document and "payload" not in document
    for name in _CLASSIC_VERSION_NAMES if is_classic else _VERSION_NAMES:
        version = document.get(name)
        if type(version) is int or (isinstance(version, str) and _VERSION.fullmatch(version)):
            return str(version)
    return None
