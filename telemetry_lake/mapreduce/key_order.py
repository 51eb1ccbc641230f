"""The order of keys: any object that can be pickled as bytes, which sort as it does on every machine.

Keys that are equal for Python (1, 1.0 and True) have the same bytes and are one key, as in a dict. Ascending
are: None, numbers by value, text by code point, bytes, tuples and lists by their items, sets and dicts by
their sorted items, then all other objects by the name of their type and by what pickle would keep of
them. A date, a UUID or a dataclass therefore sorts by its fields.

Each value is a byte for its kind and then its content, such that no value's bytes begin with another's:
text and numbers end with 00 01 and have every 00 in them replaced by 00 ff (the scheme of FoundationDB's
tuple layer, https://github.com/apple/foundationdb/blob/main/design/tuple.md); what holds others ends with 00.
"""

import copyreg
import math
import struct
from collections.abc import Iterable
from types import BuiltinFunctionType, FunctionType
from typing import Any, Final, cast

NESTED_MAX_LEVELS: Final = 100
"""The limit that stops at a key that contains itself."""

_NONE, _NUMBER, _TEXT, _BYTES, _TUPLE, _LIST, _SET, _DICT, _OBJECT = (bytes([kind]) for kind in range(1, 10))
_END: Final = b"\x00"
_END_OF_TEXT: Final = b"\x00\x01"
_MINUS_INFINITY, _NEGATIVE, _ZERO, _POSITIVE, _INFINITY, _NAN = (bytes([sign]) for sign in range(1, 7))
_COMPLEMENT: Final = bytes(255 - byte for byte in range(256))
_EXPONENT: Final = struct.Struct(">q")
_PICKLE_PROTOCOL: Final = 2


def key_bytes(key: object) -> bytes:
    """Return the bytes of `key`.

    Raises TypeError, which names the type, for a key that cannot be pickled or is nested too deeply.
    """
    return _encoded(key, NESTED_MAX_LEVELS)


def _encoded(key: Any, levels: int) -> bytes:
    kind = type(key)
    if kind is str:
        return _TEXT + _text(key.encode("utf-8", "surrogatepass"))
    if kind is int:
        return _NUMBER + _number(key)
    if key is None:
        return _NONE
    if levels == 0:
        raise TypeError(f"a key is nested more than {NESTED_MAX_LEVELS} levels deep")
    # What a subclass calls equal counts: one that does not say goes with its base, as it does in a dict.
    equality: Any = kind.__eq__
    if equality is int.__eq__:
        return _NUMBER + _number(int(key))
    if equality is float.__eq__:
        return _NUMBER + _number(float(key))
    if equality is str.__eq__:
        return _TEXT + _text(str.encode(key, "utf-8", "surrogatepass"))
    if equality is bytes.__eq__:
        return _BYTES + _text(bytes(key))
    if equality is tuple.__eq__:
        return _TUPLE + _joined(tuple.__iter__(key), levels)
    if equality is list.__eq__:
        return _LIST + _joined(list.__iter__(key), levels)
    if equality is set.__eq__ or equality is frozenset.__eq__:
        return _SET + b"".join(sorted(_encoded(item, levels - 1) for item in key)) + _END
    if equality is dict.__eq__:
        items = sorted(_encoded(name, levels - 1) + _encoded(item, levels - 1) for name, item in key.items())
        return _DICT + b"".join(items) + _END
    return _object(key, levels)


def _object(key: Any, levels: int) -> bytes:
    """Return an object as pickle sees it: what makes it, and its arguments."""
    if isinstance(key, type | FunctionType | BuiltinFunctionType):
        return _OBJECT + _joined((key.__module__, key.__qualname__), levels)
    kind = type(key)
    if hasattr(key, "dtype") and getattr(key, "ndim", None) == 0:
        return _encoded(key.item(), levels - 1)  # a NumPy scalar is its number
    reduce = copyreg.dispatch_table.get(kind)
    try:
        reduced = reduce(key) if reduce is not None else key.__reduce_ex__(_PICKLE_PROTOCOL)
    except Exception as error:
        raise TypeError(f"a key of type {kind.__qualname__} cannot be pickled: {error}") from error
    if isinstance(reduced, str):
        return _OBJECT + _joined((kind.__module__, kind.__qualname__, reduced), levels)
    make, arguments, *state = cast("tuple[Any, ...]", reduced)
    name = getattr(make, "__qualname__", str(make))
    content = (arguments, *(list(part) if hasattr(part, "__next__") else part for part in state))
    return _OBJECT + _joined((kind.__module__, kind.__qualname__, name, *content), levels)


def _joined(items: Iterable[object], levels: int) -> bytes:
    return b"".join([_encoded(item, levels - 1) for item in items]) + _END


def _text(content: bytes) -> bytes:
    return content.replace(b"\x00", b"\x00\xff") + _END_OF_TEXT


def _number(value: int | float) -> bytes:
    """Return sign, exponent of the highest bit, then all bits from the highest set one, without loss."""
    if value == 0:
        return _ZERO
    if isinstance(value, float):
        if math.isnan(value):
            return _NAN
        if math.isinf(value):
            return _INFINITY if value > 0 else _MINUS_INFINITY
        numerator, denominator = abs(value).as_integer_ratio()
    else:
        numerator, denominator = abs(value), 1
    exponent = numerator.bit_length() - denominator.bit_length()
    # The highest bit goes to the front of the first byte; a denominator is a power of two and moves it only.
    size = (numerator.bit_length() + 7) // 8
    bits = (numerator << (size * 8 - numerator.bit_length())).to_bytes(size, "big").rstrip(b"\x00")
    magnitude = _EXPONENT.pack(exponent + 2**62) + _text(bits)
    return _POSITIVE + magnitude if value > 0 else _NEGATIVE + magnitude.translate(_COMPLEMENT)
