"""The fields of a form in which a filter is written, and the filter document that they stand for.

A field is about one column and says which values are let through: `release, beta`, or a range with one end or
two, `20260101..`; empty lets everything through. What a document says beyond that has no form.
"""

import json
from collections.abc import Mapping
from typing import Any, Final

from pydantic import ValidationError

from telemetry_lake import columns
from telemetry_lake.convert.derivation.dimensions import AllowedRange
from telemetry_lake.mapreduce.reading.filter_rules import ORIGINAL_NAMES, FilterDocument, FilterRule

FILTER_COLUMNS: Final[Mapping[str, str]] = {
    columns.DOCUMENT_TYPE: "Document type",
    columns.APP_NAME: "Application",
    columns.APP_UPDATE_CHANNEL: "Channel",
    columns.APP_VERSION: "Version",
    columns.APP_BUILD_ID: "Build id",
    columns.NORMALIZED_OS: "System",
    columns.COUNTRY: "Country",
    columns.REASON: "Reason",
}
"""The columns that have a field, and what a page calls them."""
FIELD_MAX_CHARACTERS: Final = 2_000
_RANGE: Final = ".."


def rule_of_field(column: str, text: str) -> FilterRule | None:
    """Return the rule that a field stands for; None when it lets everything through."""
    values = tuple(value for part in text.split(",") if (value := part.strip()))
    if not values or values == ("*",):
        return None
    if len(values) == 1 and _RANGE in values[0]:
        low, _, high = (part.strip() for part in values[0].partition(_RANGE))
        ends = {name: end for name, end in (("min", low), ("max", high)) if end}
        return FilterRule(field_name=column, allowed_values=AllowedRange(**ends)) if ends else None
    return FilterRule(field_name=column, allowed_values=values)


def document_of_fields(fields: Mapping[str, str]) -> str:
    """Return the filter document for fields by their columns, as JSON; empty when nothing is ruled out."""
    rules = [rule for column, text in fields.items() if (rule := rule_of_field(column, text)) is not None]
    if not rules:
        return ""
    dimensions = [rule.model_dump(exclude_none=True) for rule in rules]
    return json.dumps({"version": 1, "dimensions": dimensions}, ensure_ascii=False)


def fields_of_document(document: str) -> dict[str, str] | None:
    """Return the fields that stand for a filter document; None when they cannot say what it says."""
    if not document.strip():
        return {}
    try:
        rules = FilterDocument.model_validate_json(document).dimensions
    except ValidationError:
        return None
    fields: dict[str, str] = {}
    for rule in rules:
        column = ORIGINAL_NAMES.get(rule.field_name, rule.field_name)
        text = _text_of(rule.allowed_values)
        if text is None or column not in FILTER_COLUMNS or column in fields:
            return None
        said = rule_of_field(column, text)
        if len(text) > FIELD_MAX_CHARACTERS or not _says_the_same(said, rule):
            return None
        fields[column] = text
    return {column: text for column, text in fields.items() if text}


def with_value(text: str, value: str) -> str:
    """Return a field with a value added, or taken out if it is there."""
    values = [each for part in text.split(",") if (each := part.strip()) and _RANGE not in each]
    return ", ".join([each for each in values if each != value] if value in values else [*values, value])


def _says_the_same(said: FilterRule | None, rule: FilterRule) -> bool:
    allowed = rule.allowed_values
    if said is None or rule.lets_everything_through:
        return said is None and rule.lets_everything_through
    return said.allowed_values == ((allowed,) if isinstance(allowed, str) else allowed)


def _text_of(allowed: Any) -> str | None:
    if isinstance(allowed, AllowedRange):
        ends = ["" if end is None else end for end in (allowed.min, allowed.max)]
        said = [end for end in ends if isinstance(end, str)]
        return _RANGE.join(said) if len(said) == len(ends) else None
    if allowed == "*":
        return ""
    return ", ".join((allowed,) if isinstance(allowed, str) else allowed)
