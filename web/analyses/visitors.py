"""Whom a request is from, and whether it was meant: sessions, tokens, origins and CSRF tokens."""

import hmac
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import quote

from fastapi import Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from telemetry_lake.analysis_jobs.people import Person
from telemetry_lake.settings import WebSettings
from telemetry_lake.units import MIB
from web.analyses.access import Access, AccessRecord, Kind
from web.analyses.users import UsersFile
from web.edge import RequestRefused

START: Final = "/analyses"
LOG_IN: Final = "/analyses/log-in"
API: Final = "/api/v1/analyses"
OPERATIONS: Final = "/operations"
PLACES: Final = (START, OPERATIONS)
"""What a log-in may lead back to: the beginnings of paths whose pages ask for one."""
CSRF_FIELD: Final = "csrf"
CSRF_HEADER: Final = "X-CSRF-Token"
FIELDS_MAX_COUNT: Final = 300
FIELD_MAX_BYTES: Final = 2 * MIB
_COOKIE: Final = "analyses_session"
_SECURE_COOKIE: Final = "__Host-analyses_session"
"""Browsers take a cookie with this prefix from this host alone, over TLS."""


class LogInFirst(RequestRefused):
    """The request has no valid session and no valid token."""

    def __init__(self, request: Request) -> None:
        if is_for_programs(request):
            super().__init__(
                HTTPStatus.UNAUTHORIZED,
                f"Log in first, or send a token that {START}/account makes: Authorization: Bearer <token>.",
                {"WWW-Authenticate": "Bearer"},
            )
            return
        back = request.url.path if request.method == "GET" else START
        if request.method == "GET" and request.url.query:
            back += f"?{request.url.query}"
        super().__init__(
            HTTPStatus.SEE_OTHER, "Log in first.", {"Location": f"{LOG_IN}?next={quote(back, safe='')}"}
        )


@dataclass(frozen=True, slots=True)
class Visitor:
    """A person who is logged in, and by what."""

    record: AccessRecord
    secret: str

    @property
    def name(self) -> str:
        """The person's name."""
        return self.record.person

    @property
    def person(self) -> Person:
        """The person, as the core knows people."""
        return Person(self.record.person, frozenset(self.record.groups), self.record.is_admin)

    @property
    def csrf(self) -> str:
        """What the forms of this session carry."""
        return self.record.csrf


@dataclass(frozen=True, slots=True)
class Form:
    """What a form sent: fields, of which some may be given several times, and files."""

    fields: Mapping[str, Sequence[str]]
    files: Mapping[str, tuple[str, bytes]]
    """Name and content by field; fields whose file was not chosen are left out."""

    def get(self, name: str, default: str = "") -> str:
        """Return the first value of a field."""
        values = self.fields.get(name, ())
        return values[0] if values else default


@dataclass(frozen=True, slots=True)
class Change:
    """A request to change something, which its visitor sent on purpose."""

    visitor: Visitor
    form: Form
    document: Any = None
    """The body of a request that is JSON."""


