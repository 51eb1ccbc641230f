"""The users file: names, groups and hashed passwords, where no provider of OpenID Connect logs people in.

`python -m web.analyses.users` adds, changes and removes users; a running server reads the file again when it
has changed.
"""

import argparse
import base64
import getpass
import hashlib
import hmac
import os
import re
import secrets
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from telemetry_lake.failures import ConfigurationError, TelemetryLakeError
from telemetry_lake.settings import load_settings

ADMIN: Final = "admin"
PERSON_PATTERN: Final = r"^[a-z0-9][a-z0-9._@+-]{0,99}$"
GROUP_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9._ /-]{0,99}$"
PASSWORD_MIN_CHARACTERS: Final = 10
PASSWORD_MAX_CHARACTERS: Final = 1_000
GENERATED_PASSWORD_BYTES: Final = 18
FAILED_ATTEMPTS_MAX_COUNT: Final = 5
FAILED_ATTEMPTS_SECONDS: Final = 300
ATTEMPTED_NAMES_MAX_COUNT: Final = 10_000
_COST: Final = 2**15
_BLOCK: Final = 8
_PARALLEL: Final = 3
"""OWASP's parameters for 32 MiB: about a quarter of a second on one core."""
_SALT_BYTES: Final = 16
_MEMORY_MAX_BYTES: Final = 2**26
_HASHES_AT_ONCE: Final = 2


class TooManyAttempts(Exception):
    """A name has had too many wrong passwords lately."""


class User(BaseModel):
    """One user of the file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    password: Annotated[str, Field(pattern=r"^scrypt\$\d+\$\d+\$\d+\$[A-Za-z0-9+/=]+\$[A-Za-z0-9+/=]+$")]
    """`scrypt$<cost>$<block size>$<parallelism>$<salt>$<hash>`, the last two in Base64."""
    groups: tuple[Annotated[str, Field(pattern=GROUP_PATTERN)], ...] = ()
    admin: bool = False

    @property
    def fingerprint(self) -> str:
        """A value that changes with the password: sessions that began with another one end."""
        return hashlib.sha256(self.password.encode()).hexdigest()[:16]


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    users: dict[Annotated[str, Field(pattern=PERSON_PATTERN)], User]


class UsersFile:
    """The file, read again whenever it has changed. Safe for several threads."""

    def __init__(self, path: Path) -> None:
        """Create the file, with one administrator, when it does not exist.

        Raises ConfigurationError when it cannot be created or read.
        """
        self._path = path
        self._mutex = threading.Lock()
        self._hashing = threading.BoundedSemaphore(_HASHES_AT_ONCE)
        self._read_of: tuple[int, int, int] | None = None
        self._users: Mapping[str, User] = {}
        self._failed: dict[tuple[str, str], deque[float]] = {}
        # An unknown name must take as long as a wrong password.
        self._nobody = User(password=hashed(secrets.token_urlsafe(_SALT_BYTES)))
        if not path.exists():
            _create(path)
        self.user(ADMIN)

    def user(self, name: str) -> User | None:
        """Return the user with this name; raises ConfigurationError when the file cannot be used."""
        with self._mutex:
            try:
                state = self._path.stat()
                seen = (state.st_mtime_ns, state.st_ino, state.st_size)
                if seen != self._read_of:
                    self._users = read_users(self._path)
                    self._read_of = seen
            except OSError as error:
                raise ConfigurationError(f"the users file {self._path} cannot be read: {error}") from error
            return self._users.get(name)

    def log_in(self, name: str, password: str, address: str) -> User | None:
        """Return the user whose name and password these are, and None when they are not right.

        `address` is the client's. Raises TooManyAttempts when this name had too many wrong passwords from
        there.
        """
        who = (name, address)
        self._check_attempts(who)
        user = self.user(name)
        with self._hashing:
            is_right = is_password_of(user or self._nobody, password[:PASSWORD_MAX_CHARACTERS])
        if user is not None and is_right:
            with self._mutex:
                self._failed.pop(who, None)
            return user
        with self._mutex:
            if len(self._failed) >= ATTEMPTED_NAMES_MAX_COUNT:
                self._failed.clear()
            self._failed.setdefault(who, deque(maxlen=FAILED_ATTEMPTS_MAX_COUNT)).append(time.monotonic())
        return None

    def _check_attempts(self, who: tuple[str, str]) -> None:
        with self._mutex:
            attempts = self._failed.get(who, ())
            earliest = time.monotonic() - FAILED_ATTEMPTS_SECONDS
            if sum(at > earliest for at in attempts) >= FAILED_ATTEMPTS_MAX_COUNT:
                raise TooManyAttempts


def hashed(password: str) -> str:
    """Return what the file holds of a password."""
    salt = secrets.token_bytes(_SALT_BYTES)
    digest = _scrypt(password, salt, _COST, _BLOCK, _PARALLEL)
    encoded = [base64.b64encode(part).decode() for part in (salt, digest)]
    return "$".join(("scrypt", str(_COST), str(_BLOCK), str(_PARALLEL), *encoded))


def is_password_of(user: User, password: str) -> bool:
    """Return whether this is the user's password."""
    _, cost, block, parallel, salt, digest = user.password.split("$")
    computed = _scrypt(password, base64.b64decode(salt), int(cost), int(block), int(parallel))
    return hmac.compare_digest(computed, base64.b64decode(digest))


