"""The Glean SDK's own HTTP uploader, which also writes down what it sent and what was answered."""

import gzip
import json
from pathlib import Path
from urllib.parse import urlsplit

from glean.net import HttpClientUploader
from glean.net.ping_uploader import CapablePingUploadRequest, UploadResult


class RecordingUploader(HttpClientUploader):  # type: ignore[misc]
    """Appends a line of JSON to `record` for each upload.

    The SDK pickles its uploader into the process that uploads, so this class lives in a module that can be
    imported there, and not in the program that configures it.
    """

    def __init__(self, record: Path) -> None:
        self._record = record

    def do_upload(self, capable_request: CapablePingUploadRequest) -> UploadResult:
        """Upload as the SDK does, then write the record."""
        result = super().do_upload(capable_request)
        request = capable_request.request
        body = gzip.decompress(request.body) if request.body[:2] == b"\x1f\x8b" else request.body
        line = {
            "path": urlsplit(request.url).path,
            "document_id": request.doc_id[0],
            "headers": dict(request.headers),
            "document": json.loads(body),
            "status": result.code if isinstance(result, UploadResult.HTTP_STATUS) else None,
        }
        with self._record.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(line) + "\n")
        return result
