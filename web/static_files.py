"""What `web/frontend` was built into: scripts and styles, each under a name that follows from its content."""

import gzip
import json
import mimetypes
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fastapi import APIRouter, Request, Response

from telemetry_lake.failures import ConfigurationError
from web.edge import PageNotFound

STATIC_DIRECTORY: Final = Path(__file__).parent / "static"
MANIFEST: Final = "manifest.json"
"""Which file each entry point was built into."""
AN_HOUR: Final = 3_600
FOREVER: Final = "public, max-age=31536000, immutable"


@dataclass(frozen=True, slots=True)
class StaticFile:
    """One file, as it is and compressed."""

    content: bytes
    compressed: bytes
    media_type: str


class StaticFiles:
    """All files of a directory; raises ConfigurationError when the pages have not been built into it."""

    def __init__(self, directory: Path = STATIC_DIRECTORY) -> None:
        try:
            self._names: dict[str, str] = json.loads((directory / MANIFEST).read_bytes())
            self._files = {name: _read(directory / name) for name in self._names.values()}
        except (OSError, ValueError) as error:
            raise ConfigurationError(f"the web pages are not built ({error}): run `make install`") from error

    def path(self, entry: str) -> str:
        """Return the path under which the entry point `entry` is served."""
        return f"/static/{self._names[entry]}"

    def router(self) -> APIRouter:
        """Return the routes that serve the files."""
        router = APIRouter(include_in_schema=False)

        @router.api_route("/telemetry.js", methods=["GET", "HEAD"])
        @router.api_route("/v2/telemetry.js", methods=["GET", "HEAD"])
        def old_script(request: Request) -> Response:
            """Return the script that pages of others load, under the names that they know."""
            answer = static_file(request, self._names["telemetry.js"])
            answer.headers["Cache-Control"] = f"public, max-age={AN_HOUR}"
            answer.headers["Access-Control-Allow-Origin"] = "*"
            answer.headers["Cross-Origin-Resource-Policy"] = "cross-origin"
            return answer

        @router.api_route("/static/{name}", methods=["GET", "HEAD"])
        def static_file(request: Request, name: str) -> Response:
            file = self._files.get(name)
            if file is None:
                raise PageNotFound
            headers = {"Cache-Control": FOREVER, "Vary": "Accept-Encoding"}
            if "gzip" in request.headers.get("accept-encoding", ""):
                return Response(
                    file.compressed,
                    media_type=file.media_type,
                    headers={**headers, "Content-Encoding": "gzip"},
                )
            return Response(file.content, media_type=file.media_type, headers=headers)

        return router


def _read(path: Path) -> StaticFile:
    content = path.read_bytes()
    media_type = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    return StaticFile(content, gzip.compress(content, 9, mtime=0), media_type)
