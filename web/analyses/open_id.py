"""Logging in with OpenID Connect: authorization code flow with PKCE, state and nonce, as authlib does it."""

import hashlib
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

import httpx
from authlib.deprecate import AuthlibDeprecationWarning
from fastapi import Request, Response
from itsdangerous import BadData, URLSafeTimedSerializer

from telemetry_lake.settings import OpenIdSettings
from web.analyses.users import GROUP_PATTERN, PERSON_PATTERN
from web.edge import RequestRefused

with warnings.catch_warnings():
    # authlib advises to use another HTTP client, which this project does not have.
    warnings.simplefilter("ignore", AuthlibDeprecationWarning)
    from authlib.integrations.base_client import OAuthError
    from authlib.integrations.starlette_client import OAuth
    from joserfc.errors import JoseError

CALLBACK: Final = "/analyses/log-in/callback"
LOG_IN_MAX_SECONDS: Final = 600
GROUPS_MAX_COUNT: Final = 200
_STATE_COOKIE: Final = "analyses_log_in"
_BEGIN_AGAIN: Final = "begin again at /analyses/log-in"


@dataclass(frozen=True, slots=True)
class Identity:
    """Who the provider says it is."""

    name: str
    groups: tuple[str, ...]
    is_admin: bool


class OpenId:
    """The provider. What a log-in that has begun must remember is in a signed cookie of the browser."""

    def __init__(self, settings: OpenIdSettings, public_url: str) -> None:
        self._settings, self._public_url = settings, public_url
        secret = settings.client_secret.get_secret_value()
        # Of the client secret, so that every server reads the cookies of the others.
        key = hashlib.sha256(b"log-in cookie " + secret.encode()).hexdigest()
        self._signer = URLSafeTimedSerializer(key, salt="analyses log-in")
        self._provider: Any = OAuth().register(
            "provider",
            client_id=settings.client_id,
            client_secret=secret,
            server_metadata_url=f"{settings.issuer.rstrip('/')}/.well-known/openid-configuration",
            client_kwargs={"scope": settings.scope, "code_challenge_method": "S256", "timeout": 10},
        )

    async def begin(self, request: Request, back: str) -> Response:
        """Return the redirection to the provider; raises RequestRefused when it does not answer."""
        state: dict[str, Any] = {}
        request.scope["session"] = state
        try:
            response: Response = await self._provider.authorize_redirect(
                request, f"{self._public_url}{CALLBACK}"
            )
        except httpx.HTTPError as error:
            raise self._unavailable(error) from error
        response.set_cookie(
            _STATE_COOKIE,
            self._signer.dumps({"state": state, "back": back}),
            max_age=LOG_IN_MAX_SECONDS,
            path=CALLBACK,
            secure=self._public_url.startswith("https://"),
            httponly=True,
            # Not strict: the provider sends people back from another site.
            samesite="lax",
        )
        return response

    async def finish(self, request: Request) -> tuple[Identity, str]:
        """Return who logged in at the provider, and where the log-in began; raises RequestRefused."""
        try:
            remembered = self._signer.loads(
                request.cookies.get(_STATE_COOKIE, ""), max_age=LOG_IN_MAX_SECONDS
            )
        except BadData as error:
            raise _refused(f"This log-in was not begun here, or too long ago: {_BEGIN_AGAIN}.") from error
        request.scope["session"] = remembered["state"]
        try:
            answer = await self._provider.authorize_access_token(request)
        except httpx.HTTPError as error:
            raise self._unavailable(error) from error
        except (OAuthError, JoseError) as error:
            reason = getattr(error, "description", "") or getattr(error, "error", "") or "an invalid answer"
            raise _refused(f"The provider did not let you in ({reason}): {_BEGIN_AGAIN}.") from error
        return self._identity(answer.get("userinfo") or {}), remembered["back"]

    def forget(self, response: Response) -> None:
        """Take what a log-in had to remember from a browser."""
        response.delete_cookie(_STATE_COOKIE, path=CALLBACK, httponly=True, samesite="lax")

    def _identity(self, claims: Mapping[str, Any]) -> Identity:
        settings = self._settings
        name = str(claims.get(settings.name_claim, "")).lower()
        if not re.match(PERSON_PATTERN, name):
            raise _refused(
                f"The provider gave no usable name in the claim “{settings.name_claim}”. Tell the operators "
                "of this service."
            )
        if settings.name_claim == "email" and claims.get("email_verified") is False:
            raise _refused(f"The provider has not verified the address {name}: verify it there first.")
        given = claims.get(settings.groups_claim, ())
        groups = tuple(
            group
            for group in (given if isinstance(given, list) else ())[:GROUPS_MAX_COUNT]
            if isinstance(group, str) and re.match(GROUP_PATTERN, group)
        )
        return Identity(name, groups, settings.admin_group is not None and settings.admin_group in groups)

    def _unavailable(self, error: Exception) -> RequestRefused:
        return RequestRefused(
            HTTPStatus.SERVICE_UNAVAILABLE,
            f"The provider {self._settings.issuer}, which logs people in, does not answer "
            f"({type(error).__name__}). Try again in a minute.",
        )


def _refused(sentence: str) -> RequestRefused:
    return RequestRefused(HTTPStatus.FORBIDDEN, sentence)
