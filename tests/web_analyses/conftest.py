"""The analysis service as a process of its own, over an S3 of its own, with three users."""

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from lake_testing.sample_pings import sample_pings
from lake_testing.stack import Lake
from lake_testing.web_pages import RunningPages
from telemetry_lake.tables.catalog import create_tables, load_lake_catalog

COOKIE = "analyses_session"
PASSWORDS = {"ada": "a password of ada", "bob": "a password of bob"}


@dataclass(frozen=True, slots=True)
class Service:
    """A running service, and where its first administrator's password is."""

    lake: Lake
    pages: RunningPages
    users_file: Path
    sessions: dict[str, str] = field(default_factory=dict)

    @property
    def admin_password(self) -> str:
        """The password that was generated at the first start."""
        return self.users_file.with_name("admin_password").read_text().strip()

    def users(self, *arguments: str, password: str = "") -> subprocess.CompletedProcess[str]:
        """Run the command that changes the users file."""
        return subprocess.run(
            [sys.executable, "-m", "web.analyses.users", "--users-file", str(self.users_file), *arguments],
            input=f"{password}\n",
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    @staticmethod
    def csrf(client: httpx.Client) -> str:
        """Return the token that the forms of a client's session carry."""
        found = re.search(r'name="csrf" value="([^"]+)"', client.get("/analyses/account").text)
        assert found is not None
        return found[1]

    def token_of(self, client: httpx.Client) -> dict[str, str]:
        """Return it as a header, as scripts of pages send it."""
        return {"X-CSRF-Token": self.csrf(client)}

    @contextmanager
    def browser(self, name: str = "", password: str = "", *, fresh: bool = False) -> Iterator[httpx.Client]:
        """Open a client that sends what a browser sends with forms, logged in if `name` is given.

        With a `fresh` session; else with one that other tests use, too.
        """
        with httpx.Client(base_url=self.pages.url, timeout=60, headers={"Origin": self.pages.url}) as client:
            if name and (fresh or password or name not in self.sessions):
                given = password or PASSWORDS.get(name) or self.admin_password
                answer = client.post("/analyses/log-in", data={"name": name, "password": given})
                assert answer.status_code == 303, answer.text
                if not fresh and not password:
                    self.sessions[name] = client.cookies[COOKIE]
            elif name:
                client.cookies.set(COOKIE, self.sessions[name])
            yield client


@pytest.fixture(scope="session")
def service(new_lake: Callable[[], Lake], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("analyses")
    lake = new_lake()
    pages = RunningPages(lake, folder, DASHBOARD="false")
    try:
        pages.start()
        service = Service(lake, pages, folder / "users.json")
        for name, group in (("ada", "perf"), ("bob", "search")):
            added = service.users("add", name, "--group", group, password=PASSWORDS[name])
            assert added.returncode == 0, added.stderr
        yield service
    finally:
        pages.kill()


@pytest.fixture(scope="session")
def filled(service: Service) -> None:
    """Have pings in the stable table of the service's lake."""
    catalog = load_lake_catalog(service.lake.settings)
    create_tables(catalog)
    catalog.load_table("stable.pings").append(sample_pings())
