"""JSON text to Python values and back, for what orjson does not take.

That is integers of more than 64 bits, and halves of surrogate pairs: `\\ud83d` without the other half, which
a client sends when it cuts a text in the middle of an emoji. The standard library knows both, and calls
itself for each level of a document: whether it can read one depends on how deep its caller stands. Nothing
here does that. What is read is otherwise what orjson reads, to the last detail.
"""

import json
import math
import re
from collections.abc import Callable, Iterator
from json.decoder import scanstring  # type: ignore[attr-defined]  # typeshed does not have it
from typing import Any, Final

import orjson

_SPACES: Final = re.compile(r"[ \t\n\r]*")
_SCALAR: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?|true|false|null")
_WORDS: Final[dict[str, object]] = {"true": True, "false": False, "null": None}
_SURE_DIGITS: Final = 300
"""A number with fewer characters and without an exponent is not beyond a double."""

_Container = dict[str, object] | list[object]


def read_exactly(text: bytes) -> object:
    """Return the JSON value in `text`; raises ValueError when it is not JSON in UTF-8."""
    characters = text.decode()
    holders: list[_Container] = []
    names: list[str] = []
    at = _past_spaces(characters, 0)
    while True:
        begin = characters[at : at + 1]
        value: Any
        if begin in ("{", "["):
            value = {} if begin == "{" else []
            at = _past_spaces(characters, at + 1)
            if characters[at : at + 1] != _end_of(value):
                holders.append(value)
                if begin == "{":
                    at = _read_name(characters, at, names)
                continue
            at += 1
        elif begin == '"':
            value, at = scanstring(characters, at + 1, True)
        else:
            value, at = _read_scalar(characters, at)
        while True:
            at = _past_spaces(characters, at)
            if not holders:
                if at < len(characters):
                    raise ValueError(f"something follows the document at character {at}")
                return value
            holder = holders[-1]
            if isinstance(holder, dict):
                holder[names.pop()] = value
            else:
                holder.append(value)
            behind = characters[at : at + 1]
            at += 1
            if behind == ",":
                at = _past_spaces(characters, at)
                if isinstance(holder, dict):
                    at = _read_name(characters, at, names)
                break
            if behind != _end_of(holder):
                raise ValueError(f"neither a comma nor a closing bracket at character {at - 1}")
            value = holders.pop()


def write_exactly(value: object, *, sort_names: bool = False) -> str:
    """Return the text of a JSON value, without spaces; halves of surrogate pairs are written as escapes.

    Raises TypeError for what is not a JSON value.
    """
    parts: list[str] = []
    pending: list[tuple[Iterator[tuple[str, object]], str]] = [(iter([("", value)]), "")]
    while pending:
        members, end = pending[-1]
        for before, member in members:
            parts.append(before)
            if isinstance(member, dict):
                parts.append("{")
                pending.append((_named_members(member, sort_names=sort_names), "}"))
                break
            if isinstance(member, list):
                parts.append("[")
                pending.append((_elements(member), "]"))
                break
            parts.append(_scalar_text(member))
        else:
            pending.pop()
            parts.append(end)
    return "".join(parts)


def with_texts(value: object, change: Callable[[str], str]) -> Any:
    """Return a copy of a JSON value in which `change` was made to every text, names included."""

    def changed(member: object) -> object:
        return change(member) if isinstance(member, str) else member

    return with_members(value, changed, change)


def with_members(
    value: object, change: Callable[[object], object], rename: Callable[[str], str] | None = None
) -> Any:
    """Return a copy of a JSON value in which `change` was made to every member that has none itself."""
    whole: list[object] = [value]
    pending: list[Any] = [whole]
    while pending:
        holder = pending.pop()
        members: list[tuple[Any, object]] = list(
            holder.items() if isinstance(holder, dict) else enumerate(holder)
        )
        if rename is not None and isinstance(holder, dict):
            holder.clear()
            members = [(rename(name), member) for name, member in members]
        for place, member in members:
            if isinstance(member, dict | list):
                copy: Any = member.copy()
                pending.append(copy)
            else:
                copy = change(member)
            holder[place] = copy
    return whole[0]


def texts_in(value: object) -> Iterator[str]:
    """Yield every text in a JSON value, names included."""
    pending = [value]
    while pending:
        member = pending.pop()
        if isinstance(member, str):
            yield member
        elif isinstance(member, dict):
            yield from member
            pending.extend(member.values())
        elif isinstance(member, list):
            pending.extend(member)


def _past_spaces(characters: str, at: int) -> int:
    match = _SPACES.match(characters, at)
    return at if match is None else match.end()


def _end_of(container: _Container) -> str:
    return "}" if isinstance(container, dict) else "]"


def _read_name(characters: str, at: int, names: list[str]) -> int:
    """Put the name at `at` behind the others; return where its value begins."""
    if characters[at : at + 1] != '"':
        raise ValueError(f"no name at character {at}")
    name, at = scanstring(characters, at + 1, True)
    at = _past_spaces(characters, at)
    if characters[at : at + 1] != ":":
        raise ValueError(f"no colon at character {at}")
    names.append(name)
    return _past_spaces(characters, at + 1)


def _read_scalar(characters: str, at: int) -> tuple[object, int]:
    match = _SCALAR.match(characters, at)
    if match is None:
        raise ValueError(f"no value at character {at}")
    text = match[0]
    if text in _WORDS:
        return _WORDS[text], match.end()
    is_whole = match[1] is None and match[2] is None
    if is_whole and len(text) < _SURE_DIGITS:
        return int(text), match.end()
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"a number beyond a double at character {at}")
    return int(text) if is_whole else number, match.end()


def _named_members(value: dict[str, object], *, sort_names: bool) -> Iterator[tuple[str, object]]:
    comma = ""
    for name in sorted(value) if sort_names else value:
        yield f"{comma}{_scalar_text(name)}:", value[name]
        comma = ","


def _elements(value: list[object]) -> Iterator[tuple[str, object]]:
    comma = ""
    for member in value:
        yield comma, member
        comma = ","


def _scalar_text(value: object) -> str:
    if type(value) is int:
        return str(value)
    try:
        return orjson.dumps(value).decode()
    except TypeError:
        if isinstance(value, str):  # with a half of a surrogate pair
            return json.dumps(value)
        raise
