"""The rules of a filter document: which values of which columns are let through.

The filter document is the original's dimension schema::

    {"version": 1, "dimensions": [
        {"field_name": "reason", "allowed_values": ["saved-session"]},
        {"field_name": "appName", "allowed_values": "Firefox"},
        {"field_name": "appVersion", "allowed_values": "*"},
        {"field_name": "appBuildID", "allowed_values": {"min": "20130600"}},
        {"field_name": "submission_date", "allowed_values": {"min": "20131101", "max": "20131107"}}]}

Fields have their original names or those of their columns, may come in any order, and those that are left out
allow everything. Besides the six dimensions every other column of text can be filtered on. Text is compared
by code point, so `"min": "20130600"` means what it meant; ends that are numbers compare as numbers.
Submission dates are compared in the form YYYYMMDD.
"""

import re
from collections.abc import Iterable
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from telemetry_lake import columns
from telemetry_lake.convert.derivation.dimensions import AllowedRange
from telemetry_lake.failures import FatalError
from telemetry_lake.tables.definitions import TableDefinition

FILTER_MAX_BYTES: Final = 1024 * 1024
_TARGET_DATE: Final = re.compile(rb'\[\s*"__TARGET_DATE__"\s*\]|"?__TARGET_DATE__"?')
"""As templates have it: in a list, or alone, where both list and quotes were put in with the date."""

ORIGINAL_NAMES: Final = {
    "appName": columns.APP_NAME,
    "appUpdateChannel": columns.APP_UPDATE_CHANNEL,
    "appVersion": columns.APP_VERSION,
    "appBuildID": columns.APP_BUILD_ID,
    "submissionDate": columns.SUBMISSION_DATE,
}
"""The names of dimensions in filter documents of Mozilla's first server, and the columns."""


class FilterRule(BaseModel):
    """One field and the values that are let through."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    field_name: str
    allowed_values: Annotated[str | tuple[str, ...] | AllowedRange, Field(union_mode="left_to_right")]

    @property
    def column(self) -> str:
        """The column that the rule is about."""
        return ORIGINAL_NAMES.get(self.field_name, self.field_name)

    @property
    def lets_everything_through(self) -> bool:
        """Whether the rule need not be asked."""
        return self.allowed_values == "*"

    def allows(self, value: str | None) -> bool:
        """Return whether a row with this value is let through; a row without a value is only by `*`."""
        allowed = self.allowed_values
        if allowed == "*":
            return True
        if value is None:
            return False
        if isinstance(allowed, AllowedRange):
            return allowed.allows(value)
        return value == allowed if isinstance(allowed, str) else value in allowed

    def may_allow(self, low: str, high: str) -> bool:
        """Whether some value from `low` to `high` could be let through."""
        allowed = self.allowed_values
        if isinstance(allowed, AllowedRange):
            return (not isinstance(allowed.min, str) or allowed.min <= high) and (
                not isinstance(allowed.max, str) or low <= allowed.max
            )
        values = (allowed,) if isinstance(allowed, str) else allowed
        return allowed == "*" or any(low <= value <= high for value in values)


class FilterDocument(BaseModel):
    """All rules of a filter."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    dimensions: tuple[FilterRule, ...]


def rows_let_through(rules: Iterable[FilterRule], batch: pa.RecordBatch) -> NDArray[np.bool_] | None:
    """Return which rows of a batch all rules let through, as booleans; None when nothing is ruled out."""
    wanted: NDArray[np.bool_] | None = None
    for rule in rules:
        if rule.lets_everything_through:
            continue
        column: Any = batch.column(rule.column)
        if not pa.types.is_dictionary(column.type):
            column = column.dictionary_encode()
        # The last place is for rows without a value.
        allowed = np.array(
            [
                *(rule.allows(as_text(value)) for value in column.dictionary.to_pylist()),
                rule.allows(None),
            ]
        )
        codes = column.indices.fill_null(len(allowed) - 1).to_numpy(zero_copy_only=False)
        wanted = allowed[codes] if wanted is None else wanted & allowed[codes]
    return wanted


def load_filter(path: Path, table: TableDefinition, *, has_dates: bool) -> tuple[FilterRule, ...]:
    """Return the rules of the filter document in the file `path`; see `read_filter`."""
    try:
        with path.open("rb") as file:
            text = file.read(FILTER_MAX_BYTES + 1)
    except OSError as error:
        raise FatalError(f"the filter {path} cannot be read: {error}") from error
    return read_filter(text, table, has_dates=has_dates, name=str(path))


def read_filter(text: bytes, table: TableDefinition, *, has_dates: bool, name: str) -> tuple[FilterRule, ...]:
    """Return the rules of a filter document, with submission dates as YYYYMMDD; messages call it `name`.

    The document may be a template of the original, in which `__TARGET_DATE__` stood for the day of a run: the
    dates of the run take its place, so it needs some (`has_dates`). Raises FatalError, which says what is
    wrong in it and what is possible.
    """
    if len(text) > FILTER_MAX_BYTES:
        raise FatalError(f"the filter {name} has more than {FILTER_MAX_BYTES:,} bytes")
    if _TARGET_DATE.search(text):
        if not has_dates:
            raise FatalError(
                f"the filter {name} is a template, which says __TARGET_DATE__: give the run dates, which "
                "take its place"
            )
        text = _TARGET_DATE.sub(b'"*"', text)
    try:
        document = FilterDocument.model_validate_json(text)
    except ValidationError as error:
        # For a value that could have been text, a list or a range, the last error is about the range.
        last = error.errors(include_url=False)[-1]
        place = ".".join(str(part) for part in last["loc"])
        raise FatalError(f"the filter {name} cannot be used: {place or 'it'}: {last['msg']}") from error
    possible = [
        column.name
        for column in table.columns
        if column.type == "string" or column.name == columns.SUBMISSION_DATE
    ]
    for rule in document.dimensions:
        if rule.column not in possible:
            raise FatalError(
                f"the filter {name} names {rule.field_name!r}; possible are {', '.join(ORIGINAL_NAMES)} "
                f"and the columns {', '.join(possible)}"
            )
    return tuple(_with_dates_as_then(rule) for rule in document.dimensions)


def _with_dates_as_then(rule: FilterRule) -> FilterRule:
    """Return the rule with dates as YYYYMMDD: 2013-11-01 becomes 20131101."""
    if rule.column != columns.SUBMISSION_DATE:
        return rule
    allowed = rule.allowed_values
    if isinstance(allowed, AllowedRange):
        ends = {name: _without_dashes(getattr(allowed, name)) for name in ("min", "max")}
        return rule.model_copy(update={"allowed_values": AllowedRange(**ends)})
    if isinstance(allowed, str):
        return rule.model_copy(update={"allowed_values": _without_dashes(allowed)})
    return rule.model_copy(update={"allowed_values": tuple(map(_without_dashes, allowed))})


def _without_dashes(value: Any) -> Any:
    return value.replace("-", "") if isinstance(value, str) else value


def as_text(value: Any) -> str:
    """Return a value as rules compare it."""
    return value.strftime("%Y%m%d") if isinstance(value, date) else value
