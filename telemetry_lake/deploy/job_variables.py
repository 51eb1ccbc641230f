"""The settings that travel to a job on another machine, as variables of its environment.

All who may look at a job of EMR can read its parameters. So only the groups of settings that jobs need are
sent, and a value that is a secret, or looks like one, stops the job before it is started: its role of IAM
gives it access, not a key.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import parse_qsl, urlsplit

from telemetry_lake.failures import ConfigurationError
from telemetry_lake.settings import PREFIX, Settings

SENT_GROUPS: Final = frozenset({"s3", "catalog", "conversion", "drain", "backfill"})
"""The groups of settings that jobs read; no other is sent."""

_SECRET_NAME: Final = re.compile(
    r"authorization|credential|passphrase|passw|password|pwd|secret|signature|token|private.?key|access.?key|api.?key|(^|[^a-z])key$",
    re.IGNORECASE,
)
_ABOUT_SECRETS: Final = re.compile(
    r"([.-](enabled|provider|type|url|uri|impl|name|region|ms|seconds)|-enabled)$", re.IGNORECASE
)
"""Names that say how a secret is come by, such as `client.credentials-provider`: their values are looked at
like all others."""
_SECRET_VALUES: Final = {
    "a name or a password in a URL": re.compile(r"://[^/?#\s]*@"),
    "an access key of AWS": re.compile(r"(?<![A-Z0-9])(AKIA|ASIA)[A-Z0-9]{16}(?![A-Z0-9])"),
    "a secret access key of AWS": re.compile(
        r"^(?=[^a-z]*[a-z])(?=[^A-Z]*[A-Z])(?=[^0-9]*[0-9])[A-Za-z0-9+/]{40}$"
    ),
    "a header of authorization": re.compile(r"(?<![a-z])(bearer|basic)\s+[a-z0-9._~+/=-]{3,}", re.IGNORECASE),
    "a token": re.compile(r"(?<![A-Za-z0-9_-])eyJ[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]{5,}"),
    "a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
    "a password": re.compile(
        r"(?<![a-z])(password|passwd|passphrase|pwd|secret|token|credential|access_?key)\s*[=:]\s*[^\s&;]",
        re.IGNORECASE,
    ),
}
"""What values look like that are secrets, under whatever name."""


def variables_for_jobs(settings: Settings) -> dict[str, str]:
    """Return what a job on another machine needs to have the same settings, as variables of its environment.

    Only what differs from the defaults, of `SENT_GROUPS`. Raises ConfigurationError when there is a secret
    among it.
    """
    changed = settings.model_dump(mode="json", exclude_defaults=True, include=set(SENT_GROUPS))
    variables = {}
    for group, values in changed.items():
        for name, value in values.items():
            variable = f"{PREFIX}{group}__{name}".upper()
            if secret := secret_in(name, value):
                raise ConfigurationError(
                    f"{variable} holds a secret ({secret}), which would be shown in the parameters of an EMR "
                    "job: leave it out, and give the job's role access instead"
                )
            variables[variable] = value if isinstance(value, str) else json.dumps(value)
    return variables


def secret_in(name: str, value: object) -> str | None:
    """Return what is secret in a value with this name, without the secret; None when nothing seems to be."""
    if isinstance(value, Mapping):
        return next((found for key, item in value.items() if (found := secret_in(str(key), item))), None)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return next((found for item in value if (found := secret_in(name, item))), None)
    if not value or isinstance(value, bool | int | float):
        return None
    if _SECRET_NAME.search(name) and not _ABOUT_SECRETS.search(name):
        return name
    text = str(value)
    for kind, pattern in _SECRET_VALUES.items():
        if pattern.search(text):
            return f"{kind} in {name}"
    return _secret_in_query(name, text)


def _secret_in_query(name: str, text: str) -> str | None:
    """Return the name of what is secret in the query of a URL, such as `?sslpassword=…`."""
    try:
        query = parse_qsl(urlsplit(text).query)
    except ValueError:  # not a URL
        return None
    return next((f"{part} in {name}" for part, _ in query if _SECRET_NAME.search(part)), None)
