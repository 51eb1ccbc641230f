"""The Iceberg catalog and the tables in it.

`sql/<namespace>/<table>/` says what a table should look like (`tables.definitions`); here it becomes
an Iceberg schema, partition spec and sort order, and is created or brought up to date in any catalog
that pyiceberg knows: the REST protocol (the local stack, Glue, S3 Tables), SQL, and others.
Specification: https://iceberg.apache.org/spec/
"""

import logging
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from typing import Final
from urllib.parse import urlsplit

import pyarrow.fs as pa_fs
from pyiceberg.catalog import Catalog, load_catalog
from pyiceberg.exceptions import (
    CommitFailedException,
    NoSuchTableError,
    ServerError,
    TableAlreadyExistsError,
    ValidationError,
)
from pyiceberg.io import PY_IO_IMPL
from pyiceberg.partitioning import PARTITION_FIELD_ID_START, PartitionField, PartitionSpec
from pyiceberg.schema import Schema, index_name_by_id
from pyiceberg.table import Table, TableProperties
from pyiceberg.table.sorting import SortField, SortOrder
from pyiceberg.transforms import IdentityTransform, parse_transform
from pyiceberg.types import (
    BinaryType,
    BooleanType,
    DateType,
    DoubleType,
    IcebergType,
    IntegerType,
    ListType,
    LongType,
    MapType,
    NestedField,
    PrimitiveType,
    StringType,
    StructType,
    TimestamptzType,
)
from tenacity import (
    Retrying,
    retry,
    retry_if_exception,
    retry_if_exception_type,
    stop_after_attempt,
    wait_random_exponential,
)

from telemetry_lake.failures import ConfigurationError
from telemetry_lake.settings import AwsEndpoint, Settings
from telemetry_lake.tables.catalog_failures import catalog_failures
from telemetry_lake.tables.definitions import (
    Column,
    ColumnType,
    TableDefinition,
    table_definition,
    table_names,
)

LOAD_MAX_ATTEMPTS: Final = 5
UPDATE_MAX_ATTEMPTS: Final = 10
"""How often a table is created or brought up to date again after another process did so at the same time."""
RETRY_WAIT_FIRST_SECONDS: Final = 0.05
"""The longest wait before the second attempt; it doubles with every further one."""
RETRY_WAIT_MAX_SECONDS: Final = 2.0
OF_EVERY_TABLE: Final[dict[str, str]] = {
    # Each commit leaves the whole description of the table behind, up to 1 MB of a live table, every few
    # seconds.
    TableProperties.METADATA_DELETE_AFTER_COMMIT_ENABLED: "true",
    TableProperties.METADATA_PREVIOUS_VERSIONS_MAX: "20",
}
"""The properties of every table whose definition does not say otherwise."""

_PRIMITIVES: Final[dict[str, PrimitiveType]] = {
    "string": StringType(),
    "int": IntegerType(),
    "long": LongType(),
    "double": DoubleType(),
    "boolean": BooleanType(),
    "date": DateType(),
    "timestamptz": TimestamptzType(),
    "binary": BinaryType(),
}


class _LeftToMaintenance(logging.Filter):
    """Drops what pyiceberg says when a process may not delete the files of a commit that was overtaken.

    Most roles delete nothing. Maintenance deletes such files with the orphans.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether this is something else."""
        return not record.getMessage().startswith("Failed to delete ")


for _name in ("pyiceberg.catalog", "pyiceberg.table.update.snapshot"):
    logging.getLogger(_name).addFilter(_LeftToMaintenance())


