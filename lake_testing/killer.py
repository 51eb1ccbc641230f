"""Ends a process of a test in the middle of its work: with -9, at a request that is counted."""

import os
import signal
import threading


class Killer:
    """Counts the requests of a worker, and kills it when the fatal one was answered and before it learns."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.requests: list[str] = []
        self.fatal_request = 0
        self.victim = 0

    def arm(self, fatal_request: int) -> None:
        """Forget what was counted; the request of this number will be the fatal one, 0 for none."""
        with self._lock:
            self.requests, self.fatal_request, self.victim = [], fatal_request, 0

    def aim(self, victim: int) -> None:
        """Say which process is killed, by its id."""
        with self._lock:
            self.victim = victim

    def on_answer(self, request: str) -> bool:
        """Count a request that was answered; False when the process is killed and must not learn it."""
        with self._lock:
            self.requests.append(request)
            if len(self.requests) != self.fatal_request:
                return True
            os.kill(self.victim, signal.SIGKILL)
            return False
