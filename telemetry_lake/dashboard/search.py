"""Finding metrics by what people type: parts of names, words of descriptions, and both misspelt."""

from collections.abc import Iterable, Sequence
from typing import Final

from rapidfuzz import fuzz, process, utils
from rapidfuzz.distance import DamerauLevenshtein

from telemetry_lake.dashboard.cubes import Metric

QUERY_MAX_CHARACTERS: Final = 100
_PART_WEIGHT: Final = 0.9
_DESCRIPTION_WEIGHT: Final = 0.85
_MIN_SCORE: Final = 65.0
_SUGGESTION_MIN_SCORE: Final = 70.0


class MetricIndex:
    """The metrics of one version of the cubes, to be searched."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = sorted(metrics, key=lambda metric: (-metric.pings, metric.name))
        self._names = [_words(metric.name) for metric in self._metrics]
        self._compact = [name.replace(" ", "") for name in self._names]
        self._descriptions = [_words(metric.description) for metric in self._metrics]

    def __len__(self) -> int:
        return len(self._metrics)

    def search(self, query: str, *, limit: int) -> list[Metric]:
        """Return at most `limit` metrics, the best first; without a query those with most pings."""
        wanted = _words(query[:QUERY_MAX_CHARACTERS])
        if not wanted:
            return self._metrics[:limit]
        scores = self._scores(wanted)
        order = sorted(range(len(scores)), key=lambda number: (-scores[number], number))
        return [self._metrics[number] for number in order[:limit] if scores[number] >= _MIN_SCORE]

    def similar(self, name: str, *, limit: int) -> list[str]:
        """Return the names of metrics that are spelt like `name`, the most alike first."""
        wanted = _words(name[:QUERY_MAX_CHARACTERS])
        found = process.extract(
            wanted, self._names, scorer=fuzz.ratio, limit=limit, score_cutoff=_SUGGESTION_MIN_SCORE
        )
        return [self._metrics[number].name for _, _, number in found]

    def _scores(self, wanted: str) -> Sequence[float]:
        """Return how well each metric fits, about 0 to 160.

        Whole names are compared with typing errors in mind (two letters swapped are one error), parts of
        names and descriptions count a little less.
        """
        compact = wanted.replace(" ", "")
        whole = process.cdist([compact], self._compact, scorer=DamerauLevenshtein.normalized_similarity)[0]
        part = process.cdist([compact], self._compact, scorer=fuzz.partial_ratio)[0]
        words = process.cdist([wanted], self._descriptions, scorer=fuzz.token_set_ratio)[0]
        text = process.cdist([wanted], self._descriptions, scorer=fuzz.partial_ratio)[0]
        return [
            max(
                110.0 * float(scores[0]),
                float(scores[1]) * _PART_WEIGHT,
                float(scores[2]) * _DESCRIPTION_WEIGHT,
                float(scores[3]) * _DESCRIPTION_WEIGHT,
            )
            + _bonus(compact, name)
            for *scores, name in zip(whole, part, words, text, self._compact, strict=True)
        ]


def _bonus(compact: str, name: str) -> float:
    """Put exact names before their beginnings, and these before what only looks alike."""
    if name == compact:
        return 60.0
    if name.startswith(compact):
        return 40.0
    return 25.0 if compact in name else 0.0


def _words(text: str) -> str:
    return " ".join(utils.default_process(text.replace("_", " ").replace(".", " ")).split())
