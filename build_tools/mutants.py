"""Find lines that no test defends: change one expression at a time and see whether a test fails.

    make mutants ARGUMENTS="--every 4 telemetry_lake/drain/ledger.py"

A mutant is a module with one change: a comparison turned, a condition negated, a constant changed, a
statement, a filter or an argument left out, `None` returned. Each is loaded into a process of its own in
place of the module, and judged by the tests of `MODULES` in their order, until one fails. Texts are not
changed: docstrings, log messages, and the messages of exceptions. Programs that a test starts load the module
as it is, so only tests that call the module themselves can judge it.

What survives is printed with its line. It needs a test, or a reason in `docs/testing.md`.
"""

import ast
import contextlib
import importlib
import os
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import spec_from_file_location
from multiprocessing import get_context
from types import CodeType, ModuleType
from typing import Annotated, Final

import psutil
import pytest
import typer

from telemetry_lake.project_files import PROJECT_ROOT

SIMULATION: Final = "simulation"
"""Stands for the first seeds of the simulation. Its test would shrink what it finds, which takes minutes."""
SIMULATED_SEEDS: Final = 60
JUDGE_MAX_SECONDS: Final = 600
"""A mutant that runs longer counts as killed: it waits or loops where the module does not."""

Judge = tuple[str, ...]
"""Arguments of pytest."""

_SIMULATION: Final[Judge] = (SIMULATION,)
_LEDGER: Final[Judge] = ("tests/drain/test_ledger.py",)
_DRAIN: Final[Judge] = ("tests/drain/test_drain.py",)
_PUBLISH: Final[Judge] = ("tests/drain/test_publish.py",)
_KEYS: Final[Judge] = ("tests/storage/test_object_keys.py",)
_SPOOL: Final[Judge] = ("tests/ingest/test_segment.py",)

MODULES: Final[Mapping[str, Sequence[Judge]]] = {
    "telemetry_lake/drain/batch.py": (("tests/drain/test_batch.py",), _SIMULATION, _DRAIN),
    "telemetry_lake/drain/ledger.py": (_SIMULATION, _LEDGER, _DRAIN),
    "telemetry_lake/drain/claim.py": (_SIMULATION, _DRAIN),
    "telemetry_lake/drain/convert_part.py": (_SIMULATION, _DRAIN),
    "telemetry_lake/drain/acknowledge.py": (_SIMULATION, _DRAIN),
    "telemetry_lake/drain/publish.py": (_SIMULATION, _PUBLISH),
    "telemetry_lake/drain/audit.py": (_SIMULATION, _DRAIN),
    "telemetry_lake/drain/steps.py": (_SIMULATION, _DRAIN),
    "telemetry_lake/drain/dead_letters.py": (_SIMULATION, _DRAIN),
    "telemetry_lake/storage/records.py": (_SIMULATION, ("tests/storage/test_records.py",)),
    "telemetry_lake/storage/object_keys.py": (_KEYS, _SIMULATION, _DRAIN),
    "telemetry_lake/storage/object_store.py": (_SIMULATION, ("tests/storage/test_object_store.py",)),
    "telemetry_lake/tables/commits.py": (_SIMULATION, ("tests/tables/test_commits.py",), _PUBLISH),
    "ingest_server/spool.py": (_SPOOL,),
    "ingest_server/segment.py": (_SPOOL,),
    "ingest_server/segment_writer.py": (_SPOOL,),
}
"""Which tests judge a module, in the order in which they are asked."""
SLOW: Final = frozenset({_LEDGER, _DRAIN, _PUBLISH})
"""Judges that take minutes with real servers; they are asked with --thorough only."""

_FIRST_IMPORTED: Final = ("lake_testing.simulation.scenario", "lake_testing.simulation.deterministic")
"""Import the libraries that take seconds; each mutant's process inherits them."""
_PROJECT_PACKAGES: Final = ("telemetry_lake", "ingest_server", "lake_testing", "local_stack")