def load_lake_catalog(settings: Settings, *, file_io: str | None = None) -> Catalog:
    """Return the catalog of `settings.catalog`; nothing is created in it.

    Where the properties do not say how the tables' files are reached, the S3 settings do. `file_io` names
    another class than pyiceberg's own to read and write files with. Raises ConfigurationError when no
    catalog is configured, AccessRefused when the catalog refuses the key of this process, and RetriableError
    when it does not answer.
    """
    if not settings.catalog.properties:
        raise ConfigurationError(
            "no Iceberg catalog is configured: start the local stack (make run), or set "
            "TELEMETRY_LAKE_CATALOG__PROPERTIES to the JSON of pyiceberg's catalog properties"
        )
    properties = {**key_properties(settings), **_file_properties(settings.s3), **settings.catalog.properties}
    if file_io is not None:
        properties[PY_IO_IMPL] = file_io
    # A SQL catalog makes its own tables when it is loaded first; two that do so at once collide over each.
    retrying = Retrying(
        retry=retry_if_exception(_is_of_a_database),
        stop=stop_after_attempt(LOAD_MAX_ATTEMPTS),
        wait=wait_random_exponential(multiplier=RETRY_WAIT_FIRST_SECONDS, max=RETRY_WAIT_MAX_SECONDS),
        reraise=True,
    )
    uri = properties.get("uri", settings.catalog.name)
    with catalog_failures(f"opening the Iceberg catalog {uri}"):
        return retrying(lambda: load_catalog(settings.catalog.name, **properties))


def key_properties(settings: Settings) -> dict[str, str]:
    """Return the properties, of pyiceberg and Spark alike, that open the catalog and the files of its tables.

    They follow from the access key of S3. Without one there are none.
    """
    s3 = settings.s3
    if not (s3.access_key_id and s3.secret_access_key):
        return {}
    secret = s3.secret_access_key.get_secret_value()
    properties = {"s3.access-key-id": s3.access_key_id, "s3.secret-access-key": secret}
    if settings.catalog.takes_s3_key:
        properties["credential"] = f"{s3.access_key_id}:{secret}"
    return properties


def create_tables(catalog: Catalog) -> list[str]:
    """Create the tables of `sql/` that are missing and bring the others up to date; returns their names.

    Columns are added and descriptions and properties changed; nothing is ever removed. Safe to run
    again and by many processes at once. Raises ConfigurationError when a definition asks for what
    cannot be done to a table with rows in it, such as a new required column.
    """
    names = table_names()
    for name in names:
        with catalog_failures(f"creating the table {name}, or bringing it up to date"):
            create_or_update_table(catalog, table_definition(name))
    return names


# SeaweedFS answers 500 for a namespace that another process is creating at that moment. Each time the table
# is loaded again, not refreshed: of two that create it at once, SeaweedFS lets both do it.
@retry(
    retry=retry_if_exception_type((CommitFailedException, ServerError)),
    stop=stop_after_attempt(UPDATE_MAX_ATTEMPTS),
    wait=wait_random_exponential(multiplier=RETRY_WAIT_FIRST_SECONDS, max=RETRY_WAIT_MAX_SECONDS),
    reraise=True,
)
def create_or_update_table(catalog: Catalog, definition: TableDefinition) -> None:
    """Create one table, or bring an existing one up to date; see `create_tables`."""
    from sqlalchemy.exc import IntegrityError  # as slow to import as pandas, and only SQL catalogs bring it

    # Of two processes, a SQL catalog gives the second one an integrity error of its database.
    with suppress(IntegrityError):
        catalog.create_namespace_if_not_exists(definition.name.rpartition(".")[0])
    try:
        table = catalog.load_table(definition.name)
    except NoSuchTableError:
        with suppress(TableAlreadyExistsError):
            _create(catalog, definition)
            return
        table = catalog.load_table(definition.name)
    _bring_up_to_date(table, definition)


def iceberg_schema(definition: TableDefinition) -> Schema:
    """Return the table's columns with their descriptions; ids follow the order of the definition."""
    ids = count(1)
    return Schema(*(_field(column, ids) for column in definition.columns))


@dataclass(frozen=True, slots=True)
class StagingArea:
    """Where files of a batch wait to be committed: a folder inside their table's own location.

    `filesystem` takes paths that start with `path`; a file's address in Iceberg is `uri` instead of
    `path`. Files that no snapshot names are invisible to readers, and orphan removal takes them away.
    """

    filesystem: pa_fs.FileSystem
    path: str
    uri: str


def staging_area(table: Table, batch: str) -> StagingArea:
    """Return the folder in which the files of one batch for one table are staged."""
    uri = f"{table.location().rstrip('/')}/data/{batch}"
    filesystem, path = file_system(table, uri)
    return StagingArea(filesystem, path, uri)


