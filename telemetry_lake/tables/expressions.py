"""Conditions on rows of an Iceberg table, in the one form that pyiceberg's types allow."""

from collections.abc import Collection, Sequence

from pyiceberg.expressions import (
    AlwaysTrue,
    And,
    BooleanExpression,
    EqualTo,
    GreaterThanOrEqual,
    In,
    LessThanOrEqual,
    Reference,
    StartsWith,
)
from pyiceberg.expressions.literals import literal

Value = str | int


def equal_to(column: str, value: Value) -> BooleanExpression:
    """Return the condition that the column has this value; dates are given in ISO 8601."""
    return EqualTo(term=Reference(column), value=literal(value))


def at_least(column: str, value: Value) -> BooleanExpression:
    """Return the condition that the column has this value or a larger one."""
    return GreaterThanOrEqual(term=Reference(column), value=literal(value))


def at_most(column: str, value: Value) -> BooleanExpression:
    """Return the condition that the column has this value or a smaller one."""
    return LessThanOrEqual(term=Reference(column), value=literal(value))


def one_of(column: str, values: Collection[Value]) -> BooleanExpression:
    """Return the condition that the column has one of these values."""
    return In(term=Reference(column), literals=set(values))


def starts_with(column: str, prefix: str) -> BooleanExpression:
    """Return the condition that the column's text starts with `prefix`."""
    return StartsWith(term=Reference(column), value=literal(prefix))


def all_of(conditions: Sequence[BooleanExpression]) -> BooleanExpression:
    """Return the condition that every one of `conditions` holds; true without any."""
    return And(AlwaysTrue(), AlwaysTrue(), *conditions)