_TURNED: Final[Mapping[type[ast.cmpop], type[ast.cmpop]]] = {
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_OTHER_OPERATOR: Final[Mapping[type[ast.operator], type[ast.operator]]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.FloorDiv: ast.Mult,
    ast.Div: ast.Mult,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
}
_TEXT_FUNCTIONS: Final = frozenset({"__str__", "message", "lines"})
_CALLS_OF_TEXT: Final = frozenset(
    {"TypeVar", "GateFailed", "NotDecided", "ObjectNotFound", "UnfinishedDrain"}
)


@dataclass(frozen=True)
class Mutant:
    """One change of a module: its line, the code `before` and `after`, and the whole changed source."""

    line: int
    before: str
    after: str
    source: str

    def __str__(self) -> str:
        return f"{self.line}: {self.before}  ->  {self.after}"


@dataclass
class Outcome:
    """What became of the mutants of a module."""

    tried: int = 0
    survivors: list[Mutant] = field(default_factory=list)


def mutants_of(source: str) -> Iterator[Mutant]:
    """Yield every mutant of a module, in the order of its code."""
    tree = ast.parse(source)
    for holder, name, index, node in list(_places(tree)):
        for replacement in _replacements(node):
            before = ast.unparse(node)
            _put(holder, name, index, replacement)
            changed = ast.unparse(ast.fix_missing_locations(tree))
            _put(holder, name, index, node)
            line = next(part.lineno for part in ast.walk(node) if isinstance(part, ast.expr | ast.stmt))
            yield Mutant(line, _short(before), _short(ast.unparse(replacement)), changed)


def _short(code: str) -> str:
    return " ".join(code.split())[:100]


def _put(holder: ast.AST, name: str, index: int | None, node: ast.AST) -> None:
    if index is None:
        setattr(holder, name, node)
    else:
        getattr(holder, name)[index] = node


def _places(node: ast.AST) -> Iterator[tuple[ast.AST, str, int | None, ast.AST]]:
    """Yield each node below `node` that may change, with the place that holds it."""
    for name, value in ast.iter_fields(node):
        if name in {"annotation", "returns", "decorator_list", "bases", "keywords", "format_spec", "type"}:
            if name == "keywords" and isinstance(node, ast.Call):
                for keyword in node.keywords:
                    yield from _places(keyword)
            continue
        children = value if isinstance(value, list) else [value]
        for index, child in enumerate(children):
            if isinstance(child, ast.AST) and not _is_text(child):
                yield node, name, index if isinstance(value, list) else None, child
                yield from _places(child)


def _is_text(node: ast.AST) -> bool:
    """Whether the node only says something, or is not code at all."""
    match node:
        case ast.Import() | ast.ImportFrom():
            return True
        case ast.Expr(value=ast.Constant()):
            return True
        case ast.FunctionDef(name=name):
            return name in _TEXT_FUNCTIONS
        case ast.Call(func=ast.Attribute(value=ast.Name(id="_log"))):
            return True
        case ast.Call(func=ast.Name(id=name)):
            return (
                name == "TypeVar" or name.endswith("Error") or name in {"ObjectNotFound", "UnfinishedDrain"}
            )
        case ast.Expr(value=value):
            return _is_text(value)
        case ast.If(test=ast.Name(id="TYPE_CHECKING")):
            return True
    return False


def _replacements(node: ast.AST) -> Iterator[ast.AST]:
    """Yield what may stand in the place of a node."""
    match node:
        case ast.Compare(left=left, ops=[first, *others], comparators=comparators):
            if turned := _TURNED.get(type(first)):
                yield ast.Compare(left, [turned(), *others], comparators)
        case ast.BoolOp(op=operator, values=values):
            yield ast.BoolOp(ast.Or() if isinstance(operator, ast.And) else ast.And(), values)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield operand
        case ast.BinOp(left=left, op=operator, right=right):
            if other := _OTHER_OPERATOR.get(type(operator)):
                yield ast.BinOp(left, other(), right)
        case ast.Constant(value=bool(value)):
            yield ast.Constant(not value)
        case ast.Constant(value=int(value)):
            yield ast.Constant(value + 1)
        case ast.Constant(value=str(text)):
            yield ast.Constant(f"X{text}")
        case ast.Constant(value=bytes(content)):
            yield ast.Constant(b"X" + content)
        case ast.IfExp(test=test, body=body, orelse=orelse):
            yield ast.IfExp(test, orelse, body)
        case ast.If(test=test, body=body, orelse=orelse) if not isinstance(test, ast.Compare):
            yield ast.If(ast.UnaryOp(ast.Not(), test), body, orelse)
        case ast.comprehension(target=target, iter=items, ifs=[_, *others], is_async=is_async):
            yield ast.comprehension(target, items, others, is_async)
        case ast.Call(func=ast.Name(id="sorted"), args=[items]):
            yield ast.Call(ast.Name("list"), [items], [])
        case ast.Call(func=function, args=arguments, keywords=keywords):
            for left_out in keywords:
                yield ast.Call(function, arguments, [other for other in keywords if other is not left_out])
        case _:
            yield from _replacement_statements(node)


def _replacement_statements(node: ast.AST) -> Iterator[ast.AST]:
    match node:
        case ast.Return(value=ast.expr() as value) if not _is_none(value):
            yield ast.Return(ast.Constant(None))
        case ast.Expr(value=ast.Call()) | ast.Raise() | ast.AugAssign() | ast.Delete():
            yield ast.Pass()
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
            yield ast.Pass()
        case ast.Break():
            yield ast.Continue()
        case ast.Continue():
            yield ast.Break()


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


class _MutantLoader(SourceFileLoader):
    def __init__(self, module: str, file: str, source: str) -> None:
        super().__init__(module, file)
        self._source = source

    def get_code(self, fullname: str) -> CodeType:
        return compile(self._source, self.get_filename(fullname), "exec")


class _MutantFinder(MetaPathFinder):
    def __init__(self, file: str, source: str) -> None:
        self._file = file
        self._source = source
        self._module = file.removesuffix(".py").replace("/", ".")

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,  # noqa: ARG002
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> ModuleSpec | None:
        if fullname != self._module:
            return None
        place = str(PROJECT_ROOT / self._file)
        return spec_from_file_location(fullname, place, loader=_MutantLoader(fullname, place, self._source))


def _judged(file: str, source: str, judge: Judge) -> None:
    """Be the process of a mutant: end with 0 when all tests pass."""
    os.setsid()
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in range(3):
        os.dup2(nowhere, descriptor)
    sys.meta_path.insert(0, _MutantFinder(file, source))
    passed = _simulation_passes() if judge == _SIMULATION else _tests_pass(judge)
    os._exit(0 if passed else 1)


def _tests_pass(judge: Judge) -> bool:
    return pytest.main(["-x", "-q", "-p", "no:cacheprovider", "-m", "not stack and not long", *judge]) == 0


def _simulation_passes() -> bool:
    from lake_testing.simulation.deterministic import deterministic
    from lake_testing.simulation.scenario import drawn, failures

    with deterministic():
        return not any(failures(drawn(seed)) for seed in range(SIMULATED_SEEDS))


def survives(file: str, source: str, judge: Judge) -> bool:
    """Return whether all tests of a judge pass with this source of a module."""
    process = get_context("fork").Process(target=_judged, args=(file, source, judge))
    process.start()
    process.join(JUDGE_MAX_SECONDS)
    passed = process.exitcode == 0
    _end(process.pid)
    process.join()
    return passed


def _end(process_id: int | None) -> None:
    """End a mutant's process and the servers that its tests started."""
    if process_id is None:
        return
    with contextlib.suppress(psutil.NoSuchProcess):
        for child in psutil.Process(process_id).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process_id, signal.SIGKILL)


