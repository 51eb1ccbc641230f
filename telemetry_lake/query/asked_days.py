"""Which days of a table a query can need, so that the files of all others are not even listed.

DuckDB applies conditions on partitions to names of files, and is told all of them for that. A table of a year
has hundreds of thousands, which took minutes to read from its manifests. So the conditions on the day are
taken from the query's own syntax tree, and DuckDB is asked for which days they hold. Whatever is not
understood for certain counts as no condition.
"""

import json
from collections.abc import Collection, Iterator, Mapping
from datetime import date
from typing import Any, Final

import duckdb

from telemetry_lake.columns import SUBMISSION_DATE

_COMPARISONS: Final = frozenset(
    f"COMPARE_{name}"
    for name in (
        *("EQUAL", "NOTEQUAL", "LESSTHAN", "GREATERTHAN", "LESSTHANOREQUALTO", "GREATERTHANOREQUALTO"),
        *("BETWEEN", "IN", "NOT_IN"),
    )
)
"""None of them holds for a null."""
_CONJUNCTIONS: Final = frozenset({"CONJUNCTION_AND", "CONJUNCTION_OR"})
_VALUES: Final = frozenset({"VALUE_CONSTANT", "OPERATOR_CAST"})
_FUNCTIONS: Final = frozenset({"+", "-", "today", "to_days"})
_TODAY: Final = ["current_date"]
"""A name without parentheses, which DuckDB's parser takes for a column."""

Node = dict[str, Any]


def asked_days(
    connection: duckdb.DuckDBPyConnection, query: str, table: str, first: date, last: date
) -> frozenset[date] | None:
    """Return those days from `first` to `last` of which `query` may need rows of `table`.

    None when there is no condition on the day that is understood for certain.
    """
    try:
        tree = _one_value(connection, "SELECT json_serialize_sql(?)", query)
        if tree.get("error"):
            return None
        conditions = _conditions(tree, table)
        if not conditions:
            return None
        days = (
            f"SELECT {SUBMISSION_DATE} FROM (SELECT CAST(unnest(generate_series("  # noqa: S608  (dates)
            f"DATE '{first}', DATE '{last}', INTERVAL 1 DAY)) AS DATE) AS {SUBMISSION_DATE}) WHERE true"
        )
        asked = _one_value(connection, "SELECT json_serialize_sql(?)", days)
        asked["statements"][0]["node"]["where_clause"] = {
            "class": "CONJUNCTION",
            "type": "CONJUNCTION_AND",
            "alias": "",
            "children": [*conditions, asked["statements"][0]["node"]["where_clause"]],
        }
        found = connection.execute("SELECT * FROM json_execute_serialized_sql(?)", [json.dumps(asked)])
        return frozenset(row[0] for row in found.fetchall())
    except duckdb.Error:
        return None  # what is wrong with a query is reported when it runs


def _one_value(connection: duckdb.DuckDBPyConnection, sql: str, argument: str) -> Node:
    row = connection.execute(sql, [argument]).fetchone()
    assert row is not None
    value: Node = json.loads(row[0])
    return value


def _conditions(tree: Node, table: str) -> list[Node]:
    """Return the conditions on the day that every row of `table` which the query uses has to fulfil."""
    namespace, _, name = table.lower().rpartition(".")
    is_table = {"type": "BASE_TABLE", "schema_name": namespace, "table_name": name}
    places = [node for node in _nodes(tree) if _lower(node, is_table) == is_table]
    selects = [
        node for node in _nodes(tree) if node.get("type") == "SELECT_NODE" and node["from_table"] in places
    ]
    if len(places) != 1 or len(selects) != 1:
        return []
    (place,) = places
    if place["sample"] or place["column_name_alias"] or place["at_clause"] or selects[0]["sample"]:
        return []
    names = [[place["alias"].lower()]] if place["alias"] else [[name], [namespace, name]]
    of_the_day = [[SUBMISSION_DATE], *([*qualifier, SUBMISSION_DATE] for qualifier in names)]
    return [
        _with_plain_names(condition)
        for condition in _conjuncts(selects[0]["where_clause"])
        if _is_about_the_day(condition, of_the_day)
    ]


def _lower(node: Node, keys: Mapping[str, str]) -> dict[str, str]:
    found = {key: str(node.get(key, "")) for key in keys}
    return {key: value if key == "type" else value.lower() for key, value in found.items()}


def _nodes(value: object) -> Iterator[Node]:
    """Yield all objects of a JSON value."""
    if isinstance(value, dict):
        yield value
        for part in value.values():
            yield from _nodes(part)
    elif isinstance(value, list):
        for part in value:
            yield from _nodes(part)


def _conjuncts(condition: Node | None) -> Iterator[Node]:
    if condition is None:
        return
    if condition["type"] == "CONJUNCTION_AND":
        for child in condition["children"]:
            yield from _conjuncts(child)
    else:
        yield condition


def _is_about_the_day(condition: Node, of_the_day: Collection[list[str]]) -> bool:
    """Return whether a condition compares the day, by one of these names, with values and nothing else."""
    nodes = [node for node in _nodes(condition) if "class" in node]
    columns = [node["column_names"] for node in nodes if node["class"] == "COLUMN_REF"]
    days = [names for names in columns if names != _TODAY]
    return (
        condition["type"] in _COMPARISONS | {"CONJUNCTION_OR"}
        and bool(days)
        and all([name.lower() for name in names] in of_the_day for names in days)
        and all(_is_understood(node) for node in nodes)
    )


def _is_understood(node: Node) -> bool:
    match node["class"]:
        case "FUNCTION":
            return node["function_name"] in _FUNCTIONS
        case "COLUMN_REF" | "TYPE":
            return True
        case _:
            return node["type"] in _COMPARISONS | _CONJUNCTIONS | _VALUES


def _with_plain_names(condition: Node) -> Node:
    """Return the condition with the day's column by its name alone."""
    copied: Node = json.loads(json.dumps(condition))
    for node in _nodes(copied):
        if node.get("class") == "COLUMN_REF" and node["column_names"] != _TODAY:
            node["column_names"] = [SUBMISSION_DATE]
    return copied
