"""Conditions on rows of an Iceberg table, in the one form that pyiceberg's types allow."""

from collections.abc import Collection, Sequence

from pyiceberg.expressions import (
    AlwaysFalse,
    AlwaysTrue,
    And,
    BooleanExpression,
    EqualTo,
    GreaterThanOrEqual,
    In,
    LessThanOrEqual,
    Or,
    Reference,
    StartsWith,
)
from pyiceberg.expressions.literals import literal

Value = str | int


def equal_to(column: str, value: Value) -> BooleanExpression:
    """The column has this value; dates are given in ISO 8601."""
    return EqualTo(term=Reference(column), value=literal(value))


def at_least(column: str, value: Value) -> BooleanExpression:
    """The column has this value or a larger one."""
    return GreaterThanOrEqual(term=Reference(column), value=literal(value))


def at_most(column: str, value: Value) -> BooleanExpression:
    """The column has this value or a smaller one."""
    return LessThanOrEqual(term=Reference(column), value=literal(value))


def one_of(column: str, values: Collection[Value]) -> BooleanExpression:
    """The column has one of these values."""
    return In(term=Reference(column), literals=set(values))


def starts_with(column: str, prefix: str) -> BooleanExpression:
    """The column's text starts with `prefix`."""
    return StartsWith(term=Reference(column), value=literal(prefix))


def all_of(conditions: Sequence[BooleanExpression]) -> BooleanExpression:
    """Every condition holds; true without any."""
    return And(AlwaysTrue(), AlwaysTrue(), *conditions)


def any_of(conditions: Sequence[BooleanExpression]) -> BooleanExpression:
    """One condition holds; false without any."""
    return Or(AlwaysFalse(), AlwaysFalse(), *conditions)
