"""What is derived from what was sent: each column as a Polars expression over a whole chunk of pings.

The expressions read columns as the pings sent them, null where a ping did not say: the dimensions, `os`,
`client_id`, and `submission_timestamp`. This module is the one place that says

- what a dimension is when a ping sent something else than the dimension document allows (`dimension`);
- the channel and the operating system that people group by (`normalized_channel`, `normalized_os`);
- the sample that a client belongs to (`sample_id`) and the day of a ping (`submission_date`);
- in which order rows lie in a file (`sorted_runs`).
"""

import zlib
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Final

import polars as pl

from telemetry_lake import columns
from telemetry_lake.convert.derivation.dimensions import (
    DIMENSION_MAX_CHARACTERS,
    OTHER,
    UNKNOWN,
    AllowedRange,
    DimensionDocument,
    DimensionRule,
)

OTHER_CHANNEL: Final = "Other"
OTHER_OS: Final = "Other"
SAMPLE_COUNT: Final = 100
DECIDED_MAX_VALUES: Final = 16_384
"""Number of different values of a dimension that are remembered with what became of them."""

SENT_COLUMNS: Final = (
    *(name for name in columns.DIMENSIONS if name != columns.SUBMISSION_DATE),
    columns.OS,
    columns.CLIENT_ID,
    columns.SUBMISSION_TIMESTAMP,
)
"""The columns that the expressions read."""

RUN_COLUMNS: Final = ("table", "rows")
"""What a run of rows is: the number of the table that they are in, and their numbers there."""

_SAFE: Final = rf"^[A-Za-z0-9][A-Za-z0-9 ._+@~:-]{{0,{DIMENSION_MAX_CHARACTERS - 1}}}$"
"""No slash, backslash, quote, percent or control character, and no dot in front: such a value may
stand in an object key, a partition or a file name without meaning anything there."""

_PARTNER_SUFFIX: Final = "-cck-"
"""A partner's build appends it and a name to the channel: `release-cck-partner`."""
_CHANNELS: Final = ("release", "esr", "beta", "aurora", "nightly")
_OS_BY_PREFIX: Final = {
    "windows": "Windows",
    "winnt": "Windows",
    "darwin": "Mac",
    "mac": "Mac",
    "os x": "Mac",
    "linux": "Linux",
    "gnu/linux": "Linux",
    "android": "Android",
    "ios": "iOS",
    "iphone": "iOS",
    "ipados": "iOS",
}


def derived_columns(dimensions: DimensionDocument) -> list[pl.Expr]:
    """Return every derived column of `live.pings`."""
    return [
        *(dimension(rule) for rule in dimensions.dimensions if rule.field_name in SENT_COLUMNS),
        normalized_channel(),
        normalized_os(),
        sample_id(),
        submission_date(),
    ]


def dimension(rule: DimensionRule) -> pl.Expr:
    """Return a dimension: what was sent, OTHER when that is not safe or not allowed.

    A value that was not sent is UNKNOWN before its rule is asked.
    """
    value = pl.col(rule.field_name).fill_null(UNKNOWN)
    allowed = value.str.contains(_SAFE)
    if isinstance(rule.allowed_values, AllowedRange):
        allowed &= _in_range(value, rule.allowed_values)
    elif rule.allowed_values != "*":
        allowed &= value.is_in(pl.Series(rule.allowed_values, dtype=pl.String).implode())
    return pl.when(allowed).then(value).otherwise(pl.lit(OTHER)).alias(rule.field_name)


def normalized_channel() -> pl.Expr:
    """Return `release`, `esr`, `beta`, `aurora`, `nightly` or `Other`."""
    sent = pl.col(columns.APP_UPDATE_CHANNEL)
    name = sent.str.to_lowercase().str.split(_PARTNER_SUFFIX).list.first()
    return (
        pl.when(name.is_in(_CHANNELS))
        .then(name)
        .otherwise(pl.lit(OTHER_CHANNEL))
        .alias(columns.NORMALIZED_CHANNEL)
    )


def normalized_os() -> pl.Expr:
    """Return `Windows`, `Mac`, `Linux`, `Android`, `iOS` or `Other`, by how the name begins."""
    prefix = pl.col(columns.OS).str.to_lowercase().str.extract(f"^({'|'.join(_OS_BY_PREFIX)})")
    return prefix.replace_strict(_OS_BY_PREFIX, default=OTHER_OS).alias(columns.NORMALIZED_OS)


def sample_id() -> pl.Expr:
    """Return crc32 of the lower-case client id modulo 100: always the same for a client; null without one."""
    return (
        pl.col(columns.CLIENT_ID)
        .map_batches(_crc32_modulo, return_dtype=pl.Int32, is_elementwise=True)
        .alias(columns.SAMPLE_ID)
    )


def submission_date() -> pl.Expr:
    """Return the day of the submission in UTC."""
    return pl.col(columns.SUBMISSION_TIMESTAMP).dt.date().alias(columns.SUBMISSION_DATE)


def decisions(dimensions: DimensionDocument) -> dict[str, Callable[[str], str]]:
    """Return for each dimension a function that says what its column will hold of one value.

    The few values that most pings share are looked up; a new one is decided by the expression.
    """
    return {rule.field_name: _decision(rule) for rule in dimensions.dimensions}


def sorted_runs(keys: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """Return in which order the rows of several tables lie in files.

    `keys` has for each table the columns that its rows are sorted by. A run is all rows of a table that have
    the same values there: it has those columns and `RUN_COLUMNS`. Nulls come first; tables and rows that have
    the same values keep their order.
    """
    order = keys[0].columns
    table, rows = RUN_COLUMNS
    numbered = pl.concat(
        [
            key.with_row_index(rows).with_columns(pl.lit(number).alias(table))
            for number, key in enumerate(keys)
        ]
    )
    runs = numbered.group_by(*order, table, maintain_order=True).agg(rows)
    return runs.sort(order, nulls_last=False, maintain_order=True)


def _in_range(value: pl.Expr, allowed: AllowedRange) -> pl.Expr:
    if isinstance(allowed.min, str) or isinstance(allowed.max, str):
        low, high = allowed.min, allowed.max
    else:
        low, high = allowed.min, allowed.max
        value = _number(value)
    inside = value.is_not_null()
    if low is not None:
        inside &= value >= pl.lit(low)
    if high is not None:
        inside &= value <= pl.lit(high)
    return inside


def _number(text: pl.Expr) -> pl.Expr:
    """Return the number that a text is, null for other text and for `nan`.

    As in Python, blanks may stand around it and underscores between its digits.
    """
    digits = text.str.strip_chars(" ")
    # A digit between two underscores belongs to both, and one pass sees it once.
    for _ in range(2):
        digits = digits.str.replace_all("([0-9])_([0-9])", "${1}${2}")
    return digits.cast(pl.Float64, strict=False).fill_nan(None)


def _crc32_modulo(client_ids: pl.Series) -> pl.Series:
    """Return the sample of each client. Polars has no crc32, and zlib has no columns."""
    if client_ids.null_count() == len(client_ids):
        return pl.Series(client_ids.name, [None], pl.Int32).new_from_index(0, len(client_ids))
    return pl.Series(
        client_ids.name,
        [None if text is None else zlib.crc32(text.lower().encode()) % SAMPLE_COUNT for text in client_ids],
        pl.Int32,
    )


def _decision(rule: DimensionRule) -> Callable[[str], str]:
    expression = dimension(rule)

    @lru_cache(maxsize=DECIDED_MAX_VALUES)
    def decided(value: str) -> str:
        return str(pl.select(pl.lit(value).alias(rule.field_name)).select(expression).item())

    return decided
