"""What a script does with an argument of `map`, read from its source before anything runs.

Rebuilding the text of a document costs a hundred times what most scripts need of it. Therefore an argument
that `map` never names is not made at all; one that goes nowhere but to `json.loads`, directly or through
functions of the script and its helper modules, is parsed without making the text; one that is used in any
other way, or in a way that cannot be followed, is made in full.
"""

import ast
from collections.abc import Iterator, Mapping, Sequence
from enum import IntEnum
from types import FunctionType, ModuleType
from typing import Any, Final, NamedTuple

from telemetry_lake.mapreduce.lazy.lazy_json import is_loads
from telemetry_lake.mapreduce.script.script import Script, ScriptSource

CALLS_MAX_DEPTH: Final = 10

_SEE_EVERYTHING: Final = frozenset({"locals", "vars", "eval", "exec"})
"""Functions that see the variables of their caller."""

_Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda


class Use(IntEnum):
    """What `map` does with an argument, from the cheapest to the most expensive."""

    UNUSED = 0
    PARSED = 1
    """It is only given to `json.loads`."""
    WHOLE = 2


class Uses(NamedTuple):
    """What `map` does with each of its first three arguments, in their order."""

    key: Use
    dimensions: Use
    value: Use


def uses_of(script: Script, *, lazy: bool) -> Uses:
    """Return what `map` does with its arguments; without `lazy`, that it uses each as a whole."""
    if not lazy:
        return Uses(Use.WHOLE, Use.WHOLE, Use.WHOLE)
    analysis = _Analysis(script.source)
    return Uses(
        *(analysis.use(script.map, argument, CALLS_MAX_DEPTH) for argument in range(len(Uses._fields)))
    )


class _Analysis:
    """The parsed sources of a script and its helper modules."""

    def __init__(self, source: ScriptSource) -> None:
        self._trees = {module.file: ast.parse(module.source) for module in source.modules.values()}

    def use(self, function: object, argument: int, depth: int) -> Use:
        """Return what `function` does with its argument at this position; `depth` limits calls of calls."""
        definition = self._definition(function)
        if definition is None or depth == 0 or not isinstance(function, FunctionType):
            return Use.WHOLE
        parameters = [*definition.args.posonlyargs, *definition.args.args]
        if argument >= len(parameters):
            return Use.WHOLE
        name = parameters[argument].arg
        body = [ast.Expr(definition.body)] if isinstance(definition, ast.Lambda) else definition.body
        if _SEE_EVERYTHING & {node.id for part in body for node in _names(part)}:
            return Use.WHOLE
        meanings = _Meanings(definition, function.__globals__)
        return self._use_in_block(body, name, meanings, depth)[0]

    def _use_in_block(
        self, body: Sequence[ast.stmt], name: str, meanings: "_Meanings", depth: int
    ) -> tuple[Use, bool]:
        """Return what statements do with `name`, and whether it means something else after them."""
        most = Use.UNUSED
        for statement in body:
            if isinstance(statement, ast.Try) and all(
                _leaves(handler.body) for handler in statement.handlers
            ):
                in_body, is_other = self._use_in_block(statement.body, name, meanings, depth)
                rest = [*(part for handler in statement.handlers for part in handler.body)]
                rest += statement.finalbody if is_other else [*statement.orelse, *statement.finalbody]
                most = max(most, in_body, *(self._use_in(part, name, meanings, depth) for part in rest))
            else:
                is_other = _assigns(statement, name)
                most = max(most, self._use_in(statement, name, meanings, depth))
            if is_other:
                # `value = json.loads(value)`: from here on the name is something else.
                return most, True
        return most, False

    def _definition(self, function: object) -> _Function | None:
        """Return the source of a function of one of the modules; None for others, or with decorators."""
        code = getattr(function, "__code__", None)
        tree = self._trees.get(code.co_filename) if code is not None else None
        if code is None or tree is None:
            return None
        found = [
            node
            for node in ast.walk(tree)
            if isinstance(node, _Function)
            and node.lineno == code.co_firstlineno
            and getattr(node, "name", "<lambda>") == code.co_name
        ]
        if len(found) != 1 or getattr(found[0], "decorator_list", None):
            return None
        return found[0]

    def _use_in(self, statement: ast.AST, name: str, meanings: "_Meanings", depth: int) -> Use:
        most = Use.UNUSED
        by_argument = {
            id(argument): call
            for call in ast.walk(statement)
            if isinstance(call, ast.Call)
            for argument in call.args
        }
        for node in _names(statement):
            if node.id != name:
                continue
            if isinstance(node.ctx, ast.Load):
                call = by_argument.get(id(node))
                use = Use.WHOLE if call is None else self._use_by_call(call, node, meanings, depth)
                most = max(most, use)
            elif not _assigns(statement, name):
                return Use.WHOLE
        return most

    def _use_by_call(self, call: ast.Call, argument: ast.Name, meanings: "_Meanings", depth: int) -> Use:
        called = meanings.meaning(call.func)
        if called is None or any(isinstance(node, ast.Starred) for node in call.args):
            return Use.WHOLE
        if is_loads(called):
            return Use.PARSED if len(call.args) == 1 and not call.keywords else Use.WHOLE
        return self.use(called, call.args.index(argument), depth - 1)


class _Meanings:
    """What names mean in a function, as far as they are global."""

    def __init__(self, definition: _Function, global_names: Mapping[str, Any]) -> None:
        self._globals = global_names
        self._local: set[str] = set()
        for node in ast.walk(definition):
            if isinstance(node, ast.arg):
                self._local.add(node.arg)
            elif isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
                self._local.add(node.id)
            elif isinstance(node, ast.alias):
                self._local.add((node.asname or node.name).partition(".")[0])
            elif isinstance(node, ast.FunctionDef | ast.ClassDef | ast.ExceptHandler) and node.name:
                self._local.add(node.name)

    def meaning(self, expression: ast.expr) -> object:
        """Return what `name` or `module.name` means; None when that is not global."""
        if isinstance(expression, ast.Attribute):
            module = self.meaning(expression.value)
            return getattr(module, expression.attr, None) if isinstance(module, ModuleType) else None
        if not isinstance(expression, ast.Name) or expression.id in self._local:
            return None
        return self._globals.get(expression.id)


def _leaves(body: Sequence[ast.stmt]) -> bool:
    """Return whether a block of statements never continues with what follows it."""
    return isinstance(body[-1], ast.Return | ast.Raise | ast.Continue)


def _names(tree: ast.AST) -> Iterator[ast.Name]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.Name))


def _assigns(statement: ast.AST, name: str) -> bool:
    """Return whether a statement does nothing but give the variable `name` another value."""
    return (
        isinstance(statement, ast.Assign)
        and len(statement.targets) == 1
        and isinstance(statement.targets[0], ast.Name)
        and statement.targets[0].id == name
    )
