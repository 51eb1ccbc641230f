"""Ranges of dates as people type them."""

from datetime import date

import pytest

from telemetry_lake.units import DateRange

TODAY = date(2026, 3, 1)
YESTERDAY = date(2026, 2, 28)


@pytest.mark.parametrize(
    "text, first, last",
    [
        ("yesterday..today", YESTERDAY, TODAY),
        ("today", TODAY, TODAY),
        ("2025-12-31..2026-01-01", date(2025, 12, 31), date(2026, 1, 1)),
        (" 2024-02-29 .. Today ", date(2024, 2, 29), TODAY),
        ("2026-01-01", date(2026, 1, 1), date(2026, 1, 1)),
    ],
)
def test_a_range_is_read(text: str, first: date, last: date):
    assert DateRange.parse(text, TODAY) == DateRange(first, last)


@pytest.mark.parametrize("text", ["2025-12-31..2026-01-01", "2026-01-01..2026-01-01"])
def test_a_range_is_written_as_it_is_read(text: str):
    assert str(DateRange.parse(text, TODAY)) == text


@pytest.mark.parametrize(
    "text, says",
    [
        ("", "'' is not a date"),
        ("tomorrow", "'tomorrow' is not a date: expected YYYY-MM-DD, today or yesterday"),
        ("2026-02-30", "'2026-02-30' is not a date"),
        ("today..yesterday", "2026-02-28 is before 2026-03-01"),
        ("2026-01-01..", "'' is not a date"),
        ("2026-01-01..2026-01-02..2026-01-03", "'2026-01-02..2026-01-03' is not a date"),
    ],
)
def test_what_is_wrong_with_a_range_is_said(text: str, says: str):
    with pytest.raises(ValueError, match=says.replace("..", r"\.\.")):
        DateRange.parse(text, TODAY)
