"""The metadata of a machine of EC2 on loopback, in the form in which EC2 serves them."""

import http.server
from collections.abc import Mapping

from lake_testing.background_server import BackgroundServer


class Metadata(BackgroundServer):
    """The metadata of a machine, as EC2 serves them: only for a token. `answers` may change."""

    def __init__(self, answers: Mapping[str, str]) -> None:
        self.answers = dict(answers)
        metadata = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_PUT(self) -> None:
                self._answer("a-token")

            def do_GET(self) -> None:
                name = self.path.removeprefix("/latest/meta-data/")
                has_token = self.headers["X-aws-ec2-metadata-token"] == "a-token"
                self._answer(metadata.answers.get(name) if has_token else None)

            def _answer(self, text: str | None) -> None:
                self.send_response(200 if text is not None else 404)
                self.end_headers()
                self.wfile.write((text or "").encode())

            def log_message(self, *_: object) -> None:
                pass

        super().__init__(Handler)
