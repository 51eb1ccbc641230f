"""Put the tables of the lake back into a catalog that has lost them, from their own files.

A catalog's entry names the current metadata file of a table; the files themselves are below the table's
location, each under the number of its version. An entry that is lost is made again with the newest of them
that is whole. What is in the catalog is left alone.

The newest file may be of a commit that was never finished, because its writer died: then the rows are
there, as if it had been, and the drain, which looks for a batch in the table before it commits, does not
commit it again. Of two files of the newest version only one was current, and the files do not say which: a
person chooses.
"""

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import TableAlreadyExistsError, ValidationError
from pyiceberg.table import StaticTable, Table

from telemetry_lake.failures import ConfigurationError, FatalError
from telemetry_lake.storage.object_store import ObjectStore
from telemetry_lake.tables.catalog_failures import catalog_failures
from telemetry_lake.tables.definitions import table_names

_METADATA_FILE: Final = re.compile(r"v?(?P<version>\d+)(-[0-9a-f-]+)?\.metadata\.json")
METADATA_FOLDER: Final = "metadata/"
NAMESPACE_SUFFIXES: Final = ("", ".db")
"""What catalogs add to a namespace to name its folder; the second where the namespace has no location."""


class NotRestored(FatalError):
    """Some tables are in the catalog no more than before."""


@dataclass(frozen=True, slots=True)
class MetadataFile:
    """A file that describes a table; `version` counts its commits."""

    location: str
    version: int


@dataclass(frozen=True, slots=True)
class Restored:
    """What has become of one table: the sentence to show, and whether a person has to act."""

    name: str
    text: str
    failed: bool = False

    def __str__(self) -> str:
        return f"{self.name}: {self.text}"


def warehouse_of(catalog: Catalog, given: str | None) -> str:
    """Return where the tables are, `s3://<bucket>/<folders>/`: as given, or as the catalog's properties say.

    Raises ConfigurationError when neither is an address of S3.
    """
    where = given or catalog.properties.get("warehouse", "")
    if urlsplit(where).scheme != "s3" or not urlsplit(where).netloc:
        raise ConfigurationError(
            f"{where or 'nothing'!r} is not where the tables' files are: give --warehouse s3://<bucket>/<folder>"
        )
    return where.rstrip("/") + "/"


def restore_catalog(
    catalog: Catalog,
    store: ObjectStore,
    warehouse: str,
    names: Collection[str] = (),
    *,
    metadata_file: str | None = None,
    observe: Callable[[Restored], None] = lambda _: None,
) -> list[Restored]:
    """Register every table of `sql/`, or those of `names`, that the catalog does not have.

    `metadata_file` is the file for the only one of `names`, chosen by a person. `observe` is told of each
    table. Raises ConfigurationError for a name that no table can have, and a choice for more than one table.
    """
    if metadata_file is not None and len(names) != 1:
        raise ConfigurationError("a metadata file is chosen for one table: name that table, and no other")
    if wrong := [name for name in names if name.count(".") != 1 or "/" in name]:
        raise ConfigurationError(f"{wrong[0]!r} is not the name of a table, such as live.pings")
    found = []
    for name in sorted(names) or table_names():
        with catalog_failures(f"restoring the table {name}"):
            found.append(_restore(catalog, store, warehouse, name, metadata_file))
        observe(found[-1])
    return found


def raise_if_not_restored(found: Sequence[Restored]) -> None:
    """Raise NotRestored, with the tables that a person has to look at, if there are any."""
    if failed := [each.name for each in found if each.failed]:
        raise NotRestored(f"{len(failed)} tables are not restored: {', '.join(failed)}")


def _restore(catalog: Catalog, store: ObjectStore, warehouse: str, name: str, chosen: str | None) -> Restored:
    if catalog.table_exists(name):
        return Restored(name, "is in the catalog; left alone")
    if chosen is not None:
        return _register(catalog, name, _load(catalog, name, chosen), "as chosen")
    skipped: list[str] = []
    for files, keys in _versions(store, warehouse, name):
        whole = []
        for file in files:
            table, why_not = _whole(catalog, name, file, keys)
            if table is None:
                skipped.append(f"{file.location} is not whole ({why_not})")
            else:
                whole.append(table)
        if len(whole) > 1:
            locations = " and ".join(table.metadata_location for table in whole)
            text = (
                f"{locations} have the same version, and only one of them was current: compare the newest "
                "snapshots and their batches, and choose one with --metadata-file"
            )
            return Restored(name, text, failed=True)
        if whole:
            return _register(catalog, name, whole[0], "; ".join(skipped))
    if skipped:
        return Restored(name, f"no metadata file is whole: {'; '.join(skipped)}", failed=True)
    return Restored(name, f"has no metadata file below {warehouse}; `create-tables` makes it anew")


def _versions(
    store: ObjectStore, warehouse: str, name: str
) -> Iterator[tuple[list[MetadataFile], Collection[str]]]:
    """Yield the metadata files of a table, those of one version at a time, the newest version first.

    With each come the addresses of all files beside them.
    """
    parts = urlsplit(warehouse)
    namespace, _, table = name.partition(".")
    beside: set[str] = set()
    versions: dict[int, list[MetadataFile]] = {}
    for suffix in NAMESPACE_SUFFIXES:
        prefix = f"{parts.path.lstrip('/')}{namespace}{suffix}/{table}/{METADATA_FOLDER}"
        for item in store.list_objects(parts.netloc, prefix):
            location = f"s3://{parts.netloc}/{item.key}"
            beside.add(location)
            if (match := _METADATA_FILE.fullmatch(item.key.removeprefix(prefix))) is not None:
                version = int(match["version"])
                versions.setdefault(version, []).append(MetadataFile(location, version))
    for version in sorted(versions, reverse=True):
        yield versions[version], beside


def _whole(
    catalog: Catalog, name: str, file: MetadataFile, beside: Collection[str]
) -> tuple[Table | None, str]:
    """Return the table that a metadata file describes, or None and why a part of it is missing."""
    try:
        table = _load(catalog, name, file.location)
        snapshot = table.current_snapshot()
        if snapshot is None:
            return table, ""
        if snapshot.manifest_list not in beside:
            return None, f"{snapshot.manifest_list} is missing"
        missing = [
            manifest.manifest_path
            for manifest in snapshot.manifests(table.io)
            if manifest.manifest_path not in beside
        ]
    # Not every OSError: a file that cannot be read at this moment is no reason to take an older one.
    except (ValueError, EOFError, FileNotFoundError, ValidationError) as error:
        return None, " ".join(str(error).split()) or type(error).__name__
    return (None, f"{missing[0]} is missing") if missing else (table, "")


def _load(catalog: Catalog, name: str, location: str) -> Table:
    """Return the table that a metadata file describes, with the catalog's way to its files."""
    table = StaticTable.from_metadata(location, dict(catalog.properties))
    return Table(
        identifier=tuple(name.split(".")),
        metadata=table.metadata,
        metadata_location=location,
        io=table.io,
        catalog=catalog,
    )


def _register(catalog: Catalog, name: str, table: Table, note: str) -> Restored:
    catalog.create_namespace_if_not_exists(name.partition(".")[0])
    try:
        catalog.register_table(name, table.metadata_location)
    except TableAlreadyExistsError:
        return Restored(name, "is in the catalog meanwhile; left alone")
    snapshot = table.current_snapshot()
    rows = "no rows"
    if snapshot is not None and snapshot.summary is not None:
        rows = f"{int(snapshot.summary['total-records'] or 0):,} rows"
    text = f"registered with {rows} at {table.metadata_location}"
    return Restored(name, f"{text} ({note})" if note else text)
