"""The signals that the processes of a node wait for, blocked until each of them has its handlers."""

import signal
from typing import Final

STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
WATCHED_SIGNALS: Final = {*STOP_SIGNALS, signal.SIGCHLD}


def unblock_signals() -> None:
    """Unblock what was blocked since the parent started; call it once the handlers are set."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, WATCHED_SIGNALS)
