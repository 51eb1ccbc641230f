"""Ranges of submission dates, as jobs take them: `2026-11-01..2026-11-07`, `yesterday..today`, `today`."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Final, Self

_DAYS_AGO: Final = {"today": 0, "yesterday": 1}


@dataclass(frozen=True, slots=True)
class DateRange:
    """All UTC dates from `first` to `last`, both included."""

    first: date
    last: date

    @classmethod
    def parse(cls, text: str, today: date) -> Self:
        """Read `A..B` or `A`, each an ISO date, `today` or `yesterday`.

        Raises ValueError, whose message says what is wrong and what is possible.
        """
        first, dots, last = text.strip().partition("..")
        parsed = cls(_day(first, today), _day(last if dots else first, today))
        if parsed.last < parsed.first:
            raise ValueError(f"{parsed.last} is before {parsed.first}: a range is <first>..<last>")
        return parsed

    def __iter__(self) -> Iterator[date]:
        return (self.first + timedelta(days=number) for number in range((self.last - self.first).days + 1))

    def reaching_back(self, days: int) -> "DateRange":
        """The same dates and so many days before them."""
        return DateRange(self.first - timedelta(days=days), self.last)

    def __str__(self) -> str:
        return f"{self.first}..{self.last}"


def _day(text: str, today: date) -> date:
    word = text.strip().lower()
    if word in _DAYS_AGO:
        return today - timedelta(days=_DAYS_AGO[word])
    try:
        return date.fromisoformat(word)
    except ValueError:
        raise ValueError(f"{text!r} is no date: expected YYYY-MM-DD, today or yesterday") from None
