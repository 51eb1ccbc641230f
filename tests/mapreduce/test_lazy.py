"""The switch of `mapreduce.lazy` changes the speed and nothing else."""

import json
import textwrap
from pathlib import Path

import pytest
from pyiceberg.table import Table

from lake_testing import mapreduce_reference
from lake_testing.mapreduce_phases import STABLE_PINGS, local_table, rows_of, run, task_of
from telemetry_lake.mapreduce.map_phase import columns_read
from telemetry_lake.mapreduce.reading.row_filter import RowFilter
from telemetry_lake.mapreduce.script.script import load_script
from telemetry_lake.tables.definitions import table_definition

SCRIPTS = {
    "no value": "def map(k, d, v, cx): cx.write(d[2], 1)",
    "no key": "def map(k, d, v, cx): cx.write(len(v), d)",
    "whole": "def map(k, d, v, cx): cx.write(k, v)",
    "parsed": "import json\ndef map(k, d, v, cx): cx.write(k, sorted(json.loads(v)))",
    "parsed and written": "import json\ndef map(k, d, v, cx): cx.write(k, json.loads(v))",
    "from": "from json import loads\ndef map(k, d, v, cx): cx.write(k, json_of(v))\njson_of = loads",
    "in a helper": "import helping\ndef map(k, d, v, cx): cx.write(k, helping.histograms(v))",
    "both": "import json\ndef map(k, d, v, cx): cx.write(len(v), json.loads(v).get('clientId'))",
    "one histogram": """
        import json
        def map(k, d, v, cx):
            histograms = json.loads(v).get("payload", {}).get("histograms", {})
            cx.write(k, histograms.get("A_MS"))
            cx.write("B" in histograms, len(histograms))
        """,
    "changed": """
        import json
        def map(k, d, v, cx):
            v = json.loads(v)
            v.get("payload", {}).get("histograms", {}).update(new=[1])
            cx.write(k, json.dumps(v))
        """,
    "own json": """
        import json as reader
        def map(k, d, v, cx):
            cx.write(reader.dumps(reader.loads(v), sort_keys=True), reader.loads("[1]"))
        """,
    "reduced": """
        import json
        def map(k, d, v, cx): cx.write(d[2], json.loads(v))
        def reduce(k, v, cx): cx.write(k, [sorted(one) for one in v])
        """,
    "fields": "fields = ('os',)\ndef map(k, d, v, cx): cx.write(k, v['os'])",
}
HELPER = """
import json
def histograms(text):
    return json.loads(text).get("payload", {}).get("keyedHistograms")
"""


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Table:
    return local_table(tmp_path_factory.mktemp("lake"))


@pytest.fixture(params=[True, False], ids=["on", "off"])
def lazy(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_gives_the_same_with_the_switch_on_and_off(
    name: str, lazy: bool, table: Table, tmp_path: Path
) -> None:
    (tmp_path / "helping.py").write_text(HELPER)
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(SCRIPTS[name]))
    if name == "fields":
        rows = table.scan(selected_fields=("document_id", "os")).to_arrow().to_pylist()
        expected = "".join(f"{row['document_id']}\t{row['os']}\n" for row in rows)
    else:
        expected = mapreduce_reference.run(load_script(script), rows_of(table))
    assert run(table, script, lazy=lazy)[0] == expected != ""


def test_nothing_of_a_script_is_changed_when_the_switch_is_off(
    table: Table, tmp_path: Path, lazy: bool
) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import json\n"
        "def map(k, d, v, cx):\n    cx.write(type(json.loads(v)).__name__, type(json).__name__)\n"
        "    cx.write(type(json.loads(v).get('payload', {}).get('histograms', {})).__name__, 1)\n"
    )
    output = run(table, script, lazy=lazy)[0]
    assert ("LazyDict" in output, "LazyJson" in output) == (lazy, lazy)
    assert "dict" in output.lower()
    assert json.loads("{}") == {}


def test_everything_is_read_when_the_switch_is_off(table: Table, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("def map(k, d, v, cx): cx.write(1, 1)")
    assert task_of(table, script).read.types.names == []
    everything = tmp_path / "everything.py"
    everything.write_text("def map(k, d, v, cx): cx.write((k, d), v)")
    definition = table_definition(STABLE_PINGS)
    assert task_of(table, script, lazy=False).read == columns_read(
        load_script(everything), definition, RowFilter()
    )
