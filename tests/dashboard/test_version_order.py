"""Versions are sorted and chosen as versions, not as text."""

import random

import pytest

from telemetry_lake.dashboard.version_order import VersionRange, major_of, sorted_versions, version_key

ORDER = ["9.0", "10.0a1", "10.0b2", "10.0b10", "10.0", "10.0.1", "99.0", "100.0a1", "100.0", "115.9.1esr"]


def test_versions_are_sorted_by_their_numbers_and_stages() -> None:
    shuffled = [*ORDER, "OTHER"]
    random.Random(1).shuffle(shuffled)
    assert sorted_versions(shuffled) == ["OTHER", *ORDER]


@pytest.mark.parametrize(
    "first,last,chosen",
    [
        ("10", "10", ["10.0a1", "10.0b2", "10.0b10", "10.0", "10.0.1"]),
        ("10", "99", ["10.0a1", "10.0b2", "10.0b10", "10.0", "10.0.1", "99.0"]),
        ("10.0", "10.0", ["10.0"]),
        ("10.0b10", "100.0a1", ["10.0b10", "10.0", "10.0.1", "99.0", "100.0a1"]),
        ("OTHER", "OTHER", ["OTHER"]),
    ],
)
def test_a_range_has_whole_families_and_single_versions(first: str, last: str, chosen: list[str]) -> None:
    assert [version for version in ["OTHER", *ORDER] if version in VersionRange(first, last)] == chosen


@pytest.mark.parametrize(
    "text", ["", "..", "../", "1" * 50, "10..0", "10.0x", "abc", "1.2.3.4.5", "\u0661\u0660"]
)
def test_what_is_not_a_version_has_no_place(text: str) -> None:
    assert version_key(text) is None


def test_the_family_of_a_version() -> None:
    assert [major_of(version) for version in ("115.9.1esr", "120.0a1", "OTHER")] == ["115", "120", "OTHER"]
