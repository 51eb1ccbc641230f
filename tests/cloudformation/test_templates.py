"""The templates are what CloudFormation takes, keep the house rules, and fit together."""

import copy
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from build_tools import user_data
from build_tools.template_joins import contents, problems
from provisioning.templates import STACK_ORDER, TEMPLATE_FOLDER
from telemetry_lake.deploy import scaling
from telemetry_lake.project_files import PROJECT_ROOT

TEMPLATE_MAX_BYTES: Final = 51_200
"""The longest template that CloudFormation takes without a bucket."""
PARAMETER_FILES: Final = sorted((TEMPLATE_FOLDER / "parameters").glob("*.json"))


@pytest.fixture(scope="module")
def templates() -> dict[str, Mapping[str, Any]]:
    return contents()


@pytest.fixture(scope="module")
def files() -> dict[str, dict[str, Any]]:
    return {path.name: json.loads(path.read_text()) for path in PARAMETER_FILES}


def test_cfn_lint_finds_nothing_with_the_house_rules():
    cfn_lint, rules = Path(sys.executable).with_name("cfn-lint"), TEMPLATE_FOLDER / "rules"
    run = subprocess.run(
        [
            *map(str, (cfn_lint, "--append-rules", rules, "--non-zero-exit-code", "informational", "--")),
            *map(str, sorted(TEMPLATE_FOLDER.glob("*.yaml"))),
        ],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    # No template asks to be excepted.
    assert not [path.name for path in TEMPLATE_FOLDER.glob("*.yaml") if "cfn-lint" in path.read_text()]


def test_there_is_a_template_for_each_stack_and_none_is_too_long():
    assert {path.stem for path in TEMPLATE_FOLDER.glob("*.yaml")} == set(STACK_ORDER)
    for path in TEMPLATE_FOLDER.glob("*.yaml"):
        assert path.stat().st_size <= TEMPLATE_MAX_BYTES, path.name


def test_the_templates_fit_together(templates, files):
    assert {path.stem for path in PARAMETER_FILES} == {"small", "2014"}
    assert problems(templates, files) == []


def test_every_template_is_of_one_environment(templates):
    for template in templates.values():
        assert template["Parameters"]["Environment"]["AllowedPattern"] == "[a-z0-9]{2,12}"


def changed(templates: Any, stack: str, part: str, name: str, to: Any) -> Any:
    """Templates with one part that is different, or is not there when `to` is None."""
    copies = copy.deepcopy(templates)
    if to is None:
        del copies[stack][part][name]
    else:
        copies[stack][part][name] = to
    return copies


@pytest.mark.parametrize(
    "stack,part,name,to,message",
    [
        ("network", "Outputs", "VpcId", None, "ingest.yaml: VpcId has no default, no stack before has it"),
        ("network", "Outputs", "VpcId", {"Value": {"Ref": "PublicSubnet1"}}, "VpcId is of AWS::EC2::VPC"),
        ("network", "Outputs", "NodeGroupId", {"Value": {"Ref": "Vpc"}}, "NodeGroupId is of"),
        ("network", "Outputs", "PingSubnetIds", {"Value": {"Ref": "PublicSubnet1"}}, "PingSubnetIds is"),
        ("network", "Outputs", "DatabaseSubnetIds", {"Value": {"Fn::Sub": "${Vpc},${Vpc}"}}, "Database"),
        ("queue", "Outputs", "RawBucket", {"Value": "x"}, "the output RawBucket has the name of another"),
        ("spark", "Parameters", "New", {"Type": "Number"}, "spark.yaml: New has no default"),
        ("web", "Parameters", "WebCount", {"Type": "Number", "MinValue": 3}, "WebCount is 1, which is out"),
        ("web", "Parameters", "PagesUrl", {"Type": "String", "AllowedPattern": "x"}, "not of the form x"),
        ("ingest", "Parameters", "NodeCount", {"Type": "Number", "AllowedValues": [1]}, "NodeCount is 3"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_found(stack, part, name, to, message, templates, files):
    found = problems(changed(templates, stack, part, name, to), files)
    assert any(message in problem for problem in found), found


def test_values_that_no_template_asks_for_are_found(templates):
    found = problems(templates, {"mine.json": {"NodesCount": 1, "RawBucket": "x"}})
    assert "mine.json: no template has a parameter NodesCount" in found
    assert "mine.json gives RawBucket, an output of a stack" in found


def test_the_page_explains_every_parameter_that_is_not_an_output(templates):
    page = (PROJECT_ROOT / "docs" / "provisioning.md").read_text()
    outputs = {name for template in templates.values() for name in template.get("Outputs", {})}
    asked = {name for template in templates.values() for name in template["Parameters"]} - outputs
    assert {name for name in asked if f"`{name}`" not in page} == set()


def test_the_scripts_of_machines_are_in_the_templates_as_they_are():
    joined = set()
    for path in TEMPLATE_FOLDER.glob("*.yaml"):
        text = path.read_text()
        assert user_data.joined(text) == text, "run python -m build_tools.user_data"
        joined |= set(user_data.scripts_of(text))
    scripts = {str(path.relative_to(PROJECT_ROOT)) for path in (TEMPLATE_FOLDER / "user_data").glob("*.sh")}
    assert joined == scripts
    for script in scripts:
        subprocess.run(["bash", "-n", PROJECT_ROOT / script], check=True)


def test_a_script_is_joined_with_its_braces_kept_from_cloudformation(tmp_path):
    folder = tmp_path / "cloudformation" / "user_data"
    folder.mkdir(parents=True)
    (folder / "a.sh").write_text('echo "${one%%/*}"\n\nexit\n')
    begin, end = "      # --- cloudformation/user_data/a.sh\n", "      # --- end\n"
    template = f"    text: |\n      before\n{begin}      old\n{end}      after\n"
    assert user_data.joined(template, tmp_path) == (
        f'    text: |\n      before\n{begin}      echo "${{!one%%/*}}"\n\n      exit\n{end}      after\n'
    )
    assert user_data.joined("nothing\n", tmp_path) == "nothing\n"


def test_user_data_fit_into_what_a_machine_is_given(templates):
    for stack in ("ingest", "web", "monitoring"):
        (machine,) = [
            resource["Properties"]["LaunchTemplateData"]
            for resource in templates[stack]["Resources"].values()
            if resource["Type"] == "AWS::EC2::LaunchTemplate"
        ]
        text = machine["UserData"]["Fn::Base64"]["Fn::Sub"]
        # The values of its parameters are longer than their names by less than this.
        assert len(text.encode()) + 1_024 <= user_data.USER_DATA_MAX_BYTES, stack
        assert text.startswith("#!/bin/bash\n")
        assert "\nset -euo pipefail\n" in text


def test_the_numbers_of_scaling_are_those_of_the_decision(templates):
    parameters = templates["orchestration"]["Parameters"]
    assert parameters["AgeMaxSeconds"]["Default"] == scaling.AGE_MAX_SECONDS
    assert parameters["OutWaitSeconds"]["Default"] == scaling.OUT_WAIT_SECONDS
    assert parameters["CalmSeconds"]["Default"] == scaling.CALM_SECONDS
    assert parameters["CalmAgeSeconds"]["Default"] == scaling.CALM_AGE_SECONDS
