"""Who gets in, who does not, and what a page of another site can do: nothing."""

import re
import stat
from datetime import date
from typing import Any

import httpx
import pytest

from telemetry_lake.storage.object_keys import ANALYSIS_SESSION_PREFIX
from telemetry_lake.storage.object_store import ObjectStore
from web.analyses.access import Access

COOKIE = "analyses_session"


def is_logged_in(client: httpx.Client) -> bool:
    answer = client.get("/analyses/account")
    assert answer.status_code == 200 or answer.headers["location"].startswith("/analyses/log-in?next=")
    return answer.status_code == 200


def test_the_first_start_makes_an_administrator_whose_password_only_the_owner_can_read(service: Any) -> None:
    for path in (service.users_file, service.users_file.with_name("admin_password")):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert service.admin_password not in service.users_file.read_text()
    with service.browser("admin") as client:
        assert "as an administrator" in client.get("/analyses/account").text


def test_a_stranger_is_sent_to_the_log_in_and_back(service: Any) -> None:
    with service.browser() as client:
        answer = client.get("/analyses/account?x=1")
        assert answer.status_code == 303
        assert answer.headers["location"] == "/analyses/log-in?next=%2Fanalyses%2Faccount%3Fx%3D1"
        page = client.get(answer.headers["location"])
        assert 'value="/analyses/account?x=1"' in page.text
        form = {"name": " Ada ", "password": "a password of ada", "next": "/analyses/account?x=1"}
        let_in = client.post("/analyses/log-in", data=form)
        assert (let_in.status_code, let_in.headers["location"]) == (303, "/analyses/account?x=1")
        cookie = let_in.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=lax" in cookie
        assert "ada" in client.get("/analyses/account").text


@pytest.mark.parametrize(
    "place", ["https://evil.example/", "//evil.example/analyses", "/analyses\\evil", "/", "/analyses/log-in"]
)
def test_the_log_in_leads_to_no_other_site(service: Any, place: str) -> None:
    with service.browser() as client:
        form = {"name": "ada", "password": "a password of ada", "next": place}
        assert client.post("/analyses/log-in", data=form).headers["location"] == "/analyses"


@pytest.mark.parametrize("name,password", [("ada", "wrong"), ("nobody", "x"), ("", ""), ("ada", "x" * 9_000)])
def test_wrong_passwords_and_unknown_names_get_the_same_answer(
    service: Any, name: str, password: str
) -> None:
    with service.browser() as client:
        answer = client.post("/analyses/log-in", data={"name": name, "password": password})
        assert answer.status_code == 401
        assert "Name and password do not fit together." in answer.text
        assert COOKIE not in client.cookies


def test_guessing_passwords_ends_after_five_attempts(service: Any) -> None:
    with service.browser() as client:
        statuses = [
            client.post("/analyses/log-in", data={"name": "guessed", "password": str(number)}).status_code
            for number in range(7)
        ]
    assert statuses == [401] * 5 + [429] * 2