def read_users(path: Path) -> dict[str, User]:
    """Return the users of a file; raises ConfigurationError, and OSError when it cannot be read."""
    try:
        return _File.model_validate_json(path.read_bytes()).users
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigurationError(f"the users file {path}: {where}: {first['msg']}") from error


def write_users(path: Path, users: Mapping[str, User]) -> None:
    """Replace the file in one step; only its owner may read it."""
    _write_private(path, _File(users=dict(users)).model_dump_json(indent=2) + "\n")


def password_file(users_file: Path) -> Path:
    """Return where the first password of `admin` is left."""
    return users_file.with_name("admin_password")


def _create(path: Path) -> None:
    password = secrets.token_urlsafe(GENERATED_PASSWORD_BYTES)
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        _write_private(password_file(path), password + "\n")
        write_users(path, {ADMIN: User(password=hashed(password), admin=True)})
    except OSError as error:
        raise ConfigurationError(
            f"the users file {path} cannot be created: {error}; set TELEMETRY_LAKE_WEB__USERS_FILE"
        ) from error


def _write_private(path: Path, text: str) -> None:
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.unlink(missing_ok=True)
    with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    unfinished.replace(path)


def _scrypt(password: str, salt: bytes, cost: int, block: int, parallel: int) -> bytes:
    return hashlib.scrypt(
        password.encode(), salt=salt, n=cost, r=block, p=parallel, maxmem=_MEMORY_MAX_BYTES, dklen=32
    )


def main() -> int:
    """Change the users file as the command line says, and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m web.analyses.users",
        description="Change who may log in to the analysis service (TELEMETRY_LAKE_WEB__USERS_FILE).",
    )
    parser.add_argument("--env-file", type=Path, help="a file with settings, one NAME=value a line")
    parser.add_argument("--users-file", type=Path, help="another users file than that of the settings")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="show the names, without passwords")
    add = commands.add_parser("add", help="add a user, or give one another password and other groups")
    add.add_argument("name")
    add.add_argument("--group", action="append", default=[], help="a group; may be given several times")
    add.add_argument("--admin", action="store_true", help="sees and changes the jobs of all")
    remove = commands.add_parser("remove", help="remove a user; the jobs stay")
    remove.add_argument("name")
    arguments = parser.parse_args()
    try:
        path = arguments.users_file or load_settings(arguments.env_file).web.users_file
        print(_changed(path, arguments))
    except (TelemetryLakeError, OSError) as error:
        print(f"web.analyses.users: {error}", file=sys.stderr)
        return 1
    return 0


def _changed(path: Path, arguments: argparse.Namespace) -> str:
    if not path.exists():
        _create(path)
    users = read_users(path)
    if arguments.command == "list":
        return "\n".join(
            f"{name}{' (admin)' if user.admin else ''}: {', '.join(user.groups) or 'no group'}"
            for name, user in sorted(users.items())
        )
    if arguments.command == "remove":
        if users.pop(arguments.name, None) is None:
            raise ConfigurationError(f"{path} has no user {arguments.name}")
        write_users(path, users)
        return f"removed {arguments.name}; its sessions and tokens have ended"
    if not re.match(PERSON_PATTERN, arguments.name):
        raise ConfigurationError(
            f"{arguments.name[:100]!r} is not a name: small letters, digits and . _ @ + - are possible"
        )
    password = getpass.getpass("Password: ") if sys.stdin.isatty() else sys.stdin.readline().rstrip("\n")
    if not PASSWORD_MIN_CHARACTERS <= len(password) <= PASSWORD_MAX_CHARACTERS:
        raise ConfigurationError(
            f"the password has {len(password):,} characters; "
            f"{PASSWORD_MIN_CHARACTERS} to {PASSWORD_MAX_CHARACTERS:,} are possible"
        )
    try:
        users[arguments.name] = User(
            password=hashed(password), groups=tuple(arguments.group), admin=arguments.admin
        )
    except ValidationError as error:
        raise ConfigurationError(f"--group: {error.errors(include_url=False)[0]['msg']}") from error
    write_users(path, users)
    return f"{arguments.name} may log in"


if __name__ == "__main__":
    sys.exit(main())
