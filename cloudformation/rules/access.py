"""House rules about who reaches what: actions, networks, secrets.

cfn-lint --append-rules cloudformation/rules -- cloudformation/*.yaml
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from cfnlint.rules import CloudFormationLintRule, RuleMatch

EVERYWHERE = frozenset({"0.0.0.0/0", "::/0"})
OPEN_PORT = 443
SECRET_PARAMETER = re.compile(
    r"(password|passphrase|secret|token|credential|privatekey|apikey)$", re.IGNORECASE
)
SECRET_PROPERTY = frozenset({"MasterUserPassword", "AuthToken", "SecretString", "OAuthToken"})
SECRET_VARIABLE = re.compile(r"PASSWORD|SECRET|TOKEN|CREDENTIAL|_KEY$|_KEYS$")
RESOLVED = re.compile(r"\{\{resolve:(secretsmanager|ssm-secure):")


def parts(value: Any, path: tuple[Any, ...]) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Yield everything in a part of a template, each with its path."""
    yield path, value
    items = (
        value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    )
    for key, item in items:
        yield from parts(item, (*path, key))


def texts(value: Any) -> list[str]:
    """Return the texts in a value, for example those of Fn::Sub."""
    return [item for _, item in parts(value, ()) if isinstance(item, str)]


class ActionsAreNamed(CloudFormationLintRule):  # noqa: D101
    id = "E9005"
    shortdesc = "Policies allow actions by name, and nobody unknown"
    description = (
        "telemetry_lake/deploy/roles.py names every right; a wildcard grants those of next year, too"
    )
    tags = ("house",)

    def match(self, cfn: Any) -> list[RuleMatch]:
        """Return the statements that allow more than what they name."""
        found = []
        for path, value in parts(cfn.template.get("Resources", {}), ("Resources",)):
            if not isinstance(value, Mapping) or value.get("Effect") != "Allow":
                continue
            if any("*" in action for action in texts(value.get("Action", []))):
                found.append(RuleMatch(list(path), "an action that is allowed has to be named without *"))
            if "NotAction" in value or "NotResource" in value or "NotPrincipal" in value:
                message = "what is allowed has to be named, not what is left out"
                found.append(RuleMatch(list(path), message))
            if "*" in texts(value.get("Principal", [])):
                found.append(RuleMatch(list(path), "nothing is allowed to everybody"))
        return found


class OnlyBalancersAreOpen(CloudFormationLintRule):  # noqa: D101
    id = "E9006"
    shortdesc = "Only balancers may be reached from everywhere, and only by HTTPS"
    description = "Groups of balancers have names that end in BalancerGroup"
    tags = ("house",)

    def match(self, cfn: Any) -> list[RuleMatch]:
        """Return the rules of security groups that open more."""
        found = []
        for name, group in cfn.get_resources("AWS::EC2::SecurityGroup").items():
            rules = group.get("Properties", {}).get("SecurityGroupIngress", [])
            for index, rule in enumerate(rules):
                path = ["Resources", name, "Properties", "SecurityGroupIngress", index]
                found += [RuleMatch(path, problem) for problem in self._problems(name, rule)]
        for name, rule in cfn.get_resources("AWS::EC2::SecurityGroupIngress").items():
            group = str(rule["Properties"].get("GroupId"))
            problems = self._problems(group, rule["Properties"])
            found += [RuleMatch(["Resources", name, "Properties"], problem) for problem in problems]
        return found

    def _problems(self, group: str, rule: Mapping[str, Any]) -> Iterator[str]:
        if not {str(rule.get("CidrIp")), str(rule.get("CidrIpv6"))} & EVERYWHERE:
            return
        if not group.endswith("BalancerGroup"):
            yield f"{group} is open to everybody, which only groups of balancers may be"
        if {str(rule.get("FromPort")), str(rule.get("ToPort"))} != {str(OPEN_PORT)}:
            yield f"{group} is open to everybody on other ports than {OPEN_PORT}"


class SecretsAreHidden(CloudFormationLintRule):  # noqa: D101
    id = "E9007"
    shortdesc = "Secrets are in Secrets Manager, not in parameters, properties or variables"
    description = "Whoever may look at a stack or a task definition can read those"
    tags = ("house",)

    def match(self, cfn: Any) -> list[RuleMatch]:
        """Return where a secret can be read."""
        found = [
            RuleMatch(["Parameters", name], f"{name} needs NoEcho: true, or to be the name of a secret")
            for name, parameter in cfn.template.get("Parameters", {}).items()
            if SECRET_PARAMETER.search(name) and str(parameter.get("NoEcho", "")).lower() != "true"
        ]
        for path, value in parts(cfn.template.get("Resources", {}), ("Resources",)):
            if path[-1] in SECRET_PROPERTY and not any(map(RESOLVED.search, texts(value))):
                message = f"{path[-1]} has to be {{{{resolve:secretsmanager:…}}}}"
                found.append(RuleMatch(list(path), message))
            if path[-1] == "Environment" and isinstance(value, list):
                found += [
                    RuleMatch(list(path), f"{variable['Name']} is a secret: it belongs below Secrets")
                    for variable in value
                    if SECRET_VARIABLE.search(str(variable.get("Name", "")))
                ]
        return found


class MachinesAskWithTokens(CloudFormationLintRule):  # noqa: D101
    id = "E9008"
    shortdesc = "Machines give out their credentials only for a token"
    description = "Else a server that can be made to fetch an address hands out the keys of its role"
    tags = ("house",)

    def match(self, cfn: Any) -> list[RuleMatch]:
        """Return the launch templates whose machines give out credentials without a token."""
        found = []
        for name, template in cfn.get_resources("AWS::EC2::LaunchTemplate").items():
            options = template["Properties"]["LaunchTemplateData"].get("MetadataOptions", {})
            if options.get("HttpTokens") != "required" or str(options.get("HttpPutResponseHopLimit")) != "1":
                message = (
                    f"{name} needs MetadataOptions with HttpTokens: required and HttpPutResponseHopLimit: 1"
                )
                found.append(RuleMatch(["Resources", name], message))
        return found
