"""The connections of one process to the lake: what the drain and the recovery work with."""

from functools import cached_property
from typing import TYPE_CHECKING

from telemetry_lake.drain.days import DayLedger
from telemetry_lake.drain.ledger import Ledger
from telemetry_lake.raw.index_queue import IndexQueue
from telemetry_lake.settings import Settings
from telemetry_lake.storage.object_store import ObjectStore
from telemetry_lake.storage.records import RecordStore
from telemetry_lake.tables.catalog import load_lake_catalog

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sqs import SQSClient
    from pyiceberg.catalog import Catalog


class LakeConnections:
    """Object store, index queue, records, ledgers and catalog of `settings`; to be shared between threads.

    `s3`, `sqs` and `catalog` take the place of clients of `settings`.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        s3: "S3Client | None" = None,
        sqs: "SQSClient | None" = None,
        catalog: "Catalog | None" = None,
    ) -> None:
        self.settings = settings
        self.store = ObjectStore(settings.s3, s3)
        self.queue = IndexQueue(settings.sqs, sqs)
        self._catalog = catalog
        self.records = RecordStore(self.store, settings.s3.lake_bucket)
        self.ledger = Ledger(self.store, settings.s3.lake_bucket)
        self.days = DayLedger(self.store, settings.s3.lake_bucket)

    @cached_property
    def catalog(self) -> "Catalog":
        """The Iceberg catalog, which is loaded when it is first asked for."""
        return self._catalog if self._catalog is not None else load_lake_catalog(self.settings)
