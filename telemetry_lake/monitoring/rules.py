"""What an alarm is, and how it becomes a rule of Prometheus.

Expressions are PromQL in which each duration stands in angle brackets, so that a drill can shorten them all
by one factor and still asks the same question:

- `<5m>` is a window, `[<5m>]`;
- `<5m:s>` is the same as a number of seconds, to compare an age with;
- `<5m:s|40s>` is never shortened below 40 s, because a part that works needs that long.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Literal

SHORTEST_WINDOW_SECONDS: Final = 10
"""A rate needs some samples in its window, also in a drill that reads the metrics every second."""
RUNBOOKS: Final = "docs/runbooks.md"
_UNITS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_DURATION: Final = re.compile(
    r"<(?P<value>\d+[smhd])(?P<seconds>:s)?(?:\|(?P<least>\d+[smhd]))?>",
)


class Severity(StrEnum):
    """Who is told, and how soon."""

    PAGE = "page"
    """A person looks now, also at night: pings are refused or wait, or nothing would say that they do."""
    TICKET = "ticket"
    """A person looks on the next working day."""
    WATCHDOG = "watchdog"
    """Always fires; an outer watcher is told when it does not arrive."""


@dataclass(frozen=True, slots=True)
class Burn:
    """How many times faster than allowed a budget of 30 days is used up, over a long and a short window.

    The long window says that it matters, the short one that it still goes on.
    """

    times: float
    long: str
    short: str


FAST: Final = Burn(14.4, "1h", "5m")
"""The budget is used up in two days, and 2 percent of it already are."""
SLOW: Final = Burn(6, "6h", "30m")
"""In five days, and 5 percent are."""
LOW: Final = Burn(1, "3d", "6h")
"""In 30 days, and 10 percent are."""


@dataclass(frozen=True, slots=True)
class CloudWatchForm:
    """The same alarm, or one that only AWS can see, as CloudWatch takes it."""

    namespace: str
    metric: str
    statistic: Literal["Average", "Maximum", "Minimum", "Sum"]
    threshold: float
    period_seconds: int
    comparison: Literal["GreaterThanThreshold", "LessThanThreshold"] = "GreaterThanThreshold"
    periods: int = 1
    """How many periods in a row."""
    dimensions: tuple[str, ...] = ()
    """The names of its dimensions; the values are those of an installation."""
    missing_data: Literal["notBreaching", "breaching", "ignore"] = "notBreaching"
    """SQS sends nothing of an idle queue."""


@dataclass(frozen=True, slots=True)
class Alarm:
    """One alarm. Its runbook is the section of `docs/runbooks.md` with its name."""

    name: str
    severity: Severity
    summary: str
    """One sentence, a template of Prometheus: with the value where there is one."""
    expression: str | None
    """None: only AWS can see it."""
    wait: str = "0s"
    """How long the expression has to hold before the alarm fires."""
    mutes: tuple[str, ...] = ()
    """Alarms that only follow from this one: while it fires, nobody is told of them."""
    mutes_where_equal: tuple[str, ...] = ()
    """Labels that both have to have with the same value."""
    cloudwatch: CloudWatchForm | None = None

    @property
    def runbook(self) -> str:
        """Where its runbook is, in this repository."""
        return f"{RUNBOOKS}#{self.name.lower()}"

    def rule(self, *, factor: float = 1) -> dict[str, Any]:
        """Return the alarm as a rule, with all durations divided by `factor`.

        Raises ValueError when only AWS can see the alarm.
        """
        if self.expression is None:
            raise ValueError(f"{self.name} has no expression: it is an alarm of CloudWatch only")
        rule: dict[str, Any] = {"alert": self.name, "expr": shortened(self.expression, factor)}
        if seconds_of(self.wait):
            rule["for"] = self.wait if factor == 1 else f"{max(1, round(seconds_of(self.wait) / factor))}s"
        rule["labels"] = {"severity": self.severity.value}
        rule["annotations"] = {"summary": shortened(self.summary, factor), "runbook": self.runbook}
        return rule


def rule_file(alarms: Iterable[Alarm], recorded: Mapping[str, str], *, factor: float = 1) -> dict[str, Any]:
    """Return the content of Prometheus's file of rules, with all durations divided by `factor`.

    `recorded` are expressions that Prometheus keeps the values of, by the names of these.
    """
    rules: list[dict[str, Any]] = [
        {"record": name, "expr": shortened(expression, factor)} for name, expression in recorded.items()
    ]
    rules += [alarm.rule(factor=factor) for alarm in alarms if alarm.expression is not None]
    return {"groups": [{"name": "telemetry-lake", "rules": rules}]}


def shortened(text: str, factor: float) -> str:
    """Return an expression with its durations divided by `factor` and written as Prometheus takes them."""

    def write(match: re.Match[str]) -> str:
        value, least = match["value"], match["least"]
        seconds = seconds_of(value)
        if factor != 1:
            least_seconds = seconds_of(least) if least else 0 if match["seconds"] else SHORTEST_WINDOW_SECONDS
            seconds = min(seconds, max(least_seconds, round(seconds / factor)))
            value = f"{seconds}s"
        return str(seconds) if match["seconds"] else value

    return _DURATION.sub(write, text)


def seconds_of(duration: str) -> int:
    """Return the seconds of a duration such as `5m`."""
    return int(duration[:-1]) * _UNITS[duration[-1]]
