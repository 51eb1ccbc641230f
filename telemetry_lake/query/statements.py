"""Which SQL may be asked: one statement that reads, or EXPLAIN of one.

DuckDB's statement types alone do not tell. `EXPLAIN` covers `EXPLAIN ANALYZE COPY … TO`, which writes a file,
and `MULTI` covers every statement with a PIVOT in it, `COPY` and `CREATE TABLE` too. What reads can stand in
parentheses behind FROM; what writes cannot.
"""

import re
from typing import Final

import duckdb
from duckdb import StatementType

from telemetry_lake.failures import FatalError

_READING: Final = frozenset({StatementType.SELECT, StatementType.MULTI})
"""MULTI is PIVOT, for which DuckDB looks at the values first."""
_EXPLAIN: Final = re.compile(
    r"(?:--[^\n]*\n|/\*.*?\*/|\s)*EXPLAIN\b\s*(?:ANALYZE\b\s*)?(?:\(\s*(?:ANALYZE|FORMAT)\b[^()]*\))?",
    re.IGNORECASE | re.DOTALL,
)


class QueryError(FatalError):
    """The query is wrong; the message says where."""


def single_query(connection: duckdb.DuckDBPyConnection, sql: str) -> str:
    """Return the one reading statement of `sql`, without a semicolon behind it.

    Raises QueryError when there is not exactly one, or when it does more than read, and duckdb.Error when
    `sql` is not SQL.
    """
    statements = connection.extract_statements(sql)
    if len(statements) != 1:
        raise QueryError(f"one query at a time: this is {len(statements)} statements")
    (statement,) = statements
    query = statement.query.strip().rstrip(";")
    is_explain = statement.type is StatementType.EXPLAIN
    explain = _EXPLAIN.match(query) if is_explain else None
    explained = query[explain.end() :] if explain else query
    if (is_explain and explain is None) or not _reads(connection, explained):
        name = "EXPLAIN of what is not a SELECT" if is_explain else _name(statement)
        raise QueryError(
            f"{name} is not possible here, only queries are: the drain writes the live tables, and jobs "
            "write the derived ones"
        )
    return query


def _name(statement: duckdb.Statement) -> str:
    """Return what the statement does; of one with a PIVOT, whose type does not tell, its first word."""
    is_pivot = statement.type is StatementType.MULTI
    return statement.query.split(maxsplit=1)[0].upper() if is_pivot else statement.type.name


def _reads(connection: duckdb.DuckDBPyConnection, query: str) -> bool:
    """Return whether `query` is one statement that does nothing but read."""
    try:
        (statement,) = connection.extract_statements(query)
        (nested,) = connection.extract_statements(f"FROM (\n{query}\n)")
    except (duckdb.Error, ValueError):
        return False
    return statement.type in _READING and nested.type in _READING
