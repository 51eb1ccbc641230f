"""Lists of whole numbers as text: `0,14,20`, in base ten; a list without numbers is null.

The buckets and counts of a ping's histograms are 5,200 numbers. As nested lists they would cost more than
twice what they cost as text, because Parquet notes for each number in which list it is; and every SQL dialect
can split a text. `compiled_lists` reads many at once.
"""

from collections.abc import Iterable


def list_text(numbers: Iterable[int]) -> str | None:
    """Return the text of a list, None when it is empty."""
    return ",".join(map(str, numbers)) or None


def list_numbers(text: str | None) -> list[int]:
    """Return the list of a text. Raises ValueError when it is not one."""
    return [int(number) for number in text.split(",")] if text else []
