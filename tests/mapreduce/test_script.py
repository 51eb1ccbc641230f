"""Scripts are read with their helper modules, and loaded where their files are not."""

import pickle
import shutil
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from lake_testing import mapreduce_reference
from telemetry_lake.mapreduce.script.script import ScriptError, load_script, pack_script, unpack_script

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes files given as name=text (`__` for `/`) and gives the path of script.py."""

    def write(**files: str) -> Path:
        for name, text in files.items():
            file = tmp_path / f"{name.replace('__', '/')}.py"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(textwrap.dedent(text))
        return tmp_path / "script.py"

    return write


def test_a_script_travels_with_the_modules_beside_it(write: Write, tmp_path: Path) -> None:
    path = write(
        script="""
            import json
            from tools import naming
            from tools.deep.counting import ONE

            def map(key, dimensions, value, context):
                import late
                context.write(naming.name_of(dimensions) + late.SUFFIX, ONE)

            def reduce(key, values, context):
                context.write(key, sum(values))

            combine = reduce
        """,
        tools__init="",
        tools__naming="from . import letters\ndef name_of(d): return letters.FIRST + d[0]",
        tools__letters="FIRST = 'x'",
        tools__deep__init="",
        tools__deep__counting="ONE = 1",
        late="SUFFIX = '!'",
        unrelated="raise RuntimeError('nobody imports this')",
    )
    (tmp_path / "tools" / "init.py").rename(tmp_path / "tools" / "__init__.py")
    (tmp_path / "tools" / "deep" / "init.py").rename(tmp_path / "tools" / "deep" / "__init__.py")
    packed = pickle.dumps(pack_script(path))
    shutil.rmtree(tmp_path)
    script = unpack_script(pickle.loads(packed))
    assert script.combine is script.reduce
    assert mapreduce_reference.run(script, [("id", ["a"], ""), ("id2", ["a"], "")]) == "xa!\t2\n"


def test_the_next_script_replaces_the_modules_of_the_last(write: Write) -> None:
    text = "import helper\ndef map(k, d, v, cx): cx.write(helper.NAME, 1)"
    first = pack_script(write(script=text, helper="NAME = 'first'"))
    second = pack_script(write(script=text, helper="NAME = 'second'"))
    row = ("id", [""], "")
    assert [mapreduce_reference.run(unpack_script(each), [row]) for each in (first, second, first)] == [
        "first\t1\n",
        "second\t1\n",
        "first\t1\n",
    ]


def test_a_script_of_2013_reads_pings_as_it_did(write: Write) -> None:
    text = """
import simplejson as json

def map(k, d, v, cx):
    try:
        cx.write(json.loads(v)["info"]["OS"], 1)
    except json.JSONDecodeError:
        cx.write("broken", 1)
"""
    script = load_script(write(script=text))
    rows = [("id", [""], '{"info": {"OS": "Linux"}}'), ("id2", [""], "{")]
    assert mapreduce_reference.run(script, rows) == "Linux\t1\nbroken\t1\n"


def test_a_script_finds_its_arguments_where_it_runs(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["worker"])
    path = write(script="import sys\nARGUMENTS = sys.argv[1:]\ndef map(k, d, v, cx): cx.write(ARGUMENTS, 1)")
    script = unpack_script(pickle.loads(pickle.dumps(pack_script(path, ["--days=7", "$(id)"]))))
    assert mapreduce_reference.run(script, [("id", [""], "")]) == "['--days=7', '$(id)']\t1\n"
    assert sys.argv[0].endswith("script.py")


@pytest.mark.parametrize(
    "text, said",
    [
        ("def reduce(k, v, cx): pass", "script.py has no function map(key, dimensions, value, context)"),
        ("map = 3", "`map` is not a function; it is called as map(key, dimensions, value, context)"),
        ("def map(k, d): pass", "`map` is called as map(key, dimensions, value, context): too many"),
        (
            "def map(k, v, cx): pass",
            "this `map` is one for Heka, with three parameters; it is called as map(",
        ),
        ("def map(k, d, v, cx): print 'x'", "script.py:1 is not Python 3"),
        (
            "\nimport os\nraise SystemExit(3)",
            "script.py:3 (raise SystemExit(3)) cannot be imported: SystemExit: 3",
        ),
        ("import helper", "helper.py:2 (1 / 0) cannot be imported: ZeroDivisionError"),
        ("import no_such_module_anywhere", "script.py:1 (import no_such"),
        ("def map(k, d, v, cx): pass\nfields = 'os'", "`fields` is a tuple of column names"),
        ("import csv", "csv.py has the name of a module that is in use already: rename it"),
    ],
)
def test_what_is_wrong_with_a_script_is_said_with_its_line(write: Write, text: str, said: str) -> None:
    path = write(script=text, helper="\n1 / 0", csv="")
    with pytest.raises(ScriptError) as caught:
        load_script(path)
    assert said in str(caught.value)


def test_a_script_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ScriptError, match=r"nowhere\.py cannot be read"):
        load_script(tmp_path / "nowhere.py")
