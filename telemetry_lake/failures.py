"""What a failure means: the errors that every room of the core raises, and why a ping can be rejected.

::

    TelemetryLakeError
    ├── FatalError              trying again cannot help; an operator has to act
    │   ├── ConfigurationError  a setting or a file of the project is wrong
    │   ├── AccessRefused       a right is missing, or a key is wrong
    │   ├── DamagedRawObject    a raw object does not hold what its index promises
    │   ├── GateFailed          an audit of severity `fail` stopped a batch
    │   └── GateAlarm           an audit of severity `alarm` let a batch pass, and a person has to look at it
    ├── RetriableError          a service was unavailable or busy; the same call may work later
    └── PingRejected            one ping cannot become a row of its table; it becomes a rejected row

`FatalError` and `RetriableError` are about a batch or a process. `PingRejected` is data: its catcher writes a
row of `live.rejected_pings` and goes on with the next ping.

A module derives an error of its own from `FatalError` where callers have to tell a case apart, such as
`ObjectNotFound`, `InvalidIndexMessage`, `NotDecided`, `UnfinishedDrain`, `QueryError` and `ScriptError`.
Exceptions that do not derive from `TelemetryLakeError`, such as `NoDefinitions`, are signals between two
modules: the caller turns them into one of the above.
"""

import re
from enum import StrEnum
from typing import Final, Self

_USER_INFO: Final = re.compile(r"(?<=://)[^/?#\s]*@")
"""What may stand between scheme and host of a URL: a user's name, a password."""
REFUSED_EXIT_STATUS: Final = 77
"""How a job ends that was refused something, as sysexits.h has it: it is not started again."""
_WHERE_RIGHTS_ARE: Final = "telemetry_lake/deploy/roles.py says which role needs which rights"


def without_user_info(text: str) -> str:
    """Return `text` without the names and passwords in its URLs, so that it may be shown and logged."""
    return _USER_INFO.sub("", text)


class TelemetryLakeError(Exception):
    """The root of every error that this project raises on purpose. Its message holds no password of a URL."""

    def __init__(self, message: str = "") -> None:
        super().__init__(without_user_info(message))


class FatalError(TelemetryLakeError):
    """Trying again cannot help. The message says what is wrong, where, and what to do."""


class ConfigurationError(FatalError):
    """A setting, a schema or a table definition is wrong or missing."""


class AccessRefused(FatalError):
    """S3, SQS or the catalog refuses what a process wants to do: it lacks a right, or its key is wrong."""

    @classmethod
    def to(cls, what: str, missing: str, reason: str) -> Self:
        """Return the error of a process that was refused `what`.

        `missing` is the right that it needs for that, or what is wrong with its key, and `reason` what the
        service answered.
        """
        return cls(f"{what} is refused: {missing} ({reason}). {_WHERE_RIGHTS_ARE}")


class DamagedRawObject(FatalError):
    """A raw object is truncated, not Arrow, or does not match its counts or its checksum."""


class GateFailed(FatalError):
    """A check of severity `fail` does not hold for a batch; nothing of the batch became visible."""


class GateAlarm(FatalError):
    """A check of severity `alarm` does not hold for a batch; the batch is published all the same."""


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
    """The path does not fit one of the submission forms, or one of its parts is malformed."""
    BARE_DOCUMENT_ID = "bare_document_id"
    """The path of old clients, `/submit/telemetry/<documentId>`, which names no document type."""
    INVALID_DOCUMENT_ID = "invalid_document_id"
    """The document id of the path is not a UUID."""
    EMPTY_BODY = "empty_body"
    """The ping has no body at all."""
    INVALID_GZIP = "invalid_gzip"
    """The body starts like gzip and is truncated, damaged or followed by garbage."""
    INVALID_COMPRESSION = "invalid_compression"
    """The body is in zlib, deflate or zstd, and is truncated, damaged or followed by garbage."""
    UNSUPPORTED_ENCODING = "unsupported_encoding"
    """The body is compressed in a way that is not read here, such as brotli, or compressed twice."""
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
    """The histogram definitions of the document's revision are needed and cannot be found."""
    INVALID_HISTOGRAM = "invalid_histogram"
    """A histogram has a bucket outside its range, or a count that is not a whole number, or is negative."""
    INVALID_VALUE = "invalid_value"
    """A field that becomes a typed column holds something that its type cannot hold."""
    TOO_COSTLY = "too_costly"
    """The ping would take more memory or time than one ping may, or has too many of something."""
    CONVERSION_FAILED = "conversion_failed"
    """The conversion of the ping meets a defect of the lake. Every other error type is about the ping."""


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
