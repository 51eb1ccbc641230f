"""The names of the columns that code refers to; `sql/<namespace>/<table>/schema.yaml` defines them.

A test compares the two, so that a name cannot be changed in one place only.
"""

from typing import Final

DOCUMENT_ID: Final = "document_id"
NAMESPACE: Final = "namespace"
DOCUMENT_TYPE: Final = "document_type"
DOCUMENT_VERSION: Final = "document_version"
SUBMISSION_TIMESTAMP: Final = "submission_timestamp"
SUBMISSION_DATE: Final = "submission_date"
REASON: Final = "reason"
APP_NAME: Final = "app_name"
APP_UPDATE_CHANNEL: Final = "app_update_channel"
APP_VERSION: Final = "app_version"
APP_BUILD_ID: Final = "app_build_id"
NORMALIZED_CHANNEL: Final = "normalized_channel"
OS: Final = "os"
OS_VERSION: Final = "os_version"
NORMALIZED_OS: Final = "normalized_os"
ARCHITECTURE: Final = "architecture"
COUNTRY: Final = "country"
CLIENT_ID: Final = "client_id"
SAMPLE_ID: Final = "sample_id"
REQUEST: Final = "request"
HEADERS: Final = "headers"
HISTOGRAMS: Final = "histograms"
UNKNOWN_HISTOGRAMS: Final = "unknown_histograms"
DOCUMENT: Final = "document"
LIFTED: Final = "lifted"
DOCUMENT_BYTES: Final = "document_bytes"
RAW_OBJECT: Final = "raw_object"
RAW_OBJECT_POSITION: Final = "raw_object_position"
ERROR_TYPE: Final = "error_type"
ERROR_MESSAGE: Final = "error_message"
STAGE: Final = "stage"
SCHEMA_PATH: Final = "schema_path"
BODY: Final = "body"
ORIGIN: Final = "origin"

DIMENSIONS: Final = (REASON, APP_NAME, APP_UPDATE_CHANNEL, APP_VERSION, APP_BUILD_ID, SUBMISSION_DATE)
"""The dimensions in the order of the original telemetry server's dimension document."""
