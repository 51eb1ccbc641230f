"""What Prometheus knows: which alarms there are, which are red since when, and what figures were before."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Final

import httpx

from web.operations.reading import Unreadable, fetched

HISTORY: Final = timedelta(days=1)
HISTORY_STEP: Final = timedelta(minutes=15)
ALARMS_MAX_COUNT: Final = 500
"""The most active alarms that are shown; Prometheus' own pages have all of them."""
_NAME: Final = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")


class State(StrEnum):
    """How an alarm is."""

    FIRING = "firing"
    PENDING = "pending"
    """What it is about is wrong, and not yet for as long as the rule waits."""


@dataclass(frozen=True, slots=True)
class Alarm:
    """One alarm that is active."""

    name: str
    state: State
    since: datetime
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    metrics: tuple[str, ...]
    """The names in the rule's expression, those of recording rules resolved."""

    @property
    def severity(self) -> str:
        """How bad it is, in the words of the rules."""
        return self.labels.get("severity", "")


@dataclass(frozen=True, slots=True)
class Rules:
    """The alarms as Prometheus evaluated them last."""

    alarms: tuple[Alarm, ...]
    names: frozenset[str]
    """All alarms that there are rules for."""
    broken: tuple[str, ...]
    """Sentences about rules that Prometheus cannot evaluate."""
    evaluated_at: datetime | None


@dataclass(frozen=True, slots=True)
class Point:
    """A figure at a moment."""

    at: datetime
    value: float


class Prometheus:
    """Asks Prometheus' HTTP API."""

    def __init__(self, client: httpx.Client, url: str) -> None:
        self._client, self._url = client, url.rstrip("/")

    def rules(self) -> Rules:
        """Return the alarms; raises Unreadable."""
        groups = self._asked("rules", {}).get("groups", [])
        try:
            return _rules([rule for group in groups for rule in group["rules"]])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise Unreadable(f"its list of rules cannot be understood: {error}") from error

    def history(self, expression: str, until: datetime) -> tuple[Point, ...]:
        """Return what an expression with one time series was in the last day; raises Unreadable."""
        result = self._asked(
            "query_range",
            {
                "query": expression,
                "start": f"{(until - HISTORY).timestamp():.0f}",
                "end": f"{until.timestamp():.0f}",
                "step": f"{HISTORY_STEP.total_seconds():.0f}",
            },
        ).get("result", [])
        try:
            values = result[0]["values"] if result else []
            points = (Point(datetime.fromtimestamp(float(at), UTC), float(value)) for at, value in values)
            return tuple(point for point in points if abs(point.value) < float("inf"))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise Unreadable(f"its history of {expression} cannot be understood: {error}") from error

    def _asked(self, what: str, parameters: Mapping[str, str]) -> dict[str, Any]:
        try:
            answer = json.loads(fetched(self._client, f"{self._url}/api/v1/{what}", parameters))
            data: dict[str, Any] = answer["data"]
        except (ValueError, KeyError, TypeError) as error:
            raise Unreadable(f"its answer to {what} cannot be understood: {error}") from error
        return data


def _rules(rules: Sequence[Mapping[str, Any]]) -> Rules:
    recorded = {rule["name"]: rule["query"] for rule in rules if rule["type"] == "recording"}
    alerting = [rule for rule in rules if rule["type"] == "alerting"]
    alarms = [alarm for rule in alerting for alarm in _alarms(rule, recorded)]
    moments = [_moment(rule["lastEvaluation"]) for rule in rules if rule.get("lastEvaluation")]
    return Rules(
        tuple(sorted(alarms, key=lambda alarm: (alarm.state is not State.FIRING, alarm.since)))[
            :ALARMS_MAX_COUNT
        ],
        frozenset(rule["name"] for rule in alerting),
        tuple(f"{rule['name']}: {rule['lastError']}" for rule in rules if rule.get("lastError")),
        max(moments, default=None),
    )


def _alarms(rule: Mapping[str, Any], recorded: Mapping[str, str]) -> Iterator[Alarm]:
    metrics = tuple(_names_in(rule["query"], recorded, frozenset()))
    for alert in rule.get("alerts", ()):
        if alert["state"] in tuple(State):
            yield Alarm(
                rule["name"],
                State(alert["state"]),
                _moment(alert["activeAt"]),
                dict(alert.get("labels", {})),
                dict(alert.get("annotations", {})),
                metrics,
            )


def _names_in(query: str, recorded: Mapping[str, str], above: frozenset[str]) -> Iterator[str]:
    """Yield the names in an expression, and those in what the recording rules among them are made of."""
    for name in _NAME.findall(query):
        if name in recorded and name not in above:
            yield from _names_in(recorded[name], recorded, above | {name})
        else:
            yield name


def _moment(text: str) -> datetime:
    # With nanoseconds, which datetime does not read.
    moment = datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", text))
    return moment.astimezone(UTC)
