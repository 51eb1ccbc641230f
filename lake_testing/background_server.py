"""A small HTTP server on loopback, in a thread of the test."""

import http.server
import threading


class BackgroundServer:
    """Serves requests with `handler` until it is closed."""

    def __init__(self, handler: type[http.server.BaseHTTPRequestHandler]) -> None:
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def close(self) -> None:
        """End it, and wait for its thread."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
