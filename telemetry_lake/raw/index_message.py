"""The index message: the queue's pointer to one raw object, as small JSON.

::

    {"version": 1, "bucket": "raw", "key": "raw/v1/2026-11-23/14/node-1/….arrows",
     "bytes": 8400213, "ping_count": 512, "sha256": "9f2c…",
     "first_submission_timestamp": "2026-11-23T14:00:00.123456Z",
     "last_submission_timestamp": "2026-11-23T14:00:59.654321Z"}

A consumer trusts none of it blindly: the reader of a raw object compares bytes, count, range and
checksum with what it finds.

What the key and the size do not say is also metadata of the object in S3, so that the message can be made
again without reading the object.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Final, Literal, Self

from pydantic import (
    AwareDatetime,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from telemetry_lake.failures import FatalError
from telemetry_lake.storage.object_keys import split_raw_object_key
from telemetry_lake.storage.records import Record

_METADATA: Final = {
    "ping-count": "ping_count",
    "sha256": "sha256",
    "first-submission-timestamp": "first_submission_timestamp",
    "last-submission-timestamp": "last_submission_timestamp",
}
"""The fields of the message that are metadata of the object, by their names there."""


class InvalidIndexMessage(FatalError):
    """The body of a queue message is not an index message of a version that we know."""


class IndexMessage(Record):
    """What the ingest server promises about one raw object; timestamps are UTC, sizes are bytes."""

    version: Literal[1] = 1
    bucket: Annotated[str, Field(min_length=3, max_length=63)]
    key: Annotated[str, Field(max_length=1_024)]
    bytes: Annotated[int, Field(gt=0)]
    ping_count: Annotated[int, Field(gt=0)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    first_submission_timestamp: AwareDatetime
    last_submission_timestamp: AwareDatetime

    @field_validator("key")
    @classmethod
    def _key_is_a_raw_object(cls, key: str) -> str:
        split_raw_object_key(key)
        return key

    @model_validator(mode="after")
    def _range_is_ordered(self) -> Self:
        if self.first_submission_timestamp > self.last_submission_timestamp:
            raise ValueError("first_submission_timestamp is after last_submission_timestamp")
        return self

    @property
    def time_range(self) -> tuple[datetime, datetime]:
        """The submission timestamps of the first and the last ping."""
        return self.first_submission_timestamp, self.last_submission_timestamp

    def metadata(self) -> dict[str, str]:
        """Return the metadata that the raw object is put with."""
        fields = self.model_dump(mode="json")
        return {name: str(fields[field]) for name, field in _METADATA.items()}

    @classmethod
    def from_metadata(cls, bucket: str, key: str, size: int, metadata: Mapping[str, str]) -> Self | None:
        """Return the message of an object of `size` bytes; None when its metadata is not what we put."""
        fields = {field: metadata.get(name) for name, field in _METADATA.items()}
        try:
            return cls.model_validate({"bucket": bucket, "key": key, "bytes": size, **fields})
        except ValidationError:
            return None

    def to_json(self) -> str:
        """Return the body of the queue message."""
        return self.model_dump_json()

    @classmethod
    def from_json(cls, body: str) -> Self:
        """Return the message in `body`; raises InvalidIndexMessage, which says what does not fit."""
        try:
            return cls.model_validate_json(body)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(map(str, first["loc"])) or "the body"
            raise InvalidIndexMessage(
                f"not an index message: {where}: {first['msg']}. The sender has to send the "
                "documented form; the message can be looked at in the dead-letter queue."
            ) from error
