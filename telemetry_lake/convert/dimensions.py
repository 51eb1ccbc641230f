"""The dimension document: which values a dimension may have; any other becomes OTHER.

`schemas/dimensions.json` has the form that Mozilla's first telemetry server used::

    {"version": 1, "dimensions": [
        {"field_name": "app_name", "allowed_values": ["Firefox", "Fennec"]},
        {"field_name": "app_version", "allowed_values": "*"},
        {"field_name": "app_build_id", "allowed_values": {"min": "20110101", "max": "2040"}}]}

`*` allows every safe value, a list the listed ones, `min` and `max` a range with its ends: of numbers
when they are numbers, of text in code point order when they are text. A value that is absent is
`UNKNOWN` before its rule is asked. The submission date is the server's own and the partition of the
table, so its rule is always `*`.
"""

import re
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from telemetry_lake import columns
from telemetry_lake.failures import ConfigurationError

OTHER: Final = "OTHER"
UNKNOWN: Final = "UNKNOWN"
DIMENSION_MAX_CHARACTERS: Final = 100
DECIDED_MAX_VALUES: Final = 16_384
"""So many different values of a dimension are remembered with what became of them."""

_SAFE: Final = re.compile(rf"[A-Za-z0-9][A-Za-z0-9 ._+@~:-]{{0,{DIMENSION_MAX_CHARACTERS - 1}}}")
"""No slash, backslash, quote, percent or control character, and no dot in front: such a value may
stand in an object key, a partition or a file name without meaning anything there."""


class AllowedRange(BaseModel):
    """A range with its ends, of numbers or of text; at least one end is given."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    min: int | float | str | None = None
    max: int | float | str | None = None

    @model_validator(mode="after")
    def _ends_fit(self) -> Self:
        ends = [end for end in (self.min, self.max) if end is not None]
        if not ends:
            raise ValueError("a range has a `min`, a `max` or both")
        if len({isinstance(end, str) for end in ends}) > 1:
            raise ValueError("`min` and `max` are both numbers or both text")
        return self

    def allows(self, value: str) -> bool:
        """Whether `value` lies in the range; text that is no number lies in no range of numbers."""
        if isinstance(self.min, str) or isinstance(self.max, str):
            low, high = str(self.min or ""), self.max
            return low <= value and (high is None or value <= str(high))
        try:
            number = float(value)
        except ValueError:
            return False
        return (self.min is None or self.min <= number) and (self.max is None or number <= self.max)


class DimensionRule(BaseModel):
    """One dimension and the values it may have."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    field_name: str
    allowed_values: Literal["*"] | tuple[str, ...] | AllowedRange

    def allows(self, value: str) -> bool:
        """Whether `value` is one of the allowed ones, and safe."""
        if _SAFE.fullmatch(value) is None:
            return False
        if isinstance(self.allowed_values, AllowedRange):
            return self.allowed_values.allows(value)
        return self.allowed_values == "*" or value in self.allowed_values


class DimensionDocument(BaseModel):
    """All dimensions, in their order."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1]
    dimensions: Annotated[tuple[DimensionRule, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _names_are_the_tables(self) -> Self:
        names = tuple(rule.field_name for rule in self.dimensions)
        if sorted(names) != sorted(columns.DIMENSIONS):
            raise ValueError(f"there must be {', '.join(columns.DIMENSIONS)}, each once; found {names}")
        if self.rule(columns.SUBMISSION_DATE).allowed_values != "*":
            raise ValueError("submission_date is the partition of the table: its allowed_values must be *")
        return self

    def rule(self, field_name: str) -> DimensionRule:
        """The rule of the dimension `field_name`."""
        return next(rule for rule in self.dimensions if rule.field_name == field_name)


def load_dimensions(file: Path) -> DimensionDocument:
    """The dimension document in `file`; raises ConfigurationError, which says what is wrong in it."""
    try:
        return DimensionDocument.model_validate_json(file.read_bytes())
    except (OSError, ValidationError) as error:
        raise ConfigurationError(f"the dimension document {file} cannot be used: {error}") from error


def dimension_values(document: DimensionDocument, field_name: str) -> Callable[[str | None], str]:
    """The function that turns what a ping says into the value of the dimension `field_name`."""
    rule = document.rule(field_name)

    @lru_cache(maxsize=DECIDED_MAX_VALUES)
    def decided(value: str | None) -> str:
        said = UNKNOWN if value is None else value
        return said if rule.allows(said) else OTHER

    return decided
