"""Remove the records that are left out of a date from what a unit staged.

Most files of a unit have none and stay as they are. The others are written again without them, and read
back: every row that is to stay must be there unchanged.
"""

import uuid
from collections.abc import Set
from datetime import date
from typing import Final

import pyarrow as pa

from telemetry_lake import columns
from telemetry_lake.backfill.tally import Tally
from telemetry_lake.backfill.units.check_unit import Place, StagedFileReader
from telemetry_lake.convert.parquet_writer import parquet_writer
from telemetry_lake.failures import FatalError, RetriableError
from telemetry_lake.settings import Settings
from telemetry_lake.tables.staged import StagedFile

_PLACE: Final = [columns.RAW_OBJECT, columns.RAW_OBJECT_POSITION]


class UnitSettler:
    """Settles units of one backfill; holds the connections of one process."""

    def __init__(self, settings: Settings, backfill: str) -> None:
        self._staged = StagedFileReader(settings, backfill)

    def settle(self, tally: Tally, day: date, left_out: Set[Place]) -> list[StagedFile]:
        """Return the files of a unit for a date without the rows in `left_out`.

        Raises RetriableError when S3 is unavailable, and FatalError when a staged file or a row is missing.
        """
        files = [file for file in tally.files if file.date == day]
        if not left_out:
            return files
        settled: list[StagedFile] = []
        removed = 0
        for file in files:
            try:
                result = self._without(file, left_out)
            except FileNotFoundError as error:
                raise FatalError(
                    f"a staged file of unit {tally.unit} is gone: {error}. Orphan files were removed too "
                    "early. See 'A staged file is gone' in docs/backfill.md."
                ) from error
            except OSError as error:
                raise RetriableError(f"settling unit {tally.unit}: {error}") from error
            removed += file.rows - (result.rows if result else 0)
            settled += [result] if result else []
        if removed != len(left_out):
            raise FatalError(f"unit {tally.unit}: {removed} rows found of {len(left_out)} that are left out")
        return settled

    def _without(self, file: StagedFile, left_out: Set[Place]) -> StagedFile | None:
        """Return the file without these rows: itself when it has none of them, None when nothing is left."""
        with self._staged.open(file) as parquet:
            keep = [_kept(parquet.read_row_group(n, _PLACE), left_out) for n in range(parquet.num_row_groups)]
            rows = sum(map(sum, keep))
            if rows == file.rows:
                return file
            if not rows:
                return None
            folder = self._staged.folders[file.table]
            name = f"{uuid.uuid4()}.parquet"
            with folder.filesystem.open_output_stream(f"{folder.path}/{name}") as sink:
                with parquet_writer(sink, parquet.schema_arrow) as writer:
                    for group, kept in enumerate(keep):
                        if any(kept):
                            writer.write_table(parquet.read_row_group(group).filter(pa.array(kept)))
                size = sink.tell()
            settled = file.model_copy(update={"uri": f"{folder.uri}/{name}", "rows": rows, "bytes": size})
            with self._staged.open(settled) as again:
                groups = iter(range(again.num_row_groups))
                for group, kept in enumerate(keep):
                    if any(kept):
                        wanted = parquet.read_row_group(group).filter(pa.array(kept))
                        if not again.read_row_group(next(groups)).equals(wanted):
                            raise FatalError(f"{settled.uri} does not have the rows of {file.uri}")
            return settled


def _kept(places: pa.Table, left_out: Set[Place]) -> list[bool]:
    values = (places.column(name).to_pylist() for name in _PLACE)
    return [place not in left_out for place in zip(*values, strict=True)]
