"""One look at the spool, left in the counters for all processes of the node."""

import logging

from ingest_server.counters import SPOOL_STATES, Counters
from ingest_server.spool import Spool

log = logging.getLogger(__name__)


def look_at_spool(spool: Spool, counters: Counters) -> None:
    """Leave in the counters how many segments are in the spool and how much room there is."""
    # What workers append while this looks is counted twice until the next look: never too little.
    appended = counters.total("appended_bytes")
    try:
        states = {
            "open": spool.waiting_open(),
            "sealed": spool.waiting_sealed(),
            "unannounced": spool.waiting_unannounced(),
            "damaged": spool.set_aside_already(),
        }
        free_bytes = spool.free_bytes()
    except OSError as error:
        log.error("spool_not_readable", extra={"error": str(error)})
        counters.set("spool_is_unreadable", 1)
        return
    for state in SPOOL_STATES:
        counters.set(f"spool_{state}_segments", states[state].segments)
        counters.set(f"spool_{state}_bytes", states[state].bytes)
    unshipped = [states[state].oldest_seconds for state in ("open", "sealed", "unannounced")]
    counters.set("spool_oldest_seconds", min((item for item in unshipped if item is not None), default=0))
    used = sum(states[state].bytes for state in SPOOL_STATES)
    counters.set("spool_before_bytes", used - appended)
    counters.set("spool_free_before_bytes", free_bytes + appended)
    counters.set("spool_is_unreadable", 0)
