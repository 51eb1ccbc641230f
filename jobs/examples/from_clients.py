"""Values out of the documents of clients, who send anything. The scripts beside this file import it.

A script's helper modules travel with it, so that a cluster has them as well.
"""

TEXT_MAX_CHARACTERS = 500
"""Longer names and messages are cut: they would only make the output unreadable."""
NUMBER_MAX = 2**53
"""Nothing that Firefox measures is larger; beyond it, sums would lose digits."""


def inside(document, *names):
    """Return what lies at the path `names`, or None when a member of the path is missing or not an object."""
    for name in names:
        if not isinstance(document, dict):
            return None
        document = document.get(name)
    return document


def members(document, *names):
    """Return the members of the object at the path `names` as (name, value); empty if it is not an object."""
    value = inside(document, *names)
    return value.items() if isinstance(value, dict) else ()


def measurements(document):
    """The part of a document that holds what was measured: `payload` since version 4, all of it before."""
    payload = inside(document, "payload")
    return payload if isinstance(payload, dict) else document


def text(value, otherwise="UNKNOWN"):
    """`value` if it is text with something in it, cut to TEXT_MAX_CHARACTERS, else `otherwise`."""
    return value[:TEXT_MAX_CHARACTERS] if isinstance(value, str) and value.strip() else otherwise


def number(value):
    """`value` if it is a number from 0 to NUMBER_MAX, else None."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if is_number and 0 <= value <= NUMBER_MAX else None


def numbers(value, count):
    """`value` if it is a list of exactly `count` such numbers, else None."""
    if not isinstance(value, list) or len(value) != count or any(number(one) is None for one in value):
        return None
    return value
