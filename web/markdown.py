"""The Markdown of this project's own documents as HTML: what they use of it, and everything else as text.

Every character of a document is escaped, so no document can bring markup of its own into a page. A link leads
to another document of this server, to a place in the page, or, where it leads to another server, is shown
with its address as text: the reader of a runbook may be in a network that reaches nothing else.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

DOCUMENTS: Final = "/docs"
CODE_INDENT: Final = 4
_HEADING: Final = re.compile(r"(#{1,6}) +(.+?)\s*#*$")
_ITEM: Final = re.compile(r"(?P<indent> *)(?P<mark>[-*]|\d{1,3}\.) +(?P<text>.*)$")
_RULER: Final = re.compile(r"^\|?[ :|-]+\|?$")
_INLINE: Final = re.compile(
    r"`(?P<code>[^`]+)`"
    r"|\*\*(?P<strong>.+?)\*\*"
    r"|(?<![\w*])\*(?P<emphasis>[^*\s](?:[^*]*[^*\s])?)\*(?![\w*])"
    r"|!\[(?P<picture>[^\]]*)\]\([^)\s]*\)"
    r"|\[(?P<text>[^\]]+)\]\((?P<target>[^)\s]+)\)"
    r"|<(?P<address>https?://[^>\s]+)>"
)
_DOCUMENT: Final = re.compile(r"(?:docs/)?(?P<name>[a-z_]+)\.md(?P<anchor>#[\w-]*)?")


@dataclass(frozen=True, slots=True)
class Section:
    """A heading and what follows it until the next heading of the same level or a higher one."""

    title: str
    anchor: str
    level: int
    lines: tuple[str, ...]


def anchor_of(title: str) -> str:
    """Return the anchor of a heading, as GitHub makes it."""
    return re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")


def sections(text: str) -> list[Section]:
    """Return the sections of a document, each with those below it in its lines."""
    lines = text.splitlines()
    headings = [
        (number, found) for number, line in _outside_of_code(lines) if (found := _HEADING.match(line))
    ]
    made = []
    for place, (number, heading) in enumerate(headings):
        level, title = len(heading[1]), heading[2]
        following = (other for other, next_one in headings[place + 1 :] if len(next_one[1]) <= level)
        end = next(following, len(lines))
        made.append(Section(title, anchor_of(title), level, tuple(lines[number + 1 : end])))
    return made


def html_of(lines: Sequence[str]) -> str:
    """Return lines of Markdown as HTML that is safe to show."""
    return "\n".join(_blocks(list(lines)))


def _outside_of_code(lines: Sequence[str]) -> Iterator[tuple[int, str]]:
    is_code = False
    for number, line in enumerate(lines):
        if line.lstrip().startswith("```"):
            is_code = not is_code
        elif not is_code:
            yield number, line


def _blocks(lines: list[str]) -> Iterator[str]:
    at = 0
    while at < len(lines):
        line = lines[at]
        if not line.strip():
            at += 1
            continue
        if line.startswith("```"):
            end = next((n for n in range(at + 1, len(lines)) if lines[n].startswith("```")), len(lines))
            yield _code(lines[at + 1 : end])
            at = end + 1
            continue
        if found := _HEADING.match(line):
            yield _heading(found)
            at += 1
            continue
        end = _end_of_block(lines, at)
        block, at = lines[at:end], end
        if line.startswith(" " * CODE_INDENT):
            yield _code([each[CODE_INDENT:] for each in block])
        elif line.startswith("|"):
            yield _table(block)
        elif _ITEM.match(line):
            yield _list(block)
        else:
            yield f"<p>{_inline(' '.join(each.strip() for each in block))}</p>"


def _end_of_block(lines: Sequence[str], at: int) -> int:
    """Return where the table, list, indented code or paragraph ends that begins at `at`."""
    first = lines[at]
    is_list, is_code = _ITEM.match(first) is not None, first.startswith(" " * CODE_INDENT)
    end = at + 1
    while end < len(lines):
        line = lines[end]
        if not line.strip():
            # A list and indented code go on after an empty line when what follows is indented, or an item.
            following = next((each for each in lines[end:] if each.strip()), "")
            goes_on = (is_list and (following.startswith("  ") or _ITEM.match(following) is not None)) or (
                is_code and following.startswith(" " * CODE_INDENT)
            )
            if not goes_on:
                break
        elif _begins_another(line, is_list=is_list, is_code=is_code, is_table=first.startswith("|")):
            break
        end += 1
    return end


def _begins_another(line: str, *, is_list: bool, is_code: bool, is_table: bool) -> bool:
    """Return whether a line that follows without an empty one before it is no part of the same block."""
    if is_code:
        return not line.startswith(" " * CODE_INDENT)
    if _HEADING.match(line) or line.startswith("```"):
        return True
    if is_list:
        return False
    return is_table != line.startswith("|") or _ITEM.match(line) is not None


def _heading(found: re.Match[str]) -> str:
    level, title = len(found[1]), found[2]
    return f'<h{level} id="{escape(anchor_of(title))}">{_inline(title)}</h{level}>'


def _code(lines: Sequence[str]) -> str:
    return f'<pre tabindex="0"><code>{escape(chr(10).join(lines).rstrip())}</code></pre>'


def _table(lines: Sequence[str]) -> str:
    rows = [_cells(line) for line in lines if not _RULER.match(line)]
    head, *body = rows
    first = "".join(f'<th scope="col">{_inline(cell) or "&nbsp;"}</th>' for cell in head)
    rest = "".join(f"<tr>{''.join(f'<td>{_inline(cell)}</td>' for cell in row)}</tr>" for row in body)
    table = f"<table><thead><tr>{first}</tr></thead><tbody>{rest}</tbody></table>"
    return f'<div class="scroll" tabindex="0" role="region" aria-label="Table">{table}</div>'


def _cells(line: str) -> list[str]:
    # A bar in code or behind a backslash is a character of its cell.
    parts = re.split(r"(?<!\\)\|(?=(?:[^`]*`[^`]*`)*[^`]*$)", line.strip().strip("|"))
    return [part.strip().replace("\\|", "|") for part in parts]


def _list(lines: Sequence[str]) -> str:
    first = _ITEM.match(lines[0])
    assert first is not None
    indent, tag = len(first["indent"]), "ol" if first["mark"].endswith(".") else "ul"
    items: list[list[str]] = []
    for line in lines:
        found = _ITEM.match(line)
        if found and len(found["indent"]) <= indent:
            items.append([found["text"]])
            width = len(line) - len(found["text"])
        else:
            items[-1].append(line[min(width, len(line) - len(line.lstrip())) :])
    return f"<{tag}>{''.join(f'<li>{_item(item)}</li>' for item in items)}</{tag}>"


def _item(lines: list[str]) -> str:
    content = html_of(lines)
    # An item that is one paragraph, perhaps with a list below it, is shown without the distances of one.
    only = re.fullmatch(r"<p>(.*?)</p>(\n<[uo]l>.*)?", content, re.DOTALL)
    return content if only is None or "<p>" in only[1] else only[1] + (only[2] or "")


def _inline(text: str) -> str:
    parts, at = [], 0
    for found in _INLINE.finditer(text):
        parts += [escape(text[at : found.start()]), _marked(found)]
        at = found.end()
    return "".join([*parts, escape(text[at:])])


def _marked(found: re.Match[str]) -> str:
    kind = found.lastgroup
    if kind == "code":
        return f"<code>{escape(found['code'])}</code>"
    if kind == "strong":
        return f"<strong>{_inline(found['strong'])}</strong>"
    if kind == "emphasis":
        return f"<em>{_inline(found['emphasis'])}</em>"
    if kind == "picture":
        return f"<em>{escape(found['picture'])}</em>"
    if kind == "address":
        return f"<code>{escape(found['address'])}</code>"
    text, target = _inline(found["text"]), found["target"]
    if document := _DOCUMENT.fullmatch(target):
        target = f"{DOCUMENTS}/{document['name']}{document['anchor'] or ''}"
    elif not target.startswith("#"):
        return text if found["text"].strip("`") == target else f"{text} (<code>{escape(target)}</code>)"
    return f'<a href="{escape(target)}">{text}</a>'
