"""The grammar of the paths that clients post to, shared by the ingest server and the conversion.

::

    /submit/telemetry/<documentId>/<docType>/<appName>/<appVersion>/<appUpdateChannel>/<appBuildId>
    /submit/telemetry/<documentId>                        (old clients; accepted, rejected later)
    /submit/<namespace>/<docType>/<docVersion>/<documentId>

The first two are the forms of Firefox's own telemetry, the third is the generic one that Glean and
all other clients use (https://docs.telemetry.mozilla.org/concepts/pipeline/http_edge_spec.html).
A trailing slash is tolerated. Values are percent-decoded here, once. Any other path below `/submit/` is
taken as well and rejected with its reason: a client deletes its ping on 404.
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
_BELOW_SUBMIT: Final = re.compile(r"/+submit/.", re.DOTALL)


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
    """Return whether `path` is that of a ping, well-formed or not: anything below `/submit/`.

    This is all that the ingest server asks. An address that is configured with a slash at its end makes
    clients post to `//submit/`, which they cannot help.
    """
    return _BELOW_SUBMIT.match(path) is not None


def parse_submission_path(path: str) -> SubmissionPath:
    """Return the parts of `path`, percent-decoded, the document id in lower case.

    Raises PingRejected with `bare_document_id`, `invalid_document_id` or `invalid_path`.
    """
    parts = _parts(path)
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


def _parts(path: str) -> list[str]:
    """Return what stands between the slashes behind the prefix, in a number that one of the forms has."""
    if not path.startswith(SUBMIT_PREFIX):
        if path.startswith("//"):
            raise _invalid("the path begins with more than one slash: does the client's address end in one?")
        raise _invalid("the path is not below /submit/")
    parts = path.removeprefix(SUBMIT_PREFIX).removesuffix("/").split("/")
    if not all(parts):
        raise _invalid("a part of the path is empty: two slashes follow each other")
    if parts[0] == TELEMETRY_NAMESPACE:
        fewest, most = 2, 7
    else:
        fewest = most = 4
    if not fewest <= len(parts) <= most:
        wanted = f"{fewest} to {most}" if fewest < most else str(most)
        raise _invalid(f"the number of parts below /submit/ is {len(parts)} instead of {wanted}")
    return parts


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
