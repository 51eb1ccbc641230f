"""Conversion: bytes in, rows out. Every kind of ping, one way through (`converter`).

What is offered here is loaded when it is asked for: analysts' programs use small parts of this package, and
each of their processes would wait for the whole converter, compiled code included.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from telemetry_lake.convert.converter import Conversion, Converter, Origin, Received
    from telemetry_lake.convert.lift import restore_document

__all__ = ["Conversion", "Converter", "Origin", "Received", "restore_document"]

_HOMES: Final = {
    "Conversion": "converter",
    "Converter": "converter",
    "Origin": "converter",
    "Received": "converter",
    "restore_document": "lift",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
