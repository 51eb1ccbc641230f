"""A map-reduce script: read with the helper modules beside it, carried elsewhere, and loaded there.

A script is a Python file with::

    def map(key, dimensions, value, context): ...       # context.write(key, value)
    def reduce(key, values, context): ...               # optional; write, writecsv, writeline
    def combine(key, values, context): ...              # optional; often `combine = reduce`
    def setup_reduce(context): ...                      # optional; context.field_separator = ","
    fields = ("os", "client_id")                        # optional: `value` is a dict of these columns

`pack_script` reads the file and every module or package beside it that it imports, and theirs. The result is
data, which travels to machines without these files; `unpack_script` makes modules of it again.
"""

import ast
import importlib.abc
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from telemetry_lake.failures import FatalError

SCRIPT_MODULE: Final = "mapreduce_script"
"""The name under which a script is imported, so that objects of its classes can be pickled."""
SOURCE_MAX_BYTES: Final = 16 * 1024 * 1024
"""The script and its helper modules together."""
SCRIPT_FAILURES: Final = (Exception, SystemExit)
"""What a script may raise without ending the process; `sys.exit()` is meant for the script."""
_SHOWN_MAX_CHARACTERS: Final = 200

_FUNCTIONS: Final = {
    "map": ("key", "dimensions", "value", "context"),
    "reduce": ("key", "values", "context"),
    "combine": ("key", "values", "context"),
    "setup_reduce": ("context",),
}
_HEKA_PARAMETERS: Final = ("key", "value", "context")
"""How the original called scripts that it ran over Heka's messages."""


class ScriptError(FatalError):
    """A script cannot be used, or failed. The message names the line."""


@dataclass(frozen=True, slots=True)
class SourceModule:
    """One Python file: where it was, its text, and whether it is the `__init__` of a package."""

    file: str
    source: str
    is_package: bool


@dataclass(frozen=True, slots=True)
class ScriptSource:
    """A script and its helper modules by name, as text; it can be pickled."""

    file: str
    modules: dict[str, SourceModule]
    arguments: tuple[str, ...] = ()
    """What it finds in `sys.argv[1:]`."""

    def line(self, file: str, number: int) -> str:
        """Return the text of a line of one of the modules; empty when there is no such line."""
        for module in self.modules.values():
            if module.file == file:
                lines = module.source.splitlines()
                return lines[number - 1].strip() if 0 < number <= len(lines) else ""
        return ""

    @property
    def files(self) -> frozenset[str]:
        """The files of all modules."""
        return frozenset(module.file for module in self.modules.values())


@dataclass(frozen=True, slots=True)
class Script:
    """A loaded script: its functions, and None for those that it does not have."""

    source: ScriptSource
    module: ModuleType
    map: Callable[[str, list[str], Any, Any], object]
    reduce: Callable[[Any, Any, Any], object] | None
    combine: Callable[[Any, Any, Any], object] | None
    setup_reduce: Callable[[Any], object] | None
    fields: tuple[str, ...] | None


def load_script(path: Path | str, arguments: Sequence[str] = ()) -> Script:
    """Load the script in the file `path`, ready to be called.

    Raises ScriptError, which names file and line.
    """
    return unpack_script(pack_script(Path(path), arguments))


def pack_script(path: Path, arguments: Sequence[str] = ()) -> ScriptSource:
    """Read the script in the file `path` and the modules beside it that it needs.

    `arguments` are what it finds in `sys.argv[1:]`. Raises ScriptError when a file cannot be read or is not
    Python, or when there is too much text.
    """
    main = SourceModule(str(path), _read(path), is_package=False)
    modules = {SCRIPT_MODULE: main}
    to_follow = [(SCRIPT_MODULE, main)]
    while to_follow:
        name, module = to_follow.pop()
        for wanted in _imports(name, module):
            for imported in _with_parents(wanted):
                if imported not in modules and (found := _beside(path.parent, imported)) is not None:
                    modules[imported] = found
                    to_follow.append((imported, found))
    size = sum(len(module.source) for module in modules.values())
    if size > SOURCE_MAX_BYTES:
        raise ScriptError(
            f"{path} and its helper modules have {size:,} bytes; {SOURCE_MAX_BYTES:,} may travel"
        )
    return ScriptSource(str(path), modules, tuple(arguments))


def unpack_script(source: ScriptSource) -> Script:
    """Import the modules of `source`, in place of any other script that this process has loaded before.

    Raises ScriptError when importing fails, or when the script does not have what a script must have.
    """
    finder = next((finder for finder in sys.meta_path if isinstance(finder, _Finder)), None)
    if finder is not None and finder.source == source and SCRIPT_MODULE in sys.modules:
        return _script(source, sys.modules[SCRIPT_MODULE])
    for name in [name for name, module in sys.modules.items() if _is_ours(module)]:
        del sys.modules[name]
    sys.meta_path[:] = [other for other in sys.meta_path if other is not finder]
    for name, module in source.modules.items():
        if name in sys.modules or name.partition(".")[0] in sys.stdlib_module_names:
            raise ScriptError(f"{module.file} has the name of a module that is in use already: rename it")
    sys.meta_path.insert(0, _Finder(source))
    if source.arguments:
        sys.argv = [source.file, *source.arguments]
    try:
        return _script(source, importlib.import_module(SCRIPT_MODULE))
    except ScriptError:
        raise
    except SCRIPT_FAILURES as error:
        raise ScriptError(f"{place_of(error, source)} cannot be imported: {described(error)}") from error


