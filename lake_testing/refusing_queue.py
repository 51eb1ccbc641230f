"""An SQS that lacks rights: passes requests on to ElasticMQ, which knows none, and refuses some like IAM."""

import contextlib
import http.client
import json
import threading
from collections.abc import Iterator, Set
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

PASSED_ON = ("Content-Type", "X-Amz-Target", "X-Amzn-Query-Mode")


class RefusingQueue:
    """What is refused, as `(action, queue)` such as `("SendMessage", "raw-index")`, and what was asked."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.refused: Set[tuple[str, str]] = frozenset()
        self.requests: list[str] = []

    def refuses(self, action: str, body: bytes) -> bool:
        """Return whether IAM would refuse this request; it checks batches as single actions."""
        asked = json.loads(body)
        queue = asked.get("QueueName") or asked.get("QueueUrl", "").rpartition("/")[2]
        return (action.removesuffix("Batch"), queue) in self.refused


@contextlib.contextmanager
def refusing_queue(url: str) -> Iterator[RefusingQueue]:
    """Run it before the ElasticMQ at `url` for the length of the block."""
    target = urlsplit(url)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            action = self.headers["X-Amz-Target"].rpartition(".")[2]
            queue.requests.append(action)
            if queue.refuses(action, body):
                reason = f"User: node is not authorized to perform: sqs:{action} on this queue"
                answer = {"__type": "com.amazon.coral.service#AccessDeniedException", "message": reason}
                self.answer(403, json.dumps(answer).encode(), "application/x-amz-json-1.0")
                return
            connection = http.client.HTTPConnection(target.hostname or "", target.port)
            headers = {name: self.headers[name] for name in PASSED_ON if name in self.headers}
            # ElasticMQ puts the address of the request into the URLs of queues.
            connection.request("POST", "/", body, {**headers, "Host": self.headers["Host"]})
            found = connection.getresponse()
            self.answer(found.status, found.read(), found.headers["Content-Type"])
            connection.close()

        def answer(self, status: int, body: bytes, content_type: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    queue = RefusingQueue(f"http://127.0.0.1:{server.server_port}")
    thread.start()
    try:
        yield queue
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
