"""What a script does with the arguments of `map`, by its source."""

import textwrap
from pathlib import Path

import pytest

from telemetry_lake.mapreduce.lazy.value_use import Use, uses_of
from telemetry_lake.mapreduce.script.script import load_script

HEAD = """
import json
import json as j
import helper
from json import loads
from helper import parse, measure

def own(text):
    return json.loads(text)

def forever(text):
    return forever(text)
"""


@pytest.mark.parametrize(
    "body, use",
    [
        ("cx.write(d[0], 1)", Use.UNUSED),
        ("cx.write(json.loads(v)['a'], 1)", Use.PARSED),
        ("cx.write(j.loads(v)['a'], loads(v))", Use.PARSED),
        ("cx.write(own(v), 1)", Use.PARSED),
        ("cx.write(parse(v), helper.parse(v))", Use.PARSED),
        ("v = json.loads(v)\n    cx.write(v['a'], len(v))", Use.PARSED),
        ("if d:\n        x = json.loads(v)", Use.PARSED),
        (
            "try:\n        v = json.loads(v)\n    except ValueError:\n        return\n    cx.write(v, 1)",
            Use.PARSED,
        ),
        (
            "try:\n        x = json.loads(v)\n    except ValueError:\n        cx.write(v, 1)\n        return",
            Use.WHOLE,
        ),
        (
            "try:\n        v = json.loads(v)\n    except ValueError:\n        pass\n    cx.write(v, 1)",
            Use.WHOLE,
        ),
        ("cx.write([json.loads(v)[x] for x in d], 1)", Use.PARSED),
        ("cx.write(len(v), json.loads(v))", Use.WHOLE),
        ("cx.write(helper.measure(v), json.loads(v))", Use.WHOLE),
        ("cx.write(json.loads(v, parse_float=str), 1)", Use.WHOLE),
        ("cx.write(json.loads(s=v), 1)", Use.WHOLE),
        ("cx.write(json.loads(*[v]), 1)", Use.WHOLE),
        ("json = d\n    cx.write(json.loads(v), 1)", Use.WHOLE),
        ("import json\n    cx.write(json.loads(v), 1)", Use.WHOLE),
        ("cx.write((lambda json: json.loads(v))(d), 1)", Use.WHOLE),
        ("cx.write(locals(), json.loads(v))", Use.WHOLE),
        ("cx.write(forever(v), 1)", Use.WHOLE),
        ("w = v\n    cx.write(json.loads(w), 1)", Use.WHOLE),
        ("if d:\n        v = '1'\n    json.loads(v)", Use.WHOLE),
        ("cx.write(d.get(v), 1)", Use.WHOLE),
    ],
)
def test_use_of_the_value(tmp_path: Path, body: str, use: Use) -> None:
    (tmp_path / "helper.py").write_text(
        "import json\ndef parse(text, more=1): return json.loads(text)\ndef measure(text): return len(text)\n"
    )
    (tmp_path / "script.py").write_text(f"{HEAD}\ndef map(k, d, v, cx):\n    {body}\n")
    assert uses_of(load_script(tmp_path / "script.py"), lazy=True).value is use


@pytest.mark.parametrize(
    "text, uses",
    [
        ("def map(k, d, v, cx): cx.write(k, 1)", (Use.WHOLE, Use.UNUSED, Use.UNUSED)),
        (
            "def map(k, d, v, cx):\n    def inner(): cx.write(d, 1)\n    inner()",
            (Use.UNUSED, Use.WHOLE, Use.UNUSED),
        ),
        ("def map(*all): pass", (Use.WHOLE,) * 3),
        (
            "map = lambda k, d, v, cx: cx.write(json.loads(v), 1)\nimport json",
            (Use.UNUSED, Use.UNUSED, Use.PARSED),
        ),
        ("import functools\n@functools.cache\ndef map(k, d, v, cx): pass", (Use.WHOLE,) * 3),
        ("class Map:\n    def __call__(self, k, d, v, cx): pass\nmap = Map()", (Use.WHOLE,) * 3),
    ],
)
def test_use_of_all_arguments(tmp_path: Path, text: str, uses: tuple[Use, ...]) -> None:
    (tmp_path / "script.py").write_text(textwrap.dedent(text))
    script = load_script(tmp_path / "script.py")
    assert uses_of(script, lazy=True) == uses
    assert uses_of(script, lazy=False) == (Use.WHOLE,) * 3
