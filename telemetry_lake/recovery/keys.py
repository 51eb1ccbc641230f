"""Keys that a command has to tell about: all are counted, and only the first are kept."""

from dataclasses import dataclass, field
from typing import Final

KEYS_SHOWN_MAX: Final = 20
"""A year of raw objects is millions of keys, and nobody reads more than the first."""


@dataclass(slots=True)
class Keys:
    """How many keys, and the first of them."""

    count: int = 0
    first: list[str] = field(default_factory=list)

    def add(self, key: str) -> None:
        """Count a key, or a line about one."""
        self.count += 1
        if len(self.first) < KEYS_SHOWN_MAX:
            self.first.append(key)

    def extend(self, other: "Keys") -> None:
        """Add the keys that were counted elsewhere."""
        self.count += other.count
        self.first += other.first[: KEYS_SHOWN_MAX - len(self.first)]

    def lines(self) -> str:
        """Return the first keys, one a line, and how many more there are."""
        more = self.count - len(self.first)
        return "\n".join([*self.first, *([f"and {more:,} more"] if more else [])])
