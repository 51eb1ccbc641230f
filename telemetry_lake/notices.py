"""Mails and calls of web hooks: sent with retries, to one receiver each, over connections that are checked.

What is told, to whom and how often is decided by the callers. A web hook is called at an address that was
looked at before: where people name hooks, this process can reach what they cannot.
"""

import hashlib
import ipaddress
import smtplib
import socket
import ssl
from collections.abc import Mapping
from email.message import EmailMessage
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_exponential

from telemetry_lake.settings import MailSecurity, MailSettings, WebhookSettings

_PERMANENT: Final = range(500, 600)


class NotTold(Exception):
    """A mail or a call of a hook failed, and trying again cannot help."""


NOT_SENT: Final = (NotTold, OSError, smtplib.SMTPException, httpx.HTTPError, ValueError)
"""What is raised when a mail or a call of a hook did not work."""


def send_mail(mail: MailSettings, message: EmailMessage) -> None:
    """Hand a mail to the mail server, with as many attempts as the settings say.

    Raises one of `NOT_SENT`.
    """
    _retrying(mail.max_attempts, mail.retry_wait_seconds)(_send_mail, mail, message)


def call_hook(hooks: WebhookSettings, url: str, content: Mapping[str, Any], *, idempotency_key: str) -> None:
    """Post `content` to a web hook as JSON, with as many attempts as the settings say.

    Raises one of `NOT_SENT`.
    """
    _retrying(hooks.max_attempts, hooks.retry_wait_seconds)(_call_hook, hooks, url, content, idempotency_key)


def shown_hook(url: str) -> str:
    """Return how logs may call a web hook: the rest of its address may be the secret that opens it."""
    return f"the web hook at {urlsplit(url).hostname}"


def receiver_digest(receiver: str) -> str:
    """Return a name for an address or a hook that does not show it."""
    return hashlib.sha256(receiver.encode()).hexdigest()[:16]


def may_pass(error: BaseException) -> bool:
    """Return whether the same mail or call may work later."""
    if isinstance(error, ssl.SSLCertVerificationError | NotTold | smtplib.SMTPNotSupportedError):
        return False
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        return all(code not in _PERMANENT for code, _ in error.recipients.values())
    if isinstance(error, smtplib.SMTPResponseException):
        return error.smtp_code not in _PERMANENT
    return isinstance(error, OSError | smtplib.SMTPException | httpx.TransportError)


def allowed_address(host: str, port: int, *, allow_private: bool) -> str:
    """Return an address of a host that may be called.

    Raises NotTold when it has one that is private, and OSError when it has none.
    """
    found = [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    for address in found:
        parsed = ipaddress.ip_address(address.partition("%")[0])
        inner = getattr(parsed, "ipv4_mapped", None) or parsed
        if not allow_private and (not inner.is_global or inner.is_multicast):
            raise NotTold(
                "it is in a private network, or on this machine, where hooks are not called "
                "(TELEMETRY_LAKE_WEBHOOKS__ALLOW_PRIVATE_ADDRESSES)"
            )
    return found[0]


def _send_mail(mail: MailSettings, message: EmailMessage) -> None:
    if mail.host is None:
        raise NotTold("no mail server is configured (TELEMETRY_LAKE_MAIL__HOST)")
    trusted = ssl.create_default_context()
    if mail.certificates_file is not None:
        trusted.load_verify_locations(mail.certificates_file)
    if mail.security is MailSecurity.TLS:
        connection: smtplib.SMTP = smtplib.SMTP_SSL(
            mail.host, mail.port, timeout=mail.timeout_seconds, context=trusted
        )
    else:
        connection = smtplib.SMTP(mail.host, mail.port, timeout=mail.timeout_seconds)
    with connection:
        if mail.security is MailSecurity.STARTTLS:
            # Without a context, no certificate would be looked at.
            connection.starttls(context=trusted)
        if mail.user is not None and mail.password is not None:
            connection.login(mail.user, mail.password.get_secret_value())
        connection.send_message(message)


def _call_hook(hooks: WebhookSettings, url: str, content: Mapping[str, Any], idempotency_key: str) -> None:
    parts = urlsplit(url)
    host = parts.hostname or ""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    address = allowed_address(host, port, allow_private=hooks.allow_private_addresses)
    shown = f"[{address}]" if ":" in address else address
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    with httpx.Client(timeout=hooks.timeout_seconds, trust_env=False, follow_redirects=False) as client:
        # The address that was looked at is the one that is called: a name may be another one next time.
        request = client.build_request(
            "POST",
            f"{parts.scheme}://{shown}:{port}{path}",
            headers={"Host": parts.netloc, "Idempotency-Key": idempotency_key},
            json=content,
            extensions={"sni_hostname": host},
        )
        answer = client.send(request, stream=True)
        answer.close()
    if answer.status_code >= 500 or answer.status_code == httpx.codes.TOO_MANY_REQUESTS:
        raise httpx.TransportError(f"it answers {answer.status_code}")
    if not answer.is_success:
        raise NotTold(f"it answers {answer.status_code}")


def _retrying(max_attempts: int, wait_seconds: float) -> Retrying:
    return Retrying(
        retry=retry_if_exception(may_pass),
        stop=stop_after_attempt(max_attempts),
        wait=wait_exponential(multiplier=wait_seconds, max=60),
        reraise=True,
    )
