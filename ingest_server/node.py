"""The parent of one node: takes the port and the spool, starts the processes, and restarts what dies.

It stays small and single-threaded, so that forking from it is safe at any time: a child imports what
it needs itself (uvloop in a worker, boto3 and Arrow in the shipper). Signals are blocked from the
start; a child unblocks them once its handlers are there, so that a stop that comes early is not lost.
"""

import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Final, NoReturn

from ingest_server.counters import Counters, shared_counters
from ingest_server.logs import log_as
from ingest_server.spool import Spool, SpoolInUse
from ingest_server.spool_look import look_at_spool
from ingest_server.stop_signals import STOP_SIGNALS, WATCHED_SIGNALS
from telemetry_lake.failures import ConfigurationError
from telemetry_lake.settings import Settings

LISTEN_BACKLOG: Final = 4_096
RESTART_QUIET_SECONDS: Final = 60
RESTART_MAX_WAIT_SECONDS: Final = 30
POLL_SECONDS: Final = 0.25
KILL_GRACE_SECONDS: Final = 3
"""How long after its own limit a stopping child may still live."""

log = logging.getLogger(__name__)


@dataclass
class _Child:
    """One process of the node; `start` runs in it."""

    name: str
    kind: str
    start: Callable[[], None]
    pid: int = 0
    deaths: list[float] = field(default_factory=list)
    next_start_seconds: float = 0.0


