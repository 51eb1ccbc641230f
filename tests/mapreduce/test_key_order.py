"""Keys as bytes: equal for equal keys, and in the order that the reference gives them."""

import subprocess
import sys
import uuid
from collections import namedtuple
from datetime import UTC, date, datetime
from enum import Enum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lake_testing.mapreduce_reference import order
from lake_testing.script_plans import KEYS, NUMBERS, Point
from telemetry_lake.mapreduce.key_order import key_bytes

Pair = namedtuple("Pair", "first second")


class Colour(Enum):
    RED = 1
    BLUE = 2


@given(KEYS, KEYS)
def test_bytes_compare_as_keys_do(left: Any, right: Any) -> None:
    as_bytes, as_keys = (key_bytes(left), key_bytes(right)), (order(left), order(right))
    assert (as_bytes[0] == as_bytes[1]) == (as_keys[0] == as_keys[1])
    if not any(isinstance(key, frozenset | dict) or "frozenset" in repr(key) for key in (left, right)):
        assert (as_bytes[0] < as_bytes[1]) == (as_keys[0] < as_keys[1])


@given(NUMBERS, NUMBERS)
def test_numbers_are_ordered_by_value_whatever_their_type(left: float, right: float) -> None:
    assert (key_bytes(left) < key_bytes(right)) == (left < right)
    assert (key_bytes(left) == key_bytes(right)) == (left == right)


@given(st.lists(KEYS, max_size=4), st.lists(KEYS, max_size=4))
def test_no_key_begins_with_another(left: list[Any], right: list[Any]) -> None:
    """Else the items of one tuple could pass for those of another."""
    joined = b"".join(map(key_bytes, left)), b"".join(map(key_bytes, right))
    assert (joined[0] == joined[1]) == (list(map(order, left)) == list(map(order, right)))


def test_other_objects_sort_by_what_they_hold() -> None:
    assert key_bytes(date(2013, 12, 31)) < key_bytes(date(2014, 1, 1))
    assert key_bytes(datetime(2014, 1, 1, tzinfo=UTC)) == key_bytes(datetime(2014, 1, 1, tzinfo=UTC))
    assert key_bytes(Point(1, 2.0)) == key_bytes(Point(1, 2.0)) < key_bytes(Point(1, 2.5))
    assert key_bytes(Colour.RED) == key_bytes(Colour.RED) != key_bytes(Colour.BLUE)
    assert key_bytes(uuid.UUID(int=1)) < key_bytes(uuid.UUID(int=2))
    assert key_bytes(Pair(1, 2)) == key_bytes((1, 2))
    assert key_bytes(int) == key_bytes(int) != key_bytes(float)


def test_other_processes_give_the_same_bytes() -> None:
    """The hash of text differs from process to process, and with it the order of a set."""
    key = (frozenset(["a", "b", "c", "d"]), Point(1, 0.5), {"x": {"q", "r", "s"}}, date(2014, 1, 1))
    program = (
        "from datetime import date; from lake_testing.script_plans import Point; "
        "from telemetry_lake.mapreduce.key_order import key_bytes; "
        "print(key_bytes((frozenset(['d', 'c', 'b', 'a']), Point(1, 0.5), {'x': {'s', 'r', 'q'}}, "
        "date(2014, 1, 1))).hex())"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == key_bytes(key).hex()


def test_what_has_no_order_is_named() -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(TypeError, match="more than 100 levels"):
        key_bytes(endless)
    with pytest.raises(TypeError, match="generator"):
        key_bytes(x for x in "abc")
