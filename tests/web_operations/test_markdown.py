"""Documents and runbooks as HTML: what they use of Markdown is shown, and nothing of them becomes markup."""

import re
from pathlib import Path

import pytest

from telemetry_lake.project_files import PROJECT_ROOT
from web.markdown import html_of, sections
from web.operations.runbooks import RUNBOOKS_FILE, read_runbooks

DOCUMENTS = sorted((PROJECT_ROOT / "docs").glob("*.md"))
RUNBOOKS = """# Runbooks

One for each alarm.

## How to use them

Read.

## DeadLetters

**See.** `python -m telemetry_lake dead-letters`, then <https://example.org/x>:

1. Look at <b>it</b>:

   ```sh
   # not a heading
   make query SQL="a < b"
   ```
2. See [the drain](drain.md#the-drain), [below](#queueold), or [code](../telemetry_lake/units.py).

### Mend

| a | b |
| --- | --- |
| `x|y` | \\| |

## QueueOld

- one
  goes on
  - two
"""


def test_a_runbook_is_a_section_with_what_is_below_it(tmp_path: Path) -> None:
    file = tmp_path / "runbooks.md"
    file.write_text(RUNBOOKS)
    runbooks = read_runbooks(file)
    assert list(runbooks) == ["deadletters", "queueold"]
    html = runbooks["deadletters"].html
    assert "<strong>See.</strong>" in html
    assert "<code>python -m telemetry_lake dead-letters</code>" in html
    assert "&lt;b&gt;it&lt;/b&gt;" in html
    assert "# not a heading\nmake query SQL=&quot;a &lt; b&quot;</code></pre></li><li>See" in html
    assert '<a href="/docs/drain#the-drain">the drain</a>' in html
    assert '<a href="#queueold">below</a>' in html
    assert re.findall(r'href="([^"]*)"', html) == ["/docs/drain#the-drain", "#queueold"]
    assert "<td><code>x|y</code></td><td>|</td>" in html
    assert '<h3 id="mend">Mend</h3>' in html
    assert "<ul><li>one goes on\n<ul><li>two</li></ul></li></ul>" in runbooks["queueold"].html
    assert read_runbooks(tmp_path / "missing.md") == {}


@pytest.mark.parametrize("document", DOCUMENTS, ids=[document.stem for document in DOCUMENTS])
def test_no_document_leaves_marks_of_markdown_in_its_page(document: Path) -> None:
    html = html_of(document.read_text().splitlines())
    text = re.sub(r"<pre.*?</pre>|<code>.*?</code>", "", html, flags=re.DOTALL)
    assert re.findall(r".*(?:\]\(|\*\*|```|^#+ |\| ---).*", text, re.MULTILINE) == []
    assert html.count("<p>") == html.count("</p>")
    assert html.count("<li>") == html.count("</li>")
    anchors = {section.anchor for section in sections(document.read_text())}
    assert anchors == set(re.findall(r'<h\d id="([^"]*)"', html))


@pytest.mark.skipif(not RUNBOOKS_FILE.is_file(), reason="there are no runbooks yet")
def test_every_runbook_is_found_and_shown() -> None:
    assert all(len(runbook.html) > 100 for runbook in read_runbooks().values())
    assert read_runbooks()
