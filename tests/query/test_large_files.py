"""Files that are read in parts, by several threads of DuckDB at once."""

import random

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from telemetry_lake.query.duckdb_files import WHOLE_FILE_MAX_BYTES, TableFileSystem
from telemetry_lake.storage.object_store import ObjectStore
from telemetry_lake.tables.catalog import key_properties
from telemetry_lake.tables.files import TableFile

ROWS = 40_000
ROW_GROUP_ROWS = 2_000


def test_threads_that_share_an_open_file_do_not_disturb_each_other(tmp_path, lake_settings):
    rng = random.Random(1)
    texts = [rng.randbytes(100).hex() for _ in range(ROWS)]
    location = tmp_path / "large.parquet"
    table = pa.table({"number": range(ROWS), "text": texts})
    pq.write_table(table, location, row_group_size=ROW_GROUP_ROWS, compression="zstd")
    size = location.stat().st_size
    assert size > WHOLE_FILE_MAX_BYTES
    bucket = lake_settings.s3.lake_bucket
    ObjectStore(lake_settings.s3).put(bucket, location.name, location.read_bytes())
    files = TableFileSystem()
    name = files.add(
        "lakefile://t",
        TableFile(f"s3://{bucket}/{location.name}", size, ROWS, 0, ()),
        {**key_properties(lake_settings), **lake_settings.catalog.properties},
    )
    with duckdb.connect(config={"threads": 8}) as connection:
        connection.register_filesystem(files)
        for _ in range(5):
            found = connection.execute(
                f"SELECT count(*), sum(number), count(DISTINCT text) FROM read_parquet('{name}')"
            ).fetchone()
            assert found == (ROWS, ROWS * (ROWS - 1) // 2, ROWS)
