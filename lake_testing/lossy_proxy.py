"""A TCP proxy between a worker and a server, which can lose an answer or say when a request has passed.

It forwards HTTP/1.1 as bytes. `on_answer` is called with each request's first line when the server has begun
to answer it and the client has not seen a byte of the answer: the request has taken effect. If
it returns False, the connection is closed instead, and the client gets no answer.
"""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

CHUNK_BYTES = 65_536


@contextlib.contextmanager
def lossy_proxy(url: str, on_answer: Callable[[str], bool]) -> Iterator[str]:
    """Run a proxy to `url` for the length of the block; its value is the proxy's URL."""
    target = urlsplit(url)
    assert target.hostname is not None
    address = (target.hostname, target.port or 80)
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    ended = threading.Event()

    def accept() -> None:
        while not ended.is_set():
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=_serve, args=(client, address, on_answer), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        ended.set()
        listener.close()


def _serve(client: socket.socket, address: tuple[str, int], on_answer: Callable[[str], bool]) -> None:
    pending: list[str] = []
    with contextlib.suppress(OSError), client, socket.create_connection(address) as server:
        threading.Thread(target=_forward_requests, args=(client, server, pending), daemon=True).start()
        try:
            while chunk := server.recv(CHUNK_BYTES):
                if pending and not on_answer(pending.pop(0)):
                    return
                client.sendall(chunk)
        finally:
            # Closing alone would wait for the thread that still reads from the client.
            client.shutdown(socket.SHUT_RDWR)


def _forward_requests(client: socket.socket, server: socket.socket, pending: list[str]) -> None:
    with contextlib.suppress(OSError):
        while chunk := client.recv(CHUNK_BYTES):
            line = chunk.split(b"\r\n", 1)[0]
            if line.endswith(b" HTTP/1.1"):
                pending.append(line.decode("latin-1"))
            server.sendall(chunk)
        server.shutdown(socket.SHUT_WR)
