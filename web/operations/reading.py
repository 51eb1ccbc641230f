"""The text of `/metrics` as values, read over HTTP with limits."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Final

import httpx
from prometheus_client.parser import text_string_to_metric_families

from telemetry_lake.monitoring.exporter_metrics import PREFIX
from telemetry_lake.units import MIB

ANSWER_MAX_BYTES: Final = 8 * MIB
TIMEOUT_SECONDS: Final = 5


class Unreadable(Exception):
    """A program does not answer, or answers something else than was asked for; the text is for people."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One time series at one moment."""

    labels: Mapping[str, str]
    value: float

    def has(self, labels: Mapping[str, str]) -> bool:
        """Return whether its labels have these values."""
        return all(self.labels.get(name) == value for name, value in labels.items())


class Samples:
    """What a program showed at one moment, by the names of time series."""

    def __init__(self, by_name: Mapping[str, list[Sample]]) -> None:
        self._by_name = by_name

    @classmethod
    def of_text(cls, text: str) -> "Samples":
        """Return what the text of a `/metrics` says; raises Unreadable."""
        by_name: dict[str, list[Sample]] = {}
        try:
            for family in text_string_to_metric_families(text):
                for sample in family.samples:
                    if isfinite(sample.value):
                        by_name.setdefault(sample.name, []).append(Sample(sample.labels, sample.value))
        except (ValueError, KeyError, IndexError) as error:
            raise Unreadable(f"the answer is not the text of metrics: {str(error)[:200]}") from error
        if not any(name.startswith(PREFIX) for name in by_name):
            raise Unreadable(f"the answer has no metric whose name begins with {PREFIX}")
        return cls(by_name)

    @classmethod
    def together(cls, several: Mapping[str, "Samples"]) -> "Samples":
        """Return the samples of several programs; the label `instance` says which one each is from."""
        by_name: dict[str, list[Sample]] = {}
        for instance, samples in several.items():
            for name, found in samples._by_name.items():
                by_name.setdefault(name, []).extend(
                    Sample({**sample.labels, "instance": instance}, sample.value) for sample in found
                )
        return cls(by_name)

    def of(self, name: str, **labels: str) -> list[Sample]:
        """Return the time series of this name whose labels have these values."""
        return [sample for sample in self._by_name.get(name, ()) if sample.has(labels)]

    def rises_since(self, before: "Samples", name: str, labels: Mapping[str, str]) -> float | None:
        """Return by how much counters rose since an earlier reading; None when one of the two lacks them."""
        earlier = {_identity(sample): sample.value for sample in before.of(name, **labels)}
        now = self.of(name, **labels)
        if not now or not earlier:
            return None
        # A program that was started again counts from zero.
        rises = (
            (sample.value, sample.value - earlier.get(_identity(sample), sample.value)) for sample in now
        )
        return sum(rise if rise >= 0 else value for value, rise in rises)


def _identity(sample: Sample) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(sample.labels.items()))


def fetched(client: httpx.Client, url: str, parameters: Mapping[str, str] | None = None) -> bytes:
    """Return what is at a URL; raises Unreadable."""
    content = bytearray()
    try:
        with client.stream("GET", url, params=dict(parameters or {})) as answer:
            for chunk in answer.iter_bytes():
                content += chunk
                if len(content) > ANSWER_MAX_BYTES:
                    raise Unreadable(f"the answer has more than {ANSWER_MAX_BYTES:,} bytes")
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise Unreadable(
            f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        ) from error
    if answer.status_code != httpx.codes.OK:
        raise Unreadable(f"the answer is {answer.status_code}: {content[:200].decode(errors='replace')}")
    return bytes(content)
