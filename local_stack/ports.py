"""Finds ports that are in use before a server fails on them with a worse message."""

import errno
import socket
from collections.abc import Iterable
from contextlib import suppress

import psutil

from local_stack.program import LOOPBACK, Program
from telemetry_lake.failures import ConfigurationError


def check_ports_are_free(programs: Iterable[Program]) -> None:
    """Raise ConfigurationError when ports are in use: which ones, by what process, and what to do."""
    taken = [
        f"port {port} for {program.name} is in use{_by_whom(port)}: set {variable} to another port"
        for program in programs
        for port, variable in program.ports.items()
        if _is_taken(port)
    ]
    if taken:
        raise ConfigurationError(
            "\n".join((*taken, "Or move all ports at once, with --port-offset 1000 for example."))
        )


def _is_taken(port: int) -> bool:
    with socket.socket() as probe:
        # As servers do: a connection in TIME_WAIT does not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
            probe.listen()
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return True
            raise ConfigurationError(f"port {port} cannot be used: {error.strerror}") from error
    return False


def _by_whom(port: int) -> str:
    with suppress(psutil.Error):
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.pid and connection.laddr[1:] == (port,):
                command = " ".join(psutil.Process(connection.pid).cmdline())
                return f" by process {connection.pid} ({command[:80]})"
    return ""
