"""The door from inside of a box: run a command, for which an S3 listens on a port of its own.

`python -m telemetry_lake.analysis_jobs.sandbox.inside SOCKET COMMAND…` passes everything that connects to the
port on to the Unix socket, where `door` answers. The command finds the port in its settings. A box has no
network, and the libraries that read tables know no Unix sockets.
"""

import asyncio
import os
import subprocess
import sys
import threading
from typing import Final

from telemetry_lake.settings import PREFIX

ENDPOINT_VARIABLE: Final = f"{PREFIX}S3__ENDPOINT_URL"
_CHUNK_BYTES: Final = 256 * 1024


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while chunk := await reader.read(_CHUNK_BYTES):
            writer.write(chunk)
            await writer.drain()
    except OSError:  # the other side has closed
        pass
    finally:
        writer.close()


async def _serve(socket: str, ready: "threading.Event", port: list[int]) -> None:
    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        door_reader, door_writer = await asyncio.open_unix_connection(socket)
        await asyncio.gather(_copy(reader, door_writer), _copy(door_reader, writer))

    server = await asyncio.start_server(connect, "127.0.0.1", 0)
    port.append(server.sockets[0].getsockname()[1])
    ready.set()
    await server.serve_forever()


def main(socket: str, *command: str) -> int:
    """Run the command while the port listens, and return its exit status."""
    ready, port = threading.Event(), list[int]()
    relay = threading.Thread(target=asyncio.run, args=(_serve(socket, ready, port),), daemon=True)
    relay.start()
    if not ready.wait(10):
        sys.exit("the door to the tables does not open")
    # The process of the command is made with it; this one has no settings.
    environment = {**os.environ, ENDPOINT_VARIABLE: f"http://127.0.0.1:{port[0]}"}  # noqa: TID251
    status = subprocess.run(command, env=environment, check=False).returncode
    return 128 - status if status < 0 else status


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
