"""Which keys of keyed metrics a cube keeps, and the sum of the others.

Clients choose keys, so there may be any number of them. Of each metric, channel and process those
`KEYS_KEPT_MAX` keys are kept that most pings of the submission date have; of two keys with as many pings, the
one that sorts first. The others are added up in rows without a key, `is_rest`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.compute

from telemetry_lake.columns import APP_UPDATE_CHANNEL
from telemetry_lake.dashboard.format import KEYS_KEPT_MAX

READ_FOR_KEYS: Final = (APP_UPDATE_CHANNEL, "name", "process", "key", "pings")
"""The columns of the aggregates by which keys are chosen."""
MEMORY_LIMIT: Final = "256MB"
"""What DuckDB may use to count keys; it goes on in a folder, however many there are."""

_CHOSEN: Final = """
    WITH counted AS (
        SELECT app_update_channel AS channel, name AS metric, process, key, sum(pings) AS pings
        FROM keyed WHERE key IS NOT NULL GROUP BY ALL
    )
    SELECT channel, metric, process, key, number::INTEGER AS number
    FROM (
        SELECT *, count(*) OVER (PARTITION BY channel, metric, process) AS number,
            row_number() OVER (PARTITION BY channel, metric, process ORDER BY pings DESC, key) AS place
        FROM counted
    )
    WHERE number > $kept AND place <= $kept
"""
_WHOSE: Final = ["channel", "metric", "process"]

# The stubs know few of the functions.
pc: Final[Any] = pyarrow.compute


@dataclass(frozen=True, slots=True)
class KeptKeys:
    """The keys that are kept, of those metrics, channels and processes that have too many."""

    kept: pl.DataFrame
    """With `number`, how many keys there are in all."""

    def fold(self, rows: pa.Table) -> pa.Table:
        """Return rows of a cube in which a key that is not kept gives way to null and `is_rest`."""
        if self.kept.is_empty():
            return rows
        place = (
            pl.DataFrame(pl.from_arrow(rows.select([*_WHOSE, "key"])))
            .join(self.kept.select(*_WHOSE, "number").unique(), on=_WHOSE, how="left", maintain_order="left")
            .join(
                self.kept.select(*_WHOSE, "key", is_kept=True),
                on=[*_WHOSE, "key"],
                how="left",
                maintain_order="left",
            )
            .select(
                key=pl.when(pl.col("is_kept") | pl.col("number").is_null()).then("key"),
                is_rest=pl.col("key").is_not_null()
                & pl.col("number").is_not_null()
                & pl.col("is_kept").is_null(),
                number="number",
            )
            .with_columns(rest_keys=pl.when("is_rest").then(pl.col("number") - KEYS_KEPT_MAX))
            .to_arrow()
        )
        for name in ("key", "is_rest", "rest_keys"):
            field = rows.schema.field(name)
            rows = rows.set_column(
                rows.schema.get_field_index(name), field, place.column(name).cast(field.type)
            )
        return rows


def choose_keys(aggregates: Iterator[pa.RecordBatch], folder: Path) -> KeptKeys:
    """Return which keys of a date's rows of the aggregates are kept; only `READ_FOR_KEYS` are needed.

    `folder` takes what does not fit into memory meanwhile.
    """
    schema = pa.schema([(name, pa.int64() if name == "pings" else pa.string()) for name in READ_FOR_KEYS])
    keyed = pa.RecordBatchReader.from_batches(
        schema, (batch.select(list(READ_FOR_KEYS)).cast(schema) for batch in aggregates)
    )
    with duckdb.connect(config={"memory_limit": MEMORY_LIMIT, "temp_directory": str(folder)}) as connection:
        connection.register("keyed", keyed)
        return KeptKeys(connection.sql(_CHOSEN, params={"kept": KEYS_KEPT_MAX}).pl())
