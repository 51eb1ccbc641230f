"""Units of size, and ranges of submission dates."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Final, Self

KIB: Final = 1024
MIB: Final = 1024 * KIB
GIB: Final = 1024 * MIB

_DAYS_AGO: Final = {"today": 0, "yesterday": 1}


def dates_pattern(day: str) -> str:
    """Return the pattern of one day or two with `..` between them, where `day` is the pattern of one."""
    return rf"({day})(\.\.({day}))?"


ISO_DATE_PATTERN: Final = r"\d{4}-\d{2}-\d{2}"
DATES_PATTERN: Final = f"^{dates_pattern('|'.join((ISO_DATE_PATTERN, *_DAYS_AGO)))}$"
"""What `DateRange.parse` reads, for forms that check a text before it is sent."""


@dataclass(frozen=True, slots=True)
class DateRange:
    """All UTC dates from `first` to `last`, both included."""

    first: date
    last: date

    @classmethod
    def parse(cls, text: str, today: date) -> Self:
        """Read `A..B` or `A`, each an ISO date, `today` or `yesterday`; `today` is the date of now in UTC.

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
        """Return the same dates with this many days before them."""
        return DateRange(self.first - timedelta(days=days), self.last)

    def since_ever(self) -> "DateRange":
        """Return the same dates with all before them: no submission date is before 1970."""
        return DateRange(date(1970, 1, 1), self.last)

    def __str__(self) -> str:
        return f"{self.first}..{self.last}"


def _day(text: str, today: date) -> date:
    word = text.strip().lower()
    if word in _DAYS_AGO:
        return today - timedelta(days=_DAYS_AGO[word])
    try:
        return date.fromisoformat(word)
    except ValueError:
        raise ValueError(f"{text!r} is not a date: expected YYYY-MM-DD, today or yesterday") from None