class Node:
    """One ingest node; `run` returns when it has stopped. Raises ConfigurationError when it cannot start."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        ingest = settings.ingest
        self._spool = Spool(ingest.spool_directory / ingest.node)
        self._counters = shared_counters(ingest.workers + 3)
        self._listeners: list[socket.socket] = []
        self._private_listener: socket.socket | None = None
        self._children: list[_Child] = []
        self._pipe_read = self._pipe_write = -1

    def run(self) -> None:
        """Start, supervise, and stop on SIGTERM or SIGINT."""
        ingest = self._settings.ingest
        started = time.monotonic()
        signal.pthread_sigmask(signal.SIG_BLOCK, WATCHED_SIGNALS)
        try:
            self._spool.prepare()
            self._spool.lock()
        except SpoolInUse as error:
            raise ConfigurationError(str(error)) from error
        except OSError as error:
            raise ConfigurationError(
                f"the spool {self._spool.directory} cannot be used: {error}; "
                "set TELEMETRY_LAKE_INGEST__SPOOL_DIRECTORY to a directory that can be written"
            ) from error
        self._listeners = _listen(ingest.host, ingest.port, ingest.workers, "PORT")
        (self._private_listener,) = _listen(ingest.private_host, ingest.private_port, 1, "PRIVATE_PORT")
        _recover(self._spool, self._counters, None)
        # No worker takes a ping before it is known whether there is room.
        look_at_spool(self._spool, self._observers_counters())
        self._pipe_read, self._pipe_write = os.pipe()
        for number in range(ingest.workers):
            self._children.append(_Child(f"worker-{number}", "worker", partial(self._run_worker, number)))
        self._children.append(_Child("shipper", "shipper", self._run_shipper))
        self._children.append(_Child("observer", "observer", self._run_observer))
        for child in self._children:
            self._fork(child)
        log.info(
            "node_started",
            extra={
                "node": ingest.node,
                "address": f"{ingest.host}:{ingest.port}",
                "private_address": f"{ingest.private_host}:{ingest.private_port}",
                "workers": ingest.workers,
                "spool": str(self._spool.directory),
                "seconds": round(time.monotonic() - started, 3),
            },
        )
        self._supervise()
        self._stop()

    def _supervise(self) -> None:
        """Start again what dies, until a signal says stop."""
        while True:
            came = signal.sigtimedwait(WATCHED_SIGNALS, POLL_SECONDS)
            if came is not None and came.si_signo in STOP_SIGNALS:
                return
            for child in self._reap():
                self._plan_restart(child)
            now = time.monotonic()
            for child in self._children:
                if not child.pid and now >= child.next_start_seconds:
                    self._fork(child)

    def _reap(self) -> list[_Child]:
        """Return the children that have ended."""
        ended = []
        for child in self._children:
            if child.pid:
                pid, status = os.waitpid(child.pid, os.WNOHANG)
                if pid:
                    child.pid = 0
                    log.info(
                        "child_ended",
                        extra={"child": child.name, "status": os.waitstatus_to_exitcode(status)},
                    )
                    ended.append(child)
        return ended

    def _plan_restart(self, child: _Child) -> None:
        now = time.monotonic()
        child.deaths = [at for at in child.deaths if now - at < RESTART_QUIET_SECONDS]
        wait = min(RESTART_MAX_WAIT_SECONDS, 2 ** (len(child.deaths) - 1)) if child.deaths else 0
        child.deaths.append(now)
        child.next_start_seconds = now + wait
        self._counters.add(f"{child.kind}_restarts")
        log.error("child_died", extra={"child": child.name, "restart_seconds": wait})

    def _fork(self, child: _Child) -> None:
        child.pid = os.fork()
        if child.pid == 0:
            self._be(child)

    def _be(self, child: _Child) -> NoReturn:
        """Run as the child until it ends, and exit."""
        status = 1
        try:
            os.close(self._pipe_write)
            log_as(child.name)
            child.start()
            status = 0
        except BaseException:
            log.critical("child_failed", exc_info=True)
        finally:
            sys.stderr.flush()
            os._exit(status)

    def _run_worker(self, number: int) -> None:
        from ingest_server.worker import Worker

        listener = self._listeners[number]
        self._close_listeners(keep=listener)
        counters = self._counters.of_process(number + 1)
        # Here and not in the parent: a disk that is stuck must not keep it from supervising.
        _recover(self._spool, counters, number)
        Worker(
            number,
            self._settings.ingest,
            self._settings.conversion.trusted_proxies,
            self._spool,
            counters,
            listener,
        ).run(self._pipe_read)

    def _run_shipper(self) -> None:
        from ingest_server.ship import Shipper

        self._close_listeners()
        counters = self._counters.of_process(self._settings.ingest.workers + 1)
        Shipper(self._settings, self._spool, counters).run(self._pipe_read)

    def _run_observer(self) -> None:
        from ingest_server.observer import Observer

        listener = self._private_listener
        assert listener is not None, "it was made before the processes"
        self._close_listeners(keep=listener)
        Observer(self._settings.ingest, self._spool, self._observers_counters(), listener).run(
            self._pipe_read
        )

    def _observers_counters(self) -> Counters:
        return self._counters.of_process(self._settings.ingest.workers + 2)

    def _close_listeners(self, *, keep: socket.socket | None = None) -> None:
        for listener in (*self._listeners, self._private_listener):
            if listener is not None and listener is not keep:
                listener.close()

    def _stop(self) -> None:
        """Workers first, so that the shipper sees what they seal."""
        ingest = self._settings.ingest
        log.info("node_stopping")
        self._close_listeners()
        self._end("worker", ingest.stop_answer_seconds + ingest.commit_max_seconds)
        self._end("shipper", ingest.stop_ship_seconds)
        self._end("observer", 0)
        log.info("node_stopped", extra={"segments_left": len(self._spool.sealed_segments())})

    def _end(self, kind: str, limit_seconds: float) -> None:
        """Ask the children of one kind to stop, and kill those that do not within the limit."""
        mine = [child for child in self._children if child.kind == kind]
        for child in mine:
            if child.pid:
                os.kill(child.pid, signal.SIGTERM)
        deadline = time.monotonic() + limit_seconds + KILL_GRACE_SECONDS
        while any(child.pid for child in mine):
            self._reap()
            if time.monotonic() > deadline:
                for child in mine:
                    if child.pid:
                        log.error("child_killed", extra={"child": child.name})
                        os.kill(child.pid, signal.SIGKILL)
                        os.waitpid(child.pid, 0)
                        child.pid = 0
                return
            signal.sigtimedwait({signal.SIGCHLD}, POLL_SECONDS)


def _recover(spool: Spool, counters: Counters, worker: int | None) -> None:
    """Seal what dead workers left; a failure is logged, and the next start tries again."""
    try:
        recovered = spool.recover(worker)
    except OSError as error:
        log.error("recovery_failed", extra={"error": str(error), "spool": str(spool.directory)})
        return
    counters.add("damaged_segments", recovered.damaged_segments)
    counters.add("salvaged_pings", recovered.salvaged_pings)
    if recovered.sealed_segments or recovered.torn_bytes or recovered.damaged_segments:
        log.info(
            "segments_recovered",
            extra={
                "segments": recovered.sealed_segments,
                "pings": recovered.pings,
                "torn_bytes": recovered.torn_bytes,
                "damaged": recovered.damaged_segments,
            },
        )


def _listen(host: str, port: int, count: int, setting: str) -> list[socket.socket]:
    """Return `count` listening sockets on the same port, which is the value of `setting`.

    SO_REUSEPORT would let us share the port with another program's server that sets it too, and silently
    take some of its connections; so the port is first taken without it. The parent keeps the sockets, so that
    connections that wait in one are served by the next process when theirs dies.

    Raises ConfigurationError.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listeners = []
    try:
        with socket.socket(family, socket.SOCK_STREAM) as alone:
            alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            alone.bind((host, port))
            alone.listen()
        for _ in range(count):
            listener = socket.socket(family, socket.SOCK_STREAM)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            listener.bind((host, port))
            listener.listen(LISTEN_BACKLOG)
            listeners.append(listener)
    except OSError as error:
        raise ConfigurationError(
            f"cannot listen on {host}:{port}: {error.strerror}; stop what listens there, "
            f"or set TELEMETRY_LAKE_INGEST__{setting}"
        ) from error
    return listeners
