"""The labels of counted rows: names that a schema or a setting knows, and `other` for invented ones."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from telemetry_lake.convert.document_schemas import named_document_types
from telemetry_lake.drain.ledger import RowCount
from telemetry_lake.failures import ErrorType
from telemetry_lake.monitoring.exporter_metrics import CHANNELS, LABEL_SETS_MAX
from telemetry_lake.monitoring.metric import OTHER
from telemetry_lake.settings import ConversionSettings

BEGUN_WITH_MAX: int = LABEL_SETS_MAX // 2
"""So many label sets that can be foreseen may begin at 0, so that the first rows are an increase."""


@dataclass(frozen=True, slots=True)
class RowLabels:
    """Which namespaces and document types may be labels."""

    namespaces: frozenset[str]
    types: frozenset[tuple[str, str]]

    @classmethod
    def of(cls, settings: ConversionSettings) -> "RowLabels":
        """Return those that the schemas and the settings name. Raises ConfigurationError."""
        types = named_document_types(settings.schemas_directory, settings.further_schemas_directories)
        named = {namespace for namespace, _ in types}
        return cls(
            frozenset(named | settings.accept_unknown_types_of | settings.glean_namespaces), frozenset(types)
        )

    def of_kind(self, count: RowCount) -> tuple[str, str]:
        """Return the labels of the namespace and the document type of some rows."""
        namespace = count.namespace if count.namespace in self.namespaces else None
        kind = (count.namespace or "", count.document_type or "")
        return (namespace or OTHER, kind[1] if kind in self.types else OTHER)

    def kinds(self) -> list[tuple[str, str]]:
        """Return the labels that can be foreseen; the last are those of everything else."""
        unknown_types = [(namespace, OTHER) for namespace in sorted(self.namespaces)]
        return [*sorted(self.types), *unknown_types, (OTHER, OTHER)]


@dataclass(slots=True)
class RowCounter:
    """Rows by three labels of which the last is of a closed set; `/` joins them in `rows`."""

    last_labels: tuple[str, ...]
    rows: dict[str, int] = field(default_factory=dict)
    folded: int = 0
    """Rows under `other` because there are as many label sets as there may be."""

    def begin_with(self, kinds: Iterable[tuple[str, str]]) -> None:
        """Begin the label sets of these kinds at 0, if that leaves enough room; those of `other` always."""
        chosen = list(kinds)
        if len(chosen) * len(self.last_labels) > BEGUN_WITH_MAX:
            chosen = [(OTHER, OTHER)]
        for kind in chosen:
            for last in self.last_labels:
                self.rows.setdefault("/".join((*kind, last)), 0)

    def add(self, kind: tuple[str, str], last: str, rows: int) -> None:
        """Count rows."""
        key = "/".join((*kind, last))
        if key not in self.rows and len(self.rows) >= LABEL_SETS_MAX:
            key = "/".join((OTHER, OTHER, last))
            self.folded += rows
        self.rows[key] = self.rows.get(key, 0) + rows


def channel_label(channel: str | None) -> str:
    """Return the label of a normalized channel."""
    return channel if channel in CHANNELS else OTHER


def error_label(error_type: str) -> str:
    """Return the label of an error type; one that no longer exists is a failed conversion."""
    return error_type if error_type in set(ErrorType) else ErrorType.CONVERSION_FAILED