@pytest.mark.parametrize(
    "headers",
    [{"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}, {}],
    ids=["another site", "a sandboxed page", "without an origin", "nothing at all"],
)
def test_a_forged_origin_changes_nothing(service: Any, headers: dict[str, str]) -> None:
    with service.browser("ada") as client:
        token = service.csrf(client)
        del client.headers["origin"]
        answer = client.post("/analyses/log-out", data={"csrf": token}, headers=headers)
        assert answer.status_code == 403
        assert "Nothing was changed." in answer.text
        log_in = client.post("/analyses/log-in", data={"name": "x", "password": "x"}, headers=headers)
        assert log_in.status_code == 403
        assert is_logged_in(client)


def test_a_form_without_the_token_of_its_session_changes_nothing(service: Any) -> None:
    with service.browser("ada", fresh=True) as client, service.browser("bob") as other:
        for data in ({}, {"csrf": ""}, {"csrf": service.csrf(other)}, {"csrf": "x" * 10_000}):
            answer = client.post("/analyses/log-out", data=data)
            assert answer.status_code == 403
            assert "The form is not from this session." in answer.text
        assert is_logged_in(client)
        assert client.post("/analyses/log-out", data={"csrf": service.csrf(client)}).status_code == 303
        assert not is_logged_in(client)


def test_a_stolen_cookie_is_worth_nothing_after_the_log_out(service: Any) -> None:
    with service.browser("ada", fresh=True) as client, service.browser() as thief:
        thief.cookies.set(COOKIE, client.cookies[COOKIE])
        assert is_logged_in(thief)
        # It reads, but from a page of its own it cannot change anything.
        assert (
            thief.post(
                "/analyses/log-out",
                data={"csrf": service.csrf(client)},
                headers={"Origin": "https://evil.example"},
            ).status_code
            == 403
        )
        client.post("/analyses/log-out", data={"csrf": service.csrf(client)})
        assert not is_logged_in(thief)


@pytest.mark.parametrize(
    "change",
    [
        lambda value: value[:-1] + ("A" if value[-1] != "A" else "B"),
        lambda value: value.replace("20", "21", 1),
        lambda value: "2999-01-01." + "A" * 43,
        lambda value: "../../" + value,
        lambda value: "x" * 4_000,
        lambda value: value.encode().hex(),
    ],
)
def test_a_forged_cookie_is_nobody(service: Any, change: Any) -> None:
    with service.browser("ada") as client:
        value = client.cookies[COOKIE]
        client.cookies.clear()
        client.cookies.set(COOKIE, change(value))
        assert not is_logged_in(client)


def test_a_new_password_and_a_removal_end_sessions(service: Any) -> None:
    assert service.users("add", "eve", password="the first password").returncode == 0
    with service.browser("eve", "the first password") as client:
        assert service.users("add", "eve", "--group", "perf", password="the second one").returncode == 0
        assert not is_logged_in(client)
    with service.browser("eve", "the second one") as client:
        assert "Groups: perf." in client.get("/analyses/account").text
        assert "eve: perf" in service.users("list").stdout
        assert service.users("remove", "eve").returncode == 0
        assert not is_logged_in(client)


@pytest.mark.parametrize(
    "arguments,password,sentence",
    [
        (("add", "eve"), "short", "10 to 1,000 are possible"),
        (("add", "Eve Adams"), "long enough", "is not a name: small letters"),
        (("add", "eve", "--group", "\n"), "long enough", "--group: "),
        (("remove", "nobody"), "", "has no user nobody"),
    ],
)
def test_the_command_says_what_is_wrong(
    service: Any, arguments: tuple[str, ...], password: str, sentence: str
) -> None:
    done = service.users(*arguments, password=password)
    assert done.returncode == 1
    assert sentence in done.stderr


def test_sessions_survive_a_killed_server(service: Any) -> None:
    with service.browser("ada") as client:
        service.pages.kill()
        service.pages.start()
        assert is_logged_in(client)


def test_the_bucket_holds_no_secret_of_a_session_and_old_ones_are_removed(service: Any) -> None:
    settings = service.lake.settings
    store, bucket = ObjectStore(settings.s3), settings.s3.lake_bucket
    with service.browser("ada") as client:
        day, secret = client.cookies[COOKIE].split(".")
        keys = [item.key for item in store.list_objects(bucket, f"{ANALYSIS_SESSION_PREFIX}{day}/")]
        assert keys
        assert not any(secret in key or secret.encode() in store.get(bucket, key) for key in keys)
        access = Access(store, bucket)
        store.put(bucket, f"{ANALYSIS_SESSION_PREFIX}2020-01-01/old.json", b"{}")
        assert access.remove_old(date.fromisoformat(day)) >= 1
        assert is_logged_in(client)


def test_a_token_is_shown_once_and_works_until_it_is_removed(service: Any) -> None:
    with service.browser("ada") as client:
        made = client.post(
            "/analyses/account/tokens", data={"csrf": service.csrf(client), "label": "my <b>script</b>"}
        )
        assert made.status_code == 201
        found = re.search(r'id="new-token">([^<]+)<', made.text)
        assert found is not None
        token = found[1]
        page = client.get("/analyses/account").text
        assert token not in page
        assert "my &lt;b&gt;script" in page
        with httpx.Client(base_url=service.pages.url) as program:
            program.headers["Authorization"] = f"Bearer {token}"
            assert is_logged_in(program)
            # What browsers send of their own accord is needed from browsers only.
            refused = program.post("/analyses/account/tokens", data={"label": "another"})
            assert "A token cannot make tokens" in refused.text
            program.headers["Authorization"] = f"Bearer {token[:-1]}"
            assert not is_logged_in(program)
            token_id = re.search(r"tokens/([0-9a-f]{64})/remove", page)
            assert token_id is not None
            with service.browser("bob") as other:
                theirs = other.post(
                    f"/analyses/account/tokens/{token_id[1]}/remove", data={"csrf": service.csrf(other)}
                )
                assert theirs.status_code == 404
            program.headers["Authorization"] = f"Bearer {token}"
            assert is_logged_in(program)
            client.post(f"/analyses/account/tokens/{token_id[1]}/remove", data={"csrf": service.csrf(client)})
            assert not is_logged_in(program)
        # A token is not a cookie.
        client.cookies.set(COOKIE, token)
        assert not is_logged_in(client)


def test_the_edge_wants_to_know_the_length_of_a_body(service: Any) -> None:
    with service.browser("ada") as client:
        chunked = client.post("/analyses/log-out", content=iter([b"csrf=", b"x"]))
        assert chunked.status_code == 411
        large = client.post("/analyses/log-in", content=b"x" * 100_000)
        assert large.status_code == 413
        broken = client.post(
            "/analyses/log-out", content=b"x", headers={"Content-Type": "multipart/form-data; boundary=a"}
        )
        assert broken.status_code in (400, 403)
