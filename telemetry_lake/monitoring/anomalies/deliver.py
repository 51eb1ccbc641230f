"""What is left to be done about decisions: write their rows, and tell people; the state ticks each off."""

import logging
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

from telemetry_lake.monitoring.anomalies.notices import hook_of, mail_of, told_changes
from telemetry_lake.monitoring.anomalies.rows import record
from telemetry_lake.monitoring.anomalies.state import (
    DELIVERY_MAX,
    AnomalyState,
    Decision,
    Delivery,
    StateStore,
    may_deliver,
    with_decision,
)
from telemetry_lake.notices import NOT_SENT, call_hook, may_pass, receiver_digest, send_mail, shown_hook
from telemetry_lake.settings import Settings

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog

Clock = Callable[[], datetime]

_log = logging.getLogger(__name__)


def utc_now() -> datetime:
    """Return the time of now."""
    return datetime.now(UTC)


def deliver(
    settings: Settings, states: StateStore, catalog: "Callable[[], Catalog]", by: str, clock: Clock = utc_now
) -> bool:
    """Do what is left to be done, as the process `by`, which no other one is called.

    Returns whether nothing is left: a receiver that does not answer is told later, and another process may be
    at it. Raises RetriableError when the catalog stays unavailable.
    """
    if not states.change(partial(_take_over, by=by, clock=clock)):
        return not states.read().state.pending
    for decision in states.read().state.pending:
        if not _done(settings, states, catalog, decision, by, clock):
            return False
    return states.change(partial(_leave, by=by))


def _done(
    settings: Settings,
    states: StateStore,
    catalog: "Callable[[], Catalog]",
    decision: Decision,
    by: str,
    clock: Clock,
) -> bool:
    """Do what is left of one decision; return False when another process has taken over."""
    if not decision.recorded:
        record(settings, catalog(), decision)
        decision = decision.model_copy(update={"recorded": True})
        if not _tick_off(states, decision, by, clock):
            return False
    left = 0
    for digest, whom, send in _sendings(settings, decision):
        if digest in decision.told:
            continue
        if not _is_sent(whom, send, decision, settings, clock()):
            left += 1
            continue
        decision = decision.model_copy(update={"told": (*decision.told, digest)})
        if not _tick_off(states, decision, by, clock):
            return False
    return left > 0 or states.change(partial(_finish, decision=decision, by=by))


def _sendings(settings: Settings, decision: Decision) -> Iterator[tuple[str, str, Callable[[], None]]]:
    """Yield for each receiver its digest, what logs may call it, and what tells it."""
    if not told_changes(decision):
        return
    pages = settings.web.public_url
    for address in dict.fromkeys(settings.anomalies.mails):
        message = mail_of(settings.mail.sender, address, decision, pages)
        yield receiver_digest(address), address, partial(send_mail, settings.mail, message)
    # Operators name these hooks, not analysts.
    hooks = settings.webhooks.model_copy(update={"allow_private_addresses": True})
    for url in dict.fromkeys(settings.anomalies.webhooks):
        call = partial(
            call_hook,
            hooks,
            url,
            hook_of(decision, pages),
            idempotency_key=f"anomalies/{decision.decision_id}",
        )
        yield receiver_digest(url), shown_hook(url), call


def _is_sent(
    whom: str, send: Callable[[], None], decision: Decision, settings: Settings, now: datetime
) -> bool:
    """Tell one receiver; return whether it need not be told again."""
    try:
        send()
    except NOT_SENT as error:
        is_late = now - decision.decided_at > timedelta(hours=settings.anomalies.tell_within_hours)
        gives_up = is_late or not may_pass(error)
        _log.warning(
            "%s is not told of the decision %s%s: %s: %s",
            whom,
            decision.decision_id,
            ", and will not be" if gives_up else " yet",
            type(error).__name__,
            error,
        )
        return gives_up
    return True


def _take_over(state: AnomalyState, *, by: str, clock: Clock) -> tuple[AnomalyState | None, bool]:
    if not state.pending or not may_deliver(state, by, clock()):
        return None, False
    return _delivering(state, by, clock), True


def _tick_off(states: StateStore, decision: Decision, by: str, clock: Clock) -> bool:
    def change(state: AnomalyState) -> tuple[AnomalyState | None, bool]:
        if state.delivery is None or state.delivery.by != by:
            return None, False  # this process was thought dead
        return _delivering(with_decision(state, decision), by, clock), True

    return states.change(change)


def _finish(state: AnomalyState, *, decision: Decision, by: str) -> tuple[AnomalyState | None, bool]:
    if state.delivery is None or state.delivery.by != by:
        return None, False
    pending = tuple(each for each in state.pending if each.decision_id != decision.decision_id)
    return state.model_copy(update={"pending": pending}), True


def _leave(state: AnomalyState, *, by: str) -> tuple[AnomalyState | None, bool]:
    if state.delivery is None or state.delivery.by != by:
        return None, not state.pending
    return state.model_copy(update={"delivery": None}), not state.pending


def _delivering(state: AnomalyState, by: str, clock: Clock) -> AnomalyState:
    return state.model_copy(update={"delivery": Delivery(by=by, until=clock() + DELIVERY_MAX)})
