"""The order of application versions: 9.0 before 10.0a1 before 10.0b2 before 10.0 before 10.0.1."""

import re
from dataclasses import dataclass
from typing import Final

VERSION_MAX_CHARACTERS: Final = 40
_VERSION: Final = re.compile(r"\d{1,9}(?:\.\d{1,9}){0,3}(?:[ab]\d{0,9})?(?:esr|pre)?", re.ASCII)
_PART: Final = re.compile(r"(\d+)(?:([ab])(\d*))?")
_RELEASED: Final = 2

VersionKey = tuple[tuple[int, int, int], ...]


def version_key(version: str) -> VersionKey | None:
    """Return what versions sort by, or None when the text is not a version (`OTHER`)."""
    if len(version) > VERSION_MAX_CHARACTERS or _VERSION.fullmatch(version) is None:
        return None
    return tuple(
        (int(number), " ab".index(letter) - 1 if letter else _RELEASED, int(count or 0))
        for number, letter, count in _PART.findall(version)
    )


def sorted_versions(versions: "set[str] | list[str]") -> list[str]:
    """Return the versions from the lowest to the highest; texts that are not versions come first."""
    return sorted(versions, key=lambda version: (version_key(version) or (), version))


def major_of(version: str) -> str:
    """Return the part of a version before the first dot; a text that is not a version is returned whole."""
    return version.partition(".")[0] if version_key(version) is not None else version


@dataclass(frozen=True, slots=True)
class VersionRange:
    """Versions from `first` to `last`, both included; `118` includes every version that begins with 118."""

    first: str
    last: str

    def __contains__(self, version: str) -> bool:
        key = version_key(version)
        if key is None:
            return version in (self.first, self.last)
        return self._compare(key, self.first) >= 0 >= self._compare(key, self.last)

    @staticmethod
    def _compare(key: VersionKey, bound: str) -> int:
        limit = version_key(bound)
        if limit is None:
            return 1  # OTHER is below all versions
        if len(limit) == 1 and limit[0][1] == _RELEASED:
            # The whole family: 118 is 118.0a1 up to 118.9.
            return (key[0][0] > limit[0][0]) - (key[0][0] < limit[0][0])
        return (key > limit) - (key < limit)

    def __str__(self) -> str:
        return self.first if self.first == self.last else f"{self.first}..{self.last}"
