"""What a failure means: the whole tree of this project's errors, and why a ping can be rejected.

::

    TelemetryLakeError
    ├── FatalError              trying again cannot help; somebody has to act
    │   ├── ConfigurationError  a setting or a file of the project is wrong
    │   ├── DamagedRawObject    a raw object does not hold what its index promises
    │   └── GateFailed          an audit of severity `fail` stopped a batch
    ├── RetriableError          the world was away; the same call may work later
    └── PingRejected            one ping cannot become a row of its table; it becomes a rejected row

`FatalError` and `RetriableError` are about a batch or a process. `PingRejected` is data: whoever
catches it writes a row of `live.rejected_pings` and goes on with the next ping.
"""

from enum import StrEnum


class TelemetryLakeError(Exception):
    """The root of every error that this project raises on purpose."""


class FatalError(TelemetryLakeError):
    """Trying again cannot help. The message says what is wrong, where, and what to do."""


class ConfigurationError(FatalError):
    """A setting, a schema or a table definition is wrong or missing."""


class DamagedRawObject(FatalError):
    """A raw object is truncated, not Arrow, or does not match its counts or its checksum."""


class GateFailed(FatalError):
    """An audit of severity `fail` found a batch wanting; nothing of the batch became visible."""


class RetriableError(TelemetryLakeError):
    """S3, SQS or the catalog did not answer, or answered that it is busy."""


class Stage(StrEnum):
    """The step of the conversion that rejected a ping, in the order in which the steps run."""

    PATH = "path"
    DECOMPRESS = "decompress"
    DECODE = "decode"
    IDENTIFY = "identify"
    VALIDATE = "validate"
    CONVERT = "convert"


class ErrorType(StrEnum):
    """The closed list of reasons for which a ping is rejected."""

    INVALID_PATH = "invalid_path"
    """The path fits none of the submission forms, or one of its parts is malformed."""
    BARE_DOCUMENT_ID = "bare_document_id"
    """The path of old clients, `/submit/telemetry/<documentId>`, which names no document type."""
    INVALID_DOCUMENT_ID = "invalid_document_id"
    """The document id of the path is not a UUID."""
    EMPTY_BODY = "empty_body"
    """The ping has no body at all."""
    INVALID_GZIP = "invalid_gzip"
    """The body starts like gzip and is truncated, damaged or followed by garbage."""
    TOO_LARGE = "too_large"
    """The document is larger than its limit once decompressed."""
    INVALID_JSON = "invalid_json"
    """The document is not JSON in UTF-8."""
    NOT_AN_OBJECT = "not_an_object"
    """The document is JSON, and its top level is not an object."""
    UNKNOWN_DOCUMENT_TYPE = "unknown_document_type"
    """No JSON Schema exists for the namespace and the document type."""
    UNKNOWN_DOCUMENT_VERSION = "unknown_document_version"
    """The document type is known, and no JSON Schema exists for this version of it."""
    SCHEMA_VIOLATION = "schema_violation"
    """The document does not fit its JSON Schema."""
    UNKNOWN_HISTOGRAM_REVISION = "unknown_histogram_revision"
    """The histogram definitions of the document's revision are needed and cannot be had."""
    INVALID_HISTOGRAM = "invalid_histogram"
    """A histogram has a bucket outside its range, or a count that is not an integer."""
    INVALID_VALUE = "invalid_value"
    """A field that becomes a typed column holds something that its type cannot hold."""


class PingRejected(TelemetryLakeError):
    """One ping cannot be converted.

    `message` is for a person: it says what is wrong and never quotes the client's address.
    `schema_path` is the path inside the JSON Schema where validation failed, if it did.
    """

    def __init__(
        self, error_type: ErrorType, message: str, *, stage: Stage, schema_path: str | None = None
    ) -> None:
        super().__init__(message)
        self.error_type = error_type
        self.message = message
        self.stage = stage
        self.schema_path = schema_path
