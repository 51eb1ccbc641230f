"""What a section of the web application does again and again besides answering requests."""

import logging
import threading
from collections.abc import Callable

_log = logging.getLogger(__name__)


class Background:
    """A thread that acts and rests, in turns, until it is stopped; a failure is logged and tried again."""

    def __init__(
        self,
        name: str,
        act: Callable[[], float | None],
        *,
        rest_seconds: float,
        failed: str,
        prepare: Callable[[], None] = lambda: None,
    ) -> None:
        """`act` may return another time of rest in seconds; `failed` is what the log says of a failure.

        `prepare` is done once in the thread, before everything else.
        """
        self._act, self._rest_seconds, self._failed, self._prepare = act, rest_seconds, failed, prepare
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._keep_acting, name=name, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self, wait_seconds: float) -> None:
        """Act no more, and wait so long for what is under way."""
        self._stopping.set()
        self._thread.join(wait_seconds)

    def _keep_acting(self) -> None:
        self._prepare()
        while not self._stopping.is_set():
            rest: float | None = None
            try:
                rest = self._act()
            except Exception:  # noqa: BLE001 - any failure is logged, and the next try may succeed
                _log.exception("%s", self._failed)
            self._stopping.wait(self._rest_seconds if rest is None else rest)