def _load_libraries() -> None:
    """Import the libraries once, and forget the modules of the project, one of which is to be a mutant."""
    for module in _FIRST_IMPORTED:
        importlib.import_module(module)
    for module in list(sys.modules):
        if module.partition(".")[0] in _PROJECT_PACKAGES:
            del sys.modules[module]


def _is_chosen(file: str, number: int, every: int, seed: int) -> bool:
    return zlib.crc32(f"{seed} {file} {number}".encode()) % every == 0


def try_module(file: str, *, every: int, seed: int, thorough: bool) -> Outcome:
    """Try one in `every` mutants of a module, and print what becomes of each."""
    source = (PROJECT_ROOT / file).read_text()
    judges = [judge for judge in MODULES[file] if thorough or judge not in SLOW]
    for judge in judges:
        if not survives(file, source, judge):
            raise typer.BadParameter(f"{' '.join(judge)} fails without a mutant of {file}: repair that first")
    outcome = Outcome()
    for number, mutant in enumerate(mutants_of(source)):
        if not _is_chosen(file, number, every, seed):
            continue
        outcome.tried += 1
        begun = time.monotonic()
        killer = next((judge for judge in judges if not survives(file, mutant.source, judge)), None)
        if killer is None:
            outcome.survivors.append(mutant)
        verdict = "SURVIVED" if killer is None else f"killed by {' '.join(killer)}"
        typer.echo(f"{file}:{mutant}: {verdict} ({time.monotonic() - begun:.1f} s)")
    return outcome


def table(outcomes: Mapping[str, Outcome]) -> str:
    """Return the outcomes as a table in Markdown."""
    lines = ["| module | tried | killed | survived |", "| --- | --- | --- | --- |"]
    for file, outcome in outcomes.items():
        survived = len(outcome.survivors)
        lines.append(f"| `{file}` | {outcome.tried} | {outcome.tried - survived} | {survived} |")
    return "\n".join(lines)


def main(
    modules: Annotated[list[str] | None, typer.Argument(help="files of the project; default: all")] = None,
    every: Annotated[int, typer.Option(help="try one in so many mutants", min=1)] = 8,
    seed: Annotated[int, typer.Option(help="chooses which")] = 0,
    thorough: Annotated[bool, typer.Option(help="ask the slow tests as well")] = False,
) -> None:
    """Try a sample of the mutants of some modules."""
    unknown = set(modules or ()) - MODULES.keys()
    if unknown:
        raise typer.BadParameter(f"add to MODULES in build_tools/mutants.py what judges {sorted(unknown)}")
    _load_libraries()
    commit = subprocess.run(
        ["git", "rev-parse", "--short=12", "HEAD"],
        cwd=PROJECT_ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    outcomes = {
        file: try_module(file, every=every, seed=seed, thorough=thorough) for file in modules or MODULES
    }
    typer.echo(f"\nOne in {every} mutants, seed {seed}, of commit {commit}\n\n{table(outcomes)}")


if __name__ == "__main__":
    typer.run(main)
