"""The grammar of the paths that clients post to, shared by the ingest server and the conversion.

::

    /submit/telemetry/<documentId>/<docType>/<appName>/<appVersion>/<appUpdateChannel>/<appBuildId>
    /submit/telemetry/<documentId>                        (old clients; accepted, rejected later)
    /submit/<namespace>/<docType>/<docVersion>/<documentId>

The first two are the forms of Firefox's own telemetry, the third is the generic one that Glean and
everybody else uses (https://docs.telemetry.mozilla.org/concepts/pipeline/http_edge_spec.html).
A trailing slash is tolerated. Values are percent-decoded here, once.
"""

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

from telemetry_lake.failures import ErrorType, PingRejected, Stage

SUBMIT_PREFIX: Final = "/submit/"
TELEMETRY_NAMESPACE: Final = "telemetry"

_NAMESPACE: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,99}")
_DOCUMENT_TYPE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")
_UUID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_VERSION: Final = re.compile(r"[0-9]{1,6}")


@dataclass(frozen=True, slots=True)
class SubmissionPath:
    """What a path says about its ping. Application fields are None in the generic form."""

    namespace: str
    document_type: str
    document_id: str
    document_version: str | None = None
    app_name: str | None = None
    app_version: str | None = None
    app_update_channel: str | None = None
    app_build_id: str | None = None


def is_submission(path: str) -> bool:
    """Whether `path` looks like one of the three forms, by the number of its parts alone.

    This is all that the ingest server asks: a client deletes a ping on 404, so a path with a malformed
    part, or a telemetry path cut short, is accepted, and rejected with its reason later.
    """
    return _parts(path) is not None


def parse_submission_path(path: str) -> SubmissionPath:
    """The parts of `path`, percent-decoded, the document id in lower case.

    Raises PingRejected with `bare_document_id`, `invalid_document_id` or `invalid_path`.
    """
    parts = _parts(path)
    if parts is None:
        raise _invalid("the path is none of the submission forms")
    if "%" in path:
        parts = [unquote(part) for part in parts]
    if parts[0] == TELEMETRY_NAMESPACE:
        if len(parts) not in (2, 7):
            raise _invalid(
                "a telemetry path has a document id and five dimensions behind its type, or nothing"
            )
        if len(parts) == 2:
            raise PingRejected(
                ErrorType.BARE_DOCUMENT_ID,
                "the path names a document id and no document type, as very old clients did",
                stage=Stage.PATH,
            )
        namespace, document_id, document_type, *application = parts
        return SubmissionPath(
            namespace, _document_type(document_type), _document_id(document_id), None, *application
        )
    namespace, document_type, version, document_id = parts
    if _NAMESPACE.fullmatch(namespace) is None:
        raise _invalid("the namespace is not of lower-case letters, digits and hyphens")
    if _VERSION.fullmatch(version) is None:
        raise _invalid("the document version is not a number of at most six digits")
    return SubmissionPath(namespace, _document_type(document_type), _document_id(document_id), version)


def _parts(path: str) -> list[str] | None:
    """What stands between the slashes behind the prefix; None where that is none of the three forms."""
    if not path.startswith(SUBMIT_PREFIX):
        return None
    parts = path.removeprefix(SUBMIT_PREFIX).removesuffix("/").split("/")
    has_form = 2 <= len(parts) <= 7 if parts[0] == TELEMETRY_NAMESPACE else len(parts) == 4
    return parts if has_form and all(parts) else None


def _document_type(text: str) -> str:
    if _DOCUMENT_TYPE.fullmatch(text) is None:
        raise _invalid("the document type is not of letters, digits, hyphens and underscores")
    return text


def _document_id(text: str) -> str:
    document_id = text.lower()
    if _UUID.fullmatch(document_id) is None:
        raise PingRejected(ErrorType.INVALID_DOCUMENT_ID, "the document id is not a UUID", stage=Stage.PATH)
    return document_id


def _invalid(message: str) -> PingRejected:
    return PingRejected(ErrorType.INVALID_PATH, message, stage=Stage.PATH)
