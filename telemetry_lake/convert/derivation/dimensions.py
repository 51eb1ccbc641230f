"""The dimension document: which values a dimension may have.

`schemas/dimensions.json` has the form that Mozilla's first telemetry server used::

    {"version": 1, "dimensions": [
        {"field_name": "app_name", "allowed_values": ["Firefox", "Fennec"]},
        {"field_name": "app_version", "allowed_values": "*"},
        {"field_name": "app_build_id", "allowed_values": {"min": "20110101", "max": "2040"}}]}

`*` allows every safe value, a list the listed ones, `min` and `max` a range with its ends: of numbers
when they are numbers, of text in code point order when they are text. The submission date is the
server's own and the partition of the table, so its rule is always `*`. `derived` says what becomes of
values that are not allowed, not safe or absent.
"""

from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from telemetry_lake import columns
from telemetry_lake.failures import ConfigurationError

OTHER: Final = "OTHER"
UNKNOWN: Final = "UNKNOWN"
DIMENSION_MAX_CHARACTERS: Final = 100


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
        """Return whether `value` lies in the range; text that is not a number is outside a range of numbers.

        Map-reduce asks this of single values; `derived.dimension` says the same for a column.
        """
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
        """Return the rule of the dimension `field_name`."""
        return next(rule for rule in self.dimensions if rule.field_name == field_name)


def load_dimensions(file: Path) -> DimensionDocument:
    """Load the dimension document in `file`; raises ConfigurationError, which says what is wrong in it."""
    try:
        return DimensionDocument.model_validate_json(file.read_bytes())
    except (OSError, ValidationError) as error:
        raise ConfigurationError(f"the dimension document {file} cannot be used: {error}") from error
