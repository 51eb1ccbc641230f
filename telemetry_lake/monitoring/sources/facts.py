"""Facts: what a source of the exporter has read, as values and times of listed metrics."""

import json
import logging
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from pydantic import BaseModel, ValidationError

from telemetry_lake.monitoring.metrics import BY_NAME

R = TypeVar("R", bound=BaseModel)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Fact:
    """One time series; of an age, `value` is the time since which it is counted, in seconds since 1970."""

    name: str
    labels: tuple[str, ...]
    value: float
    is_age: bool = False

    def value_at(self, now: float) -> float:
        """Return the value at a time in seconds since 1970."""
        return max(0.0, now - self.value) if self.is_age else self.value


class Source(Protocol):
    """Something that the exporter reads again and again."""

    @property
    def name(self) -> str:
        """One of `exporter_metrics.SOURCES`."""

    @property
    def interval_seconds(self) -> float:
        """How often it is read."""

    def read(self, now: datetime) -> list[Fact]:
        """Return what holds at the time `now`. Raises TelemetryLakeError when it cannot be read."""


def value(name: str, amount: float, *labels: str) -> Fact:
    """Return a fact; raises ValueError when the list of metrics does not have it with these labels."""
    metric = BY_NAME.get(f"telemetry_lake_{name}")
    if metric is None:
        raise ValueError(f"telemetry_lake_{name} is not in the list of metrics")
    if len(labels) != len(metric.labels) or any(
        label.values and given not in label.values
        for label, given in zip(metric.labels, labels, strict=False)
    ):
        raise ValueError(f"{metric.name} has no labels {labels}: see telemetry_lake/monitoring/metrics.py")
    return Fact(metric.name, labels, amount)


def age(name: str, since: datetime, *labels: str) -> Fact:
    """Return the age of something, which grows until it is read again."""
    fact = value(name, since.timestamp(), *labels)
    return Fact(fact.name, fact.labels, fact.value, is_age=True)


def oldest(name: str, times: Iterable[datetime], *labels: str) -> Fact:
    """Return the age of the oldest of some times, 0 without any."""
    first = min(times, default=None)
    return value(name, 0, *labels) if first is None else age(name, first, *labels)


def values(name: str, amounts: Mapping[str, float]) -> list[Fact]:
    """Return a fact for each value of a metric's one label."""
    return [value(name, amount, label) for label, amount in amounts.items()]


class KeptRecord(Generic[R]):
    """What a source remembers over a new start of the exporter: one JSON file, replaced as a whole."""

    def __init__(self, directory: Path, name: str, form: type[R]) -> None:
        self._file = directory / f"{name}.json"
        self._form = form
        self._lock = threading.Lock()
        self._written = b""

    def load(self) -> R | None:
        """Return what was kept, None at the first start, or when it cannot be read."""
        try:
            return self._form.model_validate_json(self._file.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            _log.warning("%s cannot be read, counters begin at zero: %s", self._file, error)
            return None

    def save(self, record: R) -> None:
        """Keep a record; a disk that is full is logged, and costs the counters only at the next start."""
        text = json.dumps(record.model_dump(mode="json")).encode()
        with self._lock:
            if text == self._written:
                return
            try:
                self._file.parent.mkdir(parents=True, exist_ok=True)
                new = self._file.with_suffix(".new")
                new.write_bytes(text)
                new.replace(self._file)
            except OSError as error:
                _log.warning("%s cannot be written: %s", self._file, error)
            else:
                self._written = text
