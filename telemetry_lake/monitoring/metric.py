"""What a metric is: name and kind, closed sets or bounds of its labels, what it means and what to do."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

OTHER: Final = "other"
"""The label value that stands for every value outside of a closed set."""


class Kind(StrEnum):
    """The kinds of Prometheus metrics that exist here."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Unit(StrEnum):
    """In what a metric is measured."""

    SECONDS = "seconds"
    BYTES = "bytes"
    DOLLARS = "dollars"
    COUNT = "count"
    """How many: messages, rows, runs, days."""
    YES_OR_NO = "1 or 0"


class Origin(StrEnum):
    """Which process shows a metric."""

    NODE = "ingest node"
    EXPORTER = "exporter"


@dataclass(frozen=True, slots=True)
class Label:
    """A label with the closed set of its `values`, or, where they come from files, with what bounds it."""

    name: str
    values: tuple[str, ...] = ()
    bound: str = ""
    """Where a set is not known in code: which values there are, never more than `LABEL_SETS_MAX`."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric; `name` is as queries write it: that of a counter ends in `_total`."""

    name: str
    kind: Kind
    unit: Unit
    meaning: str
    action: str
    """What to look at or to do when it moves."""
    labels: tuple[Label, ...] = ()
    origin: Origin = Origin.EXPORTER
    source: str = ""
    """The source of the exporter that it is read from; empty for what the exporter says of itself, and for
    metrics of ingest nodes."""

    @property
    def samples(self) -> tuple[str, ...]:
        """The names of its time series, as `/metrics` shows them."""
        if self.kind is Kind.HISTOGRAM:
            return tuple(f"{self.name}_{part}" for part in ("bucket", "sum", "count"))
        return (self.name,)

    @property
    def label_names(self) -> tuple[str, ...]:
        """The names of its labels, in their order."""
        return tuple(label.name for label in self.labels)
