"""Logging in at a provider of OpenID Connect that takes registered redirect URIs and PKCE only."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from lake_testing.stack import Lake, free_ports, wait_until
from lake_testing.web_pages import RunningPages
from telemetry_lake.project_files import PROJECT_ROOT

PROVIDER = Path(__file__).with_name("open_id_provider.mjs")
MODULES = PROJECT_ROOT / "web" / "frontend" / "node_modules"
SECRET = "the secret of the client"


@dataclass(frozen=True, slots=True)
class Site:
    """The service, and the provider that it sends people to: another site than its own."""

    url: str
    provider: str

    def log_in(self, client: httpx.Client, name: str) -> httpx.Response:
        """Log in as a browser does, and return the answer to what the provider sends it back with."""
        begun = client.post(
            f"{self.url}/analyses/log-in/provider",
            data={"next": "/analyses/account"},
            headers={"Origin": self.url},
        )
        assert begun.status_code == 302, begun.text
        answer = client.get(begun.headers["location"])
        for _ in range(10):
            if answer.is_redirect and answer.headers["location"].startswith(self.url):
                break
            if answer.is_redirect:
                answer = client.get(httpx.URL(self.provider).join(answer.headers["location"]))
                continue
            # The provider's pages: who are you, and do you agree?
            action = re.search(r'action="([^"]+)"', answer.text)
            assert action is not None, answer.text
            prompt = "login" if 'name="login"' in answer.text else "consent"
            answer = client.post(action[1], data={"prompt": prompt, "login": name, "password": "any"})
        return client.get(answer.headers["location"])


@pytest.fixture(scope="module")
def site(new_lake: Callable[[], Lake], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    if not (MODULES / "oidc-provider").is_dir():
        pytest.skip("the npm packages are not installed: build_tools/build_pages.sh")
    folder = tmp_path_factory.mktemp("openid")
    pages = RunningPages(new_lake(), folder, DASHBOARD="false")
    port = free_ports(1)
    issuer = f"http://localhost:{port}"
    openid = {
        "ISSUER": issuer,
        "CLIENT_ID": "lake",
        "CLIENT_SECRET": SECRET,
        "ADMIN_GROUP": "lake-admins",
    }
    pages.add_settings(PUBLIC_URL=pages.url, **{f"OPENID__{name}": value for name, value in openid.items()})
    command = [
        str(Path(sys.executable).with_name("node")),
        str(PROVIDER),
        str(MODULES),
        str(port),
        f"{pages.url}/analyses/log-in/callback",
        SECRET,
    ]
    with (folder / "provider.log").open("wb") as log:
        provider = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        pages.start()
        wait_until(
            lambda: "listening" in (folder / "provider.log").read_text(),
            deadline_seconds=60,
            what="the provider listens",
        )
        yield Site(pages.url, issuer)
    finally:
        # The command is a script of the wheel, which starts Node.
        os.killpg(provider.pid, signal.SIGKILL)
        provider.wait()
        pages.kill()


def test_a_person_logs_in_with_name_groups_and_rights(site: Site) -> None:
    for name, is_admin in (("alice", False), ("root", True)):
        with httpx.Client(timeout=60) as client:
            back = site.log_in(client, name)
            assert (back.status_code, back.headers["location"]) == (303, "/analyses/account")
            page = client.get(f"{site.url}/analyses/account").text
            assert f"{name}@example.org" in page
            assert "perf" in page
            assert ("as an administrator" in page) is is_admin


def test_an_address_that_is_not_verified_is_refused(site: Site) -> None:
    with httpx.Client(timeout=60) as client:
        answer = site.log_in(client, "nobody")
        assert answer.status_code == 403
        assert "has not verified the address nobody@example.org" in answer.text
        assert client.get(f"{site.url}/analyses/account").status_code == 303


def test_a_log_in_that_was_begun_elsewhere_lets_nobody_in(site: Site) -> None:
    with httpx.Client(timeout=60) as client, httpx.Client(timeout=60) as victim:
        begun = client.post(f"{site.url}/analyses/log-in/provider", headers={"Origin": site.url})
        query = parse_qs(urlsplit(begun.headers["location"]).query)
        assert query["code_challenge_method"] == ["S256"]
        assert "nonce" in query
        callback = f"{site.url}/analyses/log-in/callback"
        # Another browser, and the same one with another state or a code that the provider never gave.
        sent = {"code": "stolen", "state": query["state"][0]}
        assert "was not begun here" in victim.get(callback, params=sent).text
        for parameters in (
            {**sent, "state": "other"},
            sent,
            {"error": "access_denied", "state": sent["state"]},
        ):
            answer = client.get(callback, params=parameters)
            assert answer.status_code == 403
            assert "The provider did not let you in" in answer.text
        forged = client.post(
            f"{site.url}/analyses/log-in/provider", headers={"Origin": "https://evil.example"}
        )
        assert forged.status_code == 403


def test_passwords_are_not_taken_beside_a_provider(site: Site) -> None:
    with httpx.Client(headers={"Origin": site.url}) as client:
        answer = client.post(f"{site.url}/analyses/log-in", data={"name": "admin", "password": "x"})
        assert answer.status_code == 404
        assert "There are no passwords here" in answer.text


def test_a_provider_needs_to_know_where_the_pages_are(
    new_lake: Callable[[], Lake], tmp_path_factory: pytest.TempPathFactory
) -> None:
    pages = RunningPages(new_lake(), tmp_path_factory.mktemp("openid"), DASHBOARD="false")
    environment = {
        **dict(pages.program.environment),
        "TELEMETRY_LAKE_WEB__OPENID__ISSUER": "http://localhost:1",
        "TELEMETRY_LAKE_WEB__OPENID__CLIENT_ID": "lake",
        "TELEMETRY_LAKE_WEB__OPENID__CLIENT_SECRET": SECRET,
    }
    done = subprocess.run(
        [sys.executable, "-m", "web"],
        env=environment,
        cwd=PROJECT_ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "TELEMETRY_LAKE_WEB__OPENID needs TELEMETRY_LAKE_WEB__PUBLIC_URL" in done.stderr
