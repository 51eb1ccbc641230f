"""The map-reduce engine in its plainest form: everything in memory, without tricks. Spark must give the same.

`run(script, rows)` gives the text that the command writes with `--format text`. A script is a module or a
`mapreduce.script.script.Script`; rows are (document id, dimensions, value) in the order of the table.
"""

import csv
import io
import pickle
from collections.abc import Iterable
from typing import Any


class Context:
    """Collects pairs for `reduce`, and text for the output."""

    def __init__(self) -> None:
        self.field_separator, self.record_separator = "\t", "\n"
        self.pairs: list[tuple[Any, Any]] = []
        self.text = io.StringIO()

    def write(self, key: Any, value: Any) -> None:
        self.pairs.append(pickle.loads(pickle.dumps((key, value))))
        self.text.write(f"{key}{self.field_separator}{value}{self.record_separator}")

    def writecsv(self, values: Iterable[Any]) -> None:
        csv.writer(self.text, lineterminator=self.record_separator).writerow(values)

    def writeline(self, value: Any) -> None:
        self.text.write(f"{value}{self.record_separator}")


def run(script: Any, rows: Iterable[tuple[str, list[str], Any]]) -> str:
    """Return the output of `script` for `rows`: keys ascending, values of a key in the order written."""
    mapped, reduced = Context(), Context()
    for document_id, dimensions, value in rows:
        script.map(document_id, dimensions, value, mapped)
    if getattr(script, "reduce", None) is None:
        return mapped.text.getvalue()
    groups: dict[Any, tuple[Any, list[Any]]] = {}
    for key, value in mapped.pairs:
        groups.setdefault(order(key), (key, []))[1].append(value)
    if (setup := getattr(script, "setup_reduce", None)) is not None:
        setup(reduced)
    for _, (key, values) in sorted(groups.items(), key=lambda group: group[0]):
        script.reduce(key, values, reduced)
    return reduced.text.getvalue()


def order(key: Any) -> tuple[int, Any]:
    """Return a sort key; its order is None, numbers, text, bytes, tuples, lists, sets, dicts."""
    kinds: tuple[Any, ...] = ((int, float), str, bytes, tuple, list, (set, frozenset), dict)
    rank = next((number for number, kind in enumerate(kinds, 1) if isinstance(key, kind)), 0)
    if rank in (4, 5):
        return rank, tuple(order(item) for item in key)
    if rank == 6:
        return rank, tuple(sorted(order(item) for item in key))
    if rank == 7:
        return rank, tuple(sorted((order(name), order(item)) for name, item in key.items()))
    return rank, key if rank else 0
