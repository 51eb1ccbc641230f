"""The door of a box: an S3 on a Unix socket that gives out the files of some tables, and nothing else.

What is asked in the box is asked again here, with the key of this process, so that there is no key in the
box. Objects below the given places can be read; everything else is refused, whatever the key may do.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from shutil import copyfileobj
from socketserver import ThreadingMixIn, UnixStreamServer
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from telemetry_lake.settings import AwsEndpoint
from telemetry_lake.storage.aws import client_arguments

_COPY_BYTES: Final = 256 * 1024
_PASSED_ON: Final = (
    *("accept-ranges", "content-length", "content-range", "content-type", "etag", "last-modified"),
)


class _Server(ThreadingMixIn, UnixStreamServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, socket: Path, client: Any, places: Sequence[str]) -> None:
        super().__init__(str(socket), _Request)
        self.client = client
        self.places = tuple(places)

    def allows(self, bucket: str, key: str) -> bool:
        """Whether an object may be read. A store that keeps objects as files could follow `..`."""
        parts = key.split("/")
        return not {"", ".", ".."} & set(parts) and f"s3://{bucket}/{key}".startswith(self.places)


class _Request(BaseHTTPRequestHandler):
    """One connection from the box."""

    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        self._answer("get_object")

    def do_HEAD(self) -> None:
        self._answer("head_object")

    def do_PUT(self) -> None:
        self._refuse(HTTPStatus.FORBIDDEN)

    do_POST = do_DELETE = do_PUT  # noqa: N815 (their names in the base class)

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 (its name in the base class)
        pass

    def _answer(self, operation: str) -> None:
        parts = urlsplit(self.path)
        bucket, _, key = unquote(parts.path).removeprefix("/").partition("/")
        if not self.server.allows(bucket, key):
            self._refuse(HTTPStatus.FORBIDDEN)
            return
        asked = {"Bucket": bucket, "Key": key}
        if requested := self.headers.get("Range"):
            asked["Range"] = requested
        try:
            found = getattr(self.server.client, operation)(**asked)
        except ClientError as error:
            self._refuse(error.response["ResponseMetadata"]["HTTPStatusCode"])
            return
        except BotoCoreError:
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE)
            return
        answer = found["ResponseMetadata"]
        self.send_response(answer["HTTPStatusCode"])
        for name in _PASSED_ON:
            if (value := answer["HTTPHeaders"].get(name)) is not None:
                self.send_header(name, value)
        self.end_headers()
        if "Body" in found:
            try:
                copyfileobj(found["Body"], self.wfile, _COPY_BYTES)
            except (BotoCoreError, OSError):
                # The length was said already: only a connection that ends early tells of the rest.
                self.close_connection = True
            finally:
                found["Body"].close()

    def _refuse(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        # A body that was sent with what is refused is not read.
        self.send_header("Connection", "close")
        self.end_headers()


@contextmanager
def open_door(socket: Path, s3: AwsEndpoint, places: Sequence[str]) -> Iterator[None]:
    """Answer on a Unix socket for the length of the block: objects below `places`, `s3://bucket/prefix/`."""
    client = boto3.client("s3", **client_arguments(s3))  # type: ignore[call-overload]
    with _Server(socket, client, places) as server:
        socket.chmod(0o666)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()
            client.close()