def place_of(error: BaseException, source: ScriptSource) -> str:
    """Return where in the script or its helper modules an exception arose, as `file:line (text)`.

    Of all the script's lines on the way to the exception the innermost is named, not one of a library.
    """
    if isinstance(error, SyntaxError) and error.filename in source.files:
        return f"{error.filename}:{error.lineno}"
    place = source.file
    trace = error.__traceback__
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if file in source.files:
            text = source.line(file, trace.tb_lineno)
            place = f"{file}:{trace.tb_lineno}" + (f" ({text})" if text else "")
        trace = trace.tb_next
    return place


def described(error: BaseException) -> str:
    """Return an exception in one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def shown(key: object) -> str:
    """Return a key for a message, cut to `_SHOWN_MAX_CHARACTERS`."""
    text = repr(key)
    return text if len(text) <= _SHOWN_MAX_CHARACTERS else f"{text[:_SHOWN_MAX_CHARACTERS]}…"


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    """Imports the modules of one script from their text."""

    def __init__(self, source: ScriptSource) -> None:
        self.source = source

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,  # noqa: ARG002 (the import system passes it)
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> ModuleSpec | None:
        module = self.source.modules.get(fullname)
        if module is None:
            return None
        spec = ModuleSpec(fullname, self, origin=module.file, is_package=module.is_package)
        spec.has_location = True
        return spec

    def is_package(self, fullname: str) -> bool:
        return self.source.modules[fullname].is_package

    def get_source(self, fullname: str) -> str:
        return self.source.modules[fullname].source

    def exec_module(self, module: ModuleType) -> None:
        text = self.source.modules[module.__name__]
        exec(compile(text.source, text.file, "exec", dont_inherit=True), module.__dict__)  # noqa: S102


def _is_ours(module: ModuleType) -> bool:
    return isinstance(getattr(module, "__loader__", None), _Finder)


def _script(source: ScriptSource, module: ModuleType) -> Script:
    functions = {name: _function(source, module, name) for name in _FUNCTIONS}
    map_function = functions["map"]
    if map_function is None:
        raise ScriptError(f"{source.file} has no function map(key, dimensions, value, context)")
    fields = getattr(module, "fields", None)
    if fields is not None and (
        not isinstance(fields, tuple | list) or not all(isinstance(name, str) for name in fields)
    ):
        raise ScriptError(f'{source.file}: `fields` is a tuple of column names, such as ("os", "client_id")')
    return Script(
        source,
        module,
        map_function,
        functions["reduce"],
        functions["combine"],
        functions["setup_reduce"],
        None if fields is None else tuple(fields),
    )


def _function(source: ScriptSource, module: ModuleType, name: str) -> Callable[..., object] | None:
    function = getattr(module, name, None)
    if function is None:
        return None
    parameters = _FUNCTIONS[name]
    expected = f"{name}({', '.join(parameters)})"
    if not callable(function):
        raise ScriptError(f"{source.file}: `{name}` is not a function; it is called as {expected}")
    try:
        inspect.signature(function).bind(*parameters)
    except TypeError as error:
        if name == "map" and _takes(function, _HEKA_PARAMETERS):
            raise ScriptError(
                f"{source.file}: this `map` is one for Heka, with three parameters; it is called as "
                f"{expected}. Put `dimensions` after the first: a list of reason, application, channel, "
                "version, build id and submission date. `value` is the text of a ping, as JSON"
            ) from error
        raise ScriptError(f"{source.file}: `{name}` is called as {expected}: {error}") from error
    except ValueError:  # a function written in C need not tell its parameters
        pass
    return function  # type: ignore[no-any-return]


def _takes(function: Callable[..., object], parameters: Sequence[str]) -> bool:
    try:
        inspect.signature(function).bind(*parameters)
    except TypeError:
        return False
    return True


def _read(path: Path) -> str:
    try:
        return importlib.util.decode_source(path.read_bytes())
    except (OSError, SyntaxError, UnicodeDecodeError) as error:
        raise ScriptError(f"the script {path} cannot be read: {error}") from error


def _imports(name: str, module: SourceModule) -> Iterator[str]:
    """Yield the full names of imports, for `from a import b` both `a` and `a.b`, as b may be a module."""
    try:
        tree = ast.parse(module.source, module.file)
    except SyntaxError as error:
        raise ScriptError(f"{module.file}:{error.lineno} is not Python {_version()}: {error.msg}") from error
    package = name if module.is_package else name.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *([base] if base else [])])
            if base:
                yield base
            yield from (f"{base}.{alias.name}".lstrip(".") for alias in node.names)


def _with_parents(name: str) -> Iterator[str]:
    parts = name.split(".")
    return (".".join(parts[: count + 1]) for count in range(len(parts)))


def _beside(folder: Path, name: str) -> SourceModule | None:
    """Return the module or package `name` in `folder`; None when it is not there."""
    place = folder.joinpath(*name.split("."))
    for file, is_package in ((place / "__init__.py", True), (place.with_suffix(".py"), False)):
        if file.is_file():
            return SourceModule(str(file), _read(file), is_package)
    return None


def _version() -> str:
    return ".".join(map(str, sys.version_info[:2]))
