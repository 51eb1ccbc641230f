"""What the definitions of histograms say of metrics: their kinds, descriptions and labels.

The texts are the Histograms.json of the revisions that the conversion knows (`definition_store`): the folder
of definitions, and the S3 prefix when one is configured. The newest file that has a metric describes it.
"""

import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import orjson

from telemetry_lake.dashboard.making.dictionary import MetricDefinition
from telemetry_lake.histograms.definition_folder import DefinitionFolder
from telemetry_lake.histograms.definition_store import DEFINITIONS_MAX_BYTES, s3_location
from telemetry_lake.histograms.definitions import STARTUP_PREFIX
from telemetry_lake.settings import ConversionSettings

if TYPE_CHECKING:
    from telemetry_lake.storage.object_store import ObjectStore

FILES_MAX_COUNT: Final = 32
"""So many files are read, each about 0.5 MB; a metric that none of them has is known from its data alone."""
DESCRIPTION_MAX_CHARACTERS: Final = 2_000
LABELS_MAX_COUNT: Final = 1_000
LABEL_MAX_CHARACTERS: Final = 200

_log = logging.getLogger(__name__)


def known_definitions(
    settings: ConversionSettings, store: "ObjectStore | None", names: Collection[str]
) -> Mapping[str, MetricDefinition]:
    """Return what the newest definitions say of the metrics of these names; unknown ones are left out."""
    found: dict[str, MetricDefinition] = {}
    for _, name, read in sorted(_files(settings, store), reverse=True, key=lambda file: file[:2])[
        :FILES_MAX_COUNT
    ]:
        if len(found) == len(names):
            break
        try:
            document = orjson.loads(read() or b"{}")
        except ValueError as error:
            _log.warning("%s describes no metric, because it is not JSON: %s", name, error)
            continue
        if isinstance(document, dict):
            found = {**_described(document, names), **found}
    return found


def _files(
    settings: ConversionSettings, store: "ObjectStore | None"
) -> Iterator[tuple[datetime, str, Callable[[], bytes | None]]]:
    """Yield when each file was written, its name, and a function that reads it."""
    folder = DefinitionFolder(settings.histogram_definitions_directory)
    for name, status in folder.files():
        if status.st_size <= DEFINITIONS_MAX_BYTES:
            yield datetime.fromtimestamp(status.st_mtime, UTC), name, partial(folder.read, name)
    prefix = settings.histogram_definitions_s3_prefix
    if prefix is not None and store is not None:
        bucket, path = s3_location(prefix)
        for item in store.list_objects(bucket, path):
            if item.key.endswith("/Histograms.json") and item.bytes <= DEFINITIONS_MAX_BYTES:
                yield (
                    item.modified_at,
                    f"s3://{bucket}/{item.key}",
                    partial(store.get_or_none, bucket, item.key),
                )


def _described(document: Mapping[str, Any], names: Collection[str]) -> dict[str, MetricDefinition]:
    described = {}
    for name in names:
        definition = document.get(name, document.get(name.removeprefix(STARTUP_PREFIX)))
        if isinstance(definition, dict) and isinstance(definition.get("kind"), str):
            described[name] = _definition(definition)
    return described


def _definition(definition: Mapping[str, Any]) -> MetricDefinition:
    labels = definition.get("labels")
    expires = definition.get("expires_in_version")
    return MetricDefinition(
        kind=definition["kind"],
        description=str(definition.get("description") or "")[:DESCRIPTION_MAX_CHARACTERS],
        labels=tuple(
            str(label)[:LABEL_MAX_CHARACTERS]
            for label in (labels if isinstance(labels, list) else [])[:LABELS_MAX_COUNT]
        ),
        expires=None if expires is None else str(expires)[:LABEL_MAX_CHARACTERS],
    )
