"""A document's text that is not made, and modules of JSON that parse it all the same."""

import sys
from collections.abc import Callable
from functools import wraps
from types import ModuleType
from typing import Any, Final

from telemetry_lake.mapreduce.lazy.lazy_dict import LazyDict
from telemetry_lake.mapreduce.reading.documents import Documents, Json
from telemetry_lake.mapreduce.script.script import ScriptSource

JSON_MODULES: Final = frozenset({"json", "simplejson", "ujson", "orjson"})
"""Modules whose `loads` makes the same of a document's text."""


class LazyText:
    """A `value` whose text is made when it is asked for.

    `map` gets it only where its source shows that it goes nowhere but to `json.loads` (`value_use`). If it
    goes elsewhere all the same, it does what the text does.
    """

    __slots__ = ("_documents", "_row")

    def __init__(self, documents: Documents, row: int) -> None:
        self._documents, self._row = documents, row

    def __str__(self) -> str:
        return self._documents.text(self._row)

    def __getattr__(self, name: str) -> Any:
        return getattr(str(self), name)

    def parsed(self) -> Json:
        """Return what `json.loads` would make of the text, in which containers of histograms are lazy."""
        return self._documents.parsed(self._row, LazyDict)


def _text_method(name: str) -> Callable[..., Any]:
    str_method: Callable[..., Any] = getattr(str, name)

    def method(self: LazyText, *arguments: Any) -> Any:
        texts = (str(argument) if type(argument) is LazyText else argument for argument in arguments)
        return str_method(str(self), *texts)

    return method


# Python looks these up in the class, past `__getattr__`.
for _name in (
    *("__add__", "__contains__", "__eq__", "__format__", "__ge__", "__getitem__", "__gt__", "__hash__"),
    *("__iter__", "__le__", "__len__", "__lt__", "__mod__", "__mul__", "__ne__", "__repr__", "__rmul__"),
):
    setattr(LazyText, _name, _text_method(_name))


def lazy_loads(loads: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function like `loads`, that of `json` or its like, which knows `LazyText`."""

    @wraps(loads)
    def loads_lazily(text: Any, *arguments: Any, **named: Any) -> Any:
        if type(text) is LazyText and not arguments and not named:
            return text.parsed()
        return loads(text, *arguments, **named)

    return loads_lazily


class LazyJson(ModuleType):
    """A module like `module`, that is `json` or its like, whose `loads` knows `LazyText`."""

    def __init__(self, module: ModuleType) -> None:
        super().__init__(module.__name__, module.__doc__)
        self._module = module
        self.loads = lazy_loads(module.loads)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


def is_loads(function: object) -> bool:
    """Return whether a function is the `loads` of a module that reads JSON."""
    module = str(getattr(function, "__module__", None)).partition(".")[0]
    return getattr(function, "__name__", None) == "loads" and module in JSON_MODULES


def read_json_lazily(source: ScriptSource) -> None:
    """Let the loaded modules of a script find a `loads` that knows `LazyText`, wherever they imported one."""
    for name in source.modules:
        names = vars(sys.modules[name]) if name in sys.modules else {}
        for global_name, meaning in list(names.items()):
            if isinstance(meaning, ModuleType) and is_loads(getattr(meaning, "loads", None)):
                if not isinstance(meaning, LazyJson):
                    names[global_name] = LazyJson(meaning)
            elif is_loads(meaning) and not hasattr(meaning, "__wrapped__"):
                names[global_name] = lazy_loads(meaning)
