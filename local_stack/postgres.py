"""PostgreSQL for Airflow's metadata, where it is installed and can be run."""

import os
import pwd
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from local_stack.configuration import Database
from local_stack.program import LOOPBACK, Program, Step, Unhealthy

USER: Final = "airflow"
DATABASE: Final = "postgres"
UNPRIVILEGED_USERS: Final = ("postgres", "nobody")
"""The user that root becomes to run PostgreSQL, which refuses to run as root: the first that exists."""
CONNECT_TIMEOUT_SECONDS: Final = 3
_INSTALLED: Final = Path("/usr/lib/postgresql")


@dataclass(frozen=True, slots=True)
class Postgres:
    """One PostgreSQL cluster in `data_directory`, listening on loopback TCP only."""

    data_directory: Path
    log_file: Path
    binaries: Path
    port: int
    password: str
    user: str | None
    """The unprivileged user that runs it; None for the user of the stack."""

    def initialisation(self, name: str = "postgres-init") -> Step | None:
        """Return the step that makes the cluster, None when it exists; a cut-off attempt is repeated."""
        if (self._cluster / "PG_VERSION").exists():
            return None
        password_file = self.data_directory / "password"
        script = (
            'rm -rf "$2.new" && "$1/initdb" -D "$2.new" -U "$3" --pwfile="$4" --auth=scram-sha-256 '
            '--encoding=UTF8 --locale=C.UTF-8 --no-sync && sync && mv "$2.new" "$2" && rm "$4"'
        )
        return Step(
            name=name,
            command=(
                "/bin/sh",
                "-c",
                script,
                name,
                str(self.binaries),
                str(self._cluster),
                USER,
                str(password_file),
            ),
            directory=self.data_directory,
            log_file=self.log_file.with_name(f"{name}.log"),
            files={password_file: self.password},
            user=self.user,
        )

    def program(self, *, after: tuple[str, ...], name: str = "postgres") -> Program:
        """Return the server process."""
        settings = {
            "listen_addresses": LOOPBACK,
            "port": str(self.port),
            "unix_socket_directories": "",
            "max_connections": "100",
        }
        return Program(
            name=name,
            command=(
                str(self.binaries / "postgres"),
                "-D",
                str(self._cluster),
                *(part for setting in settings.items() for part in ("-c", "=".join(setting))),
            ),
            directory=self.data_directory,
            log_file=self.log_file,
            check_health=self.check_health,
            after=after,
            user=self.user,
            ports={self.port: "LOCAL_STACK_POSTGRES_PORT"},
            # "Fast": without waiting for clients to disconnect.
            stop_signal="INT",
            stop_wait_seconds=20,
        )

    def check_health(self) -> None:
        """Log in and ask for 1; raises Unhealthy."""
        import psycopg2

        try:
            connection = psycopg2.connect(
                host=LOOPBACK,
                port=self.port,
                user=USER,
                password=self.password,
                dbname=DATABASE,
                connect_timeout=CONNECT_TIMEOUT_SECONDS,
            )
        except psycopg2.Error as error:
            raise Unhealthy(f"PostgreSQL at {LOOPBACK}:{self.port}: {error}") from error
        connection.close()

    @property
    def address(self) -> str:
        """User, password, host, port and database, as SQLAlchemy writes them after `driver://`."""
        return f"{USER}:{self.password}@{LOOPBACK}:{self.port}/{DATABASE}"

    @property
    def _cluster(self) -> Path:
        return self.data_directory / "cluster"


def find_binaries() -> Path | None:
    """Return the folder with `initdb` and `postgres`: from PATH, else the newest that Debian installed."""
    on_path = shutil.which("initdb")
    candidates = [Path(on_path).resolve().parent] if on_path else []
    if _INSTALLED.is_dir():
        versions = sorted(_INSTALLED.glob("*/bin"), key=lambda path: _version(path.parent.name), reverse=True)
        candidates.extend(versions)
    return next(
        (path for path in candidates if (path / "initdb").exists() and (path / "postgres").exists()), None
    )


def unprivileged_user() -> str | None:
    """Return the user that root becomes, None when this process is not root.

    Raises LookupError when no such user exists.
    """
    if os.geteuid() != 0:
        return None
    for name in UNPRIVILEGED_USERS:
        try:
            return pwd.getpwnam(name).pw_name
        except KeyError:
            continue
    raise LookupError("no user `postgres` or `nobody` exists")


def choose_database(data_directory: Path) -> tuple[Database, str]:
    """Return PostgreSQL when it can be run with its data in `data_directory`, else SQLite; and the reason."""
    binaries = find_binaries()
    if binaries is None:
        return Database.SQLITE, "PostgreSQL is not installed"
    try:
        user = unprivileged_user()
    except LookupError as error:
        return Database.SQLITE, f"PostgreSQL must not run as root, and {error}"
    if user is None:
        return Database.POSTGRESQL, f"{binaries}"
    data_directory.mkdir(parents=True, exist_ok=True)
    shutil.chown(data_directory, user)
    if not _can_write(data_directory, user):
        return Database.SQLITE, f"PostgreSQL must not run as root, and {user} cannot reach {data_directory}"
    return Database.POSTGRESQL, f"{binaries}, as {user}"


def _can_write(directory: Path, user: str) -> bool:
    account = pwd.getpwnam(user)
    return (
        subprocess.run(
            ("/usr/bin/test", "-w", str(directory)),
            user=account.pw_uid,
            group=account.pw_gid,
            extra_groups=[],
            check=False,
            cwd="/",
        ).returncode
        == 0
    )


def _version(name: str) -> tuple[int, ...]:
    return tuple(int(part) for part in name.split(".") if part.isdigit())
