"""What is a client id: a UUID that a client does not share with others."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

from telemetry_lake.failures import ConfigurationError

_UUID: Final = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_AS_SENT: Final = re.compile(rf"\{{({_UUID})\}}|({_UUID})", re.IGNORECASE)
"""Very old clients wrote braces around it, as Windows does."""
_LISTED: Final = re.compile(_UUID)

ClientIdOf = Callable[[str], str | None]
"""Turns what a ping sent as its client id into the value of the column `client_id`."""


def client_id_of(broken_ids: frozenset[str] = frozenset()) -> ClientIdOf:
    """Return a function that gives the UUID in lower case and without braces, however it was sent.

    It gives None for what is not a UUID, and for the `broken_ids`.
    """

    def client_id(sent: str) -> str | None:
        match = _AS_SENT.fullmatch(sent)
        if match is None:
            return None
        found = (match[1] or match[2]).lower()
        return None if found in broken_ids else found

    return client_id


def load_broken_client_ids(file: Path) -> frozenset[str]:
    """Load a list of ids, one a line, with comments behind `#`.

    Raises ConfigurationError, which names the line that is not a UUID in lower case.
    """
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"the list of broken client ids {file} cannot be read: {error}") from error
    ids = {number: line.partition("#")[0].strip() for number, line in enumerate(lines, 1)}
    for number, text in ids.items():
        if text and _LISTED.fullmatch(text) is None:
            raise ConfigurationError(f"{file}:{number}: {text!r} is not a UUID in lower case")
    return frozenset(text for text in ids.values() if text)