class Visitors:
    """Tells whom requests are from."""

    def __init__(self, access: Access, users: UsersFile | None, settings: WebSettings) -> None:
        self._access, self._users = access, users
        self._public_url = settings.public_url
        self.cookie_is_secure = (settings.public_url or "").startswith("https://")
        self.cookie = _SECURE_COOKIE if self.cookie_is_secure else _COOKIE

    def find(self, request: Request) -> Visitor | None:
        """Return who sent the request, and None for a stranger."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return self._known(token.strip(), Kind.TOKEN)
        return self._known(request.cookies.get(self.cookie, ""), Kind.SESSION)

    def require(self, request: Request) -> Visitor:
        """Return who sent the request; raises LogInFirst."""
        visitor = self.find(request)
        if visitor is None:
            raise LogInFirst(request)
        return visitor

    def check_origin(self, request: Request) -> None:
        """Raise RequestRefused unless a page of this server sent the request."""
        own = self._public_url or f"{request.url.scheme}://{request.headers.get('host', '')}"
        origin = request.headers.get("origin")
        same_origin = request.headers.get("sec-fetch-site") == "same-origin"
        if origin != own if origin is not None else not same_origin:
            raise RequestRefused(
                HTTPStatus.FORBIDDEN,
                f"This was sent by a page of {origin or 'an unknown site'}, and only pages of {own} may "
                "change something here. Nothing was changed.",
            )

    def check_meant(self, request: Request, visitor: Visitor, form_token: str) -> None:
        """Raise RequestRefused unless the visitor sent a changing request on purpose.

        A token of the API is never sent by a browser of its own accord, so its requests always are.
        """
        if visitor.record.kind is Kind.TOKEN:
            return
        self.check_origin(request)
        given = request.headers.get(CSRF_HEADER, "") or form_token
        if not hmac.compare_digest(given.encode(), visitor.csrf.encode()):
            raise RequestRefused(
                HTTPStatus.FORBIDDEN,
                "The form is not from this session. Nothing was changed: load its page again, and send it "
                "once more.",
            )

    async def change(self, request: Request) -> Change:
        """Return a request to change something; raises LogInFirst and RequestRefused.

        Strangers are refused before their request's body is read.
        """
        visitor = await run_in_threadpool(self.require, request)
        if visitor.record.kind is Kind.SESSION:
            self.check_origin(request)
        document = None
        if request.headers.get("content-type", "").partition(";")[0].strip() == "application/json":
            form = Form({}, {})
            try:
                document = json.loads(await request.body())
            except (ValueError, RecursionError) as error:
                raise RequestRefused(
                    HTTPStatus.BAD_REQUEST, f"The body is not a JSON document: {error}."
                ) from error
        else:
            form = await sent_form(request)
        self.check_meant(request, visitor, form.get(CSRF_FIELD))
        return Change(visitor, form, document)

    def let_in(self, response: Response, secret: str, valid_seconds: int) -> None:
        """Give a browser its session."""
        response.set_cookie(
            self.cookie,
            secret,
            max_age=valid_seconds,
            path="/",
            secure=self.cookie_is_secure,
            httponly=True,
            # Not strict: a provider of OpenID Connect sends people back from another site.
            samesite="lax",
        )

    def forget(self, response: Response) -> None:
        """Take the session from a browser."""
        response.delete_cookie(
            self.cookie, path="/", secure=self.cookie_is_secure, httponly=True, samesite="lax"
        )

    def _known(self, secret: str, kind: Kind) -> Visitor | None:
        record = self._access.find(secret)
        if record is None or record.kind is not kind:
            return None
        if record.fingerprint is None:
            # A provider said who it is; without one, such sessions are those of another time.
            return Visitor(record, secret) if self._users is None else None
        user = None if self._users is None else self._users.user(record.person)
        if user is None or user.fingerprint != record.fingerprint:
            return None
        current = {"groups": user.groups, "is_admin": user.admin}
        return Visitor(record.model_copy(update=current), secret)


def is_for_programs(request: Request) -> bool:
    """Return whether the request is to the API."""
    return request.url.path.startswith("/api/")


async def sent_form(request: Request) -> Form:
    """Return the form in a request's body, whose size the edge limits; raises RequestRefused."""
    fields: dict[str, list[str]] = {}
    files: dict[str, tuple[str, bytes]] = {}
    try:
        async with request.form(
            max_files=4, max_fields=FIELDS_MAX_COUNT, max_part_size=FIELD_MAX_BYTES
        ) as form:
            for name, value in form.multi_items():
                if not isinstance(value, UploadFile):
                    fields.setdefault(name, []).append(value)
                elif value.filename:
                    files[name] = (value.filename, await value.read())
    except HTTPException as error:
        raise RequestRefused(HTTPStatus.BAD_REQUEST, f"The form cannot be read: {error.detail}") from error
    return Form(fields, files)
