"""Alertmanager's configuration: whom an alarm is told, how often, and which alarms only follow from others.

Addresses are not in the repository. `monitoring/alertmanager.yaml` has the routes without them, as the local
stack uses it; `python -m telemetry_lake alertmanager-config` prints the same with those of the settings.
"""

from collections.abc import Mapping
from typing import Any, Final

from telemetry_lake.monitoring.alarms import ALARMS
from telemetry_lake.monitoring.rules import Alarm, Severity
from telemetry_lake.settings import AlertSettings, MailSecurity, MailSettings

REPEAT: Final[Mapping[Severity, str]] = {
    Severity.PAGE: "4h",
    Severity.TICKET: "3d",
    # The outer watcher gives an alarm when it hears nothing for some minutes.
    Severity.WATCHDOG: "1m",
}
"""How often what still fires is told again."""
SUBJECT: Final = (
    "[{{ .Status | toUpper }}] {{ .CommonLabels.alertname }}"
    "{{ if gt (len .Alerts) 1 }} ({{ len .Alerts }} times){{ end }}"
)
TEXT: Final = (
    "{{ range .Alerts }}"
    "{{ .Labels.alertname }} ({{ .Labels.severity }}): {{ .Annotations.summary }}\n"
    '{{ if eq .Status "resolved" }}It has ended: {{ .EndsAt.UTC.Format "2006-01-02 15:04:05" }} UTC.'
    '{{ else }}Since {{ .StartsAt.UTC.Format "2006-01-02 15:04:05" }} UTC.{{ end }}\n'
    "What to do: {{ .Annotations.runbook }}\n"
    "{{ range .Labels.SortedPairs }}  {{ .Name }}: {{ .Value }}\n{{ end }}\n"
    "{{ end }}"
)
"""Plain text: what is wrong, since when, and where it says what to do."""


def alertmanager_configuration(
    mail: MailSettings | None = None, alerts: AlertSettings | None = None
) -> dict[str, Any]:
    """Return the whole configuration. Without settings, alarms are shown on its page and told to no one."""
    mail, alerts = mail or MailSettings(), alerts or AlertSettings()
    return {
        "global": _mail_server(mail),
        "route": {
            "receiver": Severity.TICKET.value,
            # Ten nodes with the same trouble make one mail.
            "group_by": ["alertname"],
            "group_wait": "30s",
            "group_interval": "5m",
            "repeat_interval": REPEAT[Severity.TICKET],
            "routes": [
                {
                    "receiver": severity.value,
                    "matchers": [f'severity="{severity.value}"'],
                    "repeat_interval": REPEAT[severity],
                    # The outer watcher counts minutes.
                    **({"group_wait": "0s", "group_interval": "1m"} if severity is Severity.WATCHDOG else {}),
                }
                for severity in Severity
            ],
        },
        "inhibit_rules": [_inhibition(alarm) for alarm in ALARMS if alarm.mutes],
        "receivers": [_receiver(severity, mail, alerts) for severity in Severity],
    }


def _mail_server(mail: MailSettings) -> dict[str, Any]:
    if mail.host is None:
        return {"resolve_timeout": "5m"}
    server: dict[str, Any] = {
        "resolve_timeout": "5m",
        "smtp_smarthost": f"{mail.host}:{mail.port}",
        "smtp_from": mail.sender,
        "smtp_require_tls": mail.security is MailSecurity.STARTTLS,
    }
    if mail.user is not None and mail.password is not None:
        server["smtp_auth_username"] = mail.user
        server["smtp_auth_password"] = mail.password.get_secret_value()
    return server


def _inhibition(alarm: Alarm) -> dict[str, Any]:
    inhibition: dict[str, Any] = {
        "source_matchers": [f'alertname="{alarm.name}"'],
        "target_matchers": [f'alertname=~"{"|".join(alarm.mutes)}"'],
    }
    if alarm.mutes_where_equal:
        inhibition["equal"] = list(alarm.mutes_where_equal)
    return inhibition


def _receiver(severity: Severity, mail: MailSettings, alerts: AlertSettings) -> dict[str, Any]:
    receiver: dict[str, Any] = {"name": severity.value}
    addresses = {Severity.PAGE: alerts.page_mails, Severity.TICKET: alerts.ticket_mails}.get(severity, ())
    hooks = {
        Severity.PAGE: alerts.page_webhooks,
        Severity.TICKET: alerts.ticket_webhooks,
        Severity.WATCHDOG: alerts.watchdog_webhooks,
    }[severity]
    if addresses and mail.host is not None:
        receiver["email_configs"] = [
            {"to": address, "send_resolved": True, "headers": {"Subject": SUBJECT}, "html": "", "text": TEXT}
            for address in addresses
        ]
    if hooks:
        # The watchdog never ends as long as somebody is there to say so.
        receiver["webhook_configs"] = [
            {"url": url.get_secret_value(), "send_resolved": severity is not Severity.WATCHDOG}
            for url in hooks
        ]
    return receiver