def file_system(table: Table, uri: str) -> tuple[pa_fs.FileSystem, str]:
    """Return the file system in which `table` has the file or folder `uri`, and its path there."""
    # Brings pandas along, a second that commands which only read need not wait for.
    from pyiceberg.io.pyarrow import PyArrowFileIO

    parts = urlsplit(uri)
    if not isinstance(table.io, PyArrowFileIO):
        raise ConfigurationError(
            f"the catalog's py-io-impl is {type(table.io).__name__}; staging needs pyiceberg's PyArrowFileIO"
        )
    return table.io.fs_by_scheme(parts.scheme or "file", parts.netloc), f"{parts.netloc}{parts.path}"


def _is_of_a_database(error: BaseException) -> bool:
    """Return whether a SQL catalog's database refused something. Only such a catalog imports SQLAlchemy."""
    exceptions = sys.modules.get("sqlalchemy.exc")
    return exceptions is not None and isinstance(error, exceptions.DatabaseError)


def _file_properties(s3: AwsEndpoint) -> dict[str, str]:
    properties = {"s3.region": s3.region}
    if s3.endpoint_url:
        properties["s3.endpoint"] = s3.endpoint_url
    return properties


def _create(catalog: Catalog, definition: TableDefinition) -> None:
    schema = iceberg_schema(definition)
    metadata = definition.metadata
    spec = PartitionSpec(
        *(
            PartitionField(
                schema.find_field(part.column).field_id,
                PARTITION_FIELD_ID_START + number,
                parse_transform(part.transform),
                part.column if part.transform == "identity" else f"{part.column}_{part.transform}",
            )
            for number, part in enumerate(metadata.partitioned_by)
        )
    )
    order = SortOrder(
        *(
            SortField(source_id=schema.find_field(column).field_id, transform=IdentityTransform())
            for column in metadata.sorted_by
        )
    )
    properties = _properties(definition, schema)
    catalog.create_table(
        definition.name, schema, partition_spec=spec, sort_order=order, properties=properties
    )


def _bring_up_to_date(table: Table, definition: TableDefinition) -> None:
    schema = iceberg_schema(definition)
    properties = _properties(definition, schema)
    changed = {name: text for name, text in properties.items() if table.properties.get(name) != text}
    try:
        with table.transaction() as transaction:
            with transaction.update_schema() as update:
                update.union_by_name(schema)
            if changed:
                transaction.set_properties(changed)
    except (ValueError, ValidationError) as error:
        raise ConfigurationError(
            f"sql/{definition.name.replace('.', '/')}/schema.yaml does not fit the table that "
            f"is there: {error}. New columns have to be `required: false`, and a type may only widen."
        ) from error


def _properties(definition: TableDefinition, schema: Schema) -> dict[str, str]:
    return {
        "comment": definition.metadata.description.strip(),
        **OF_EVERY_TABLE,
        **_no_metrics_of_parts(schema),
        **definition.metadata.properties,
    }


def _no_metrics_of_parts(schema: Schema) -> dict[str, str]:
    """Return properties that keep metrics of what is inside lists, maps and structs out of manifests."""
    return {
        f"{TableProperties.METRICS_MODE_COLUMN_CONF_PREFIX}.{name}": "none"
        for number, name in index_name_by_id(schema).items()
        if "." in name and schema.find_type(number).is_primitive
    }


def _field(column: Column, ids: Iterator[int]) -> NestedField:
    number = next(ids)
    return NestedField(
        number, column.name, _iceberg_type(column, ids), required=column.required, doc=column.description
    )


def _iceberg_type(column: ColumnType, ids: Iterator[int]) -> IcebergType:
    if column.type == "struct":
        return StructType(*(_field(field, ids) for field in column.fields))
    if column.element is not None:
        number = next(ids)
        return ListType(number, _iceberg_type(column.element, ids), element_required=column.element.required)
    if column.key is not None and column.value is not None:
        key, value = next(ids), next(ids)
        return MapType(
            key,
            _iceberg_type(column.key, ids),
            value,
            _iceberg_type(column.value, ids),
            value_required=column.value.required,
        )
    return _PRIMITIVES[column.type]
