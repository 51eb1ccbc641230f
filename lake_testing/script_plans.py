"""Keys and values of every kind, and a script that writes what a plan says, for tests of map-reduce."""

from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from lake_testing.sample_pings import DAYS, PINGS_PER_DAY


@dataclass(frozen=True)
class Point:
    """A key that is an object of a class."""

    x: int
    y: float


NUMBERS = st.integers() | st.booleans() | st.floats(allow_nan=False) | st.integers(-4, 4)
TEXT = st.text(st.characters(exclude_categories=()), max_size=6)
LEAVES = st.none() | NUMBERS | TEXT | st.binary(max_size=4)
HASHABLE = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3).map(tuple) | st.frozensets(inner, max_size=3),
    max_leaves=6,
)
KEYS = st.recursive(
    HASHABLE,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(HASHABLE, inner, max_size=3),
    max_leaves=8,
)

PLANNED = """
    import plan

    def map(key, dimensions, value, context):
        for written in plan.PLAN.get(key, ()):
            context.write(*written)
"""
REDUCE = """
    def shown(one):
        if isinstance(one, (set, frozenset)):
            return sorted((shown(item) for item in one), key=repr)
        if isinstance(one, dict):
            return sorted(((shown(name), shown(value)) for name, value in one.items()), key=repr)
        return [shown(item) for item in one] if isinstance(one, (list, tuple)) else repr(one)

    def reduce(key, values, context):
        context.write(shown(key), [shown(value) for value in values])
"""
PLANS: st.SearchStrategy[list[tuple[int, Any, Any]]] = st.lists(
    st.tuples(
        st.integers(0, DAYS * PINGS_PER_DAY - 1), KEYS | st.sampled_from(["a", "b", 1, 1.0, True]), KEYS
    ),
    min_size=20,
    max_size=60,
)
"""The number of a ping, and a key and a value that the script writes for it."""
