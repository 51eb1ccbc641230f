"""Files that only their owner may read: credentials, and configuration that holds credentials."""

import os
import secrets
from pathlib import Path
from typing import Final

SECRET_BYTES: Final = 32


def write_secret_file(path: Path, text: str) -> None:
    """Write `text` to `path`, mode 0600 from its first byte on, in one step for its readers."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.unlink(missing_ok=True)
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    unfinished.replace(path)


def secret(directory: Path, name: str) -> str:
    """Return the secret `name` of `directory` (mode 0700), which is generated at the first call."""
    path = directory / name
    if not path.is_file():
        directory.mkdir(parents=True, exist_ok=True)
        directory.chmod(0o700)
        write_secret_file(path, secrets.token_urlsafe(SECRET_BYTES))
    return path.read_text(encoding="utf-8")
