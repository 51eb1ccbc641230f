"""Cubes of given rows of the aggregates, in a real S3: for tests and benchmarks of what reads them."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta

import pyarrow as pa

from telemetry_lake.dashboard.format import Manifest
from telemetry_lake.dashboard.making.build import update_cubes
from telemetry_lake.dashboard.making.dictionary import Definitions
from telemetry_lake.dashboard.making.source import SourceDate, end_of
from telemetry_lake.dashboard.making.versions import CubeVersions
from telemetry_lake.settings import Settings
from telemetry_lake.storage.object_store import ObjectStore


class GivenAggregates:
    """A `Source`: rows of `derived.histogram_aggregates` by their submission date.

    Each date was made an hour after its end, or at the moment that `made_at` has for it; that is also until
    when its pings were received.
    """

    rows_at_once = 4_096

    def __init__(self, rows: Mapping[date, pa.Table], made_at: Mapping[date, datetime] | None = None) -> None:
        self._rows = rows
        self._made_at = made_at or {}

    def dates(self) -> dict[date, SourceDate]:
        moments = {day: self._made_at.get(day, end_of(day) + timedelta(hours=1)) for day in self._rows}
        return {day: SourceDate(at.isoformat(), at, min(at, end_of(day))) for day, at in moments.items()}

    def batches(self, day: date, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        yield from self._rows[day].select(list(columns)).to_batches(max_chunksize=self.rows_at_once)


def make_cubes(
    settings: Settings,
    rows: Mapping[date, pa.Table],
    *,
    definitions: Definitions = lambda _: {},
    made_at: Mapping[date, datetime] | None = None,
    now: datetime | None = None,
) -> Manifest | None:
    """Bring the cubes in the lake bucket to the state of `rows`; return the version that is current then."""
    versions = CubeVersions(ObjectStore(settings.s3), settings.s3.lake_bucket)
    moment = now or datetime.now(UTC)
    for _ in update_cubes(
        versions, lambda: GivenAggregates(rows, made_at), definitions, clock=lambda: moment
    ):
        pass
    return versions.current().manifest
