"""Templates and parameters: what is read of them, and what is found before AWS is asked."""

import json
import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from provisioning.parameters import Values, misfits, problems, read_parameters, resolve
from provisioning.templates import (
    TEMPLATE_MAX_BYTES,
    Parameter,
    Template,
    load_templates,
    read_template,
    template_of,
)
from telemetry_lake.failures import ConfigurationError

DATA = Path(__file__).parent / "data" / "templates"
KNOWN = {"Environment": "small", "PackageKey": "packages/x"}


def template(
    stack: str, *, needs: Mapping[str, object] | None = None, says: tuple[str, ...] = ()
) -> Template:
    content = {
        "Parameters": dict(needs or {}),
        "Resources": {"Topic": {"Type": "AWS::SNS::Topic"}},
        "Outputs": {name: {"Value": "x"} for name in says},
    }
    return template_of(stack, json.dumps(content))


def test_templates_come_in_the_order_of_their_deployment():
    templates = load_templates(DATA)
    assert [each.stack for each in templates] == ["storage", "queue", "catalog", "ingest"]
    storage = templates[0]
    assert storage.outputs == {"RawBucket", "LakeBucket", "TablesBucket", "CodeBucket"}
    assert storage.resources["RawBucket"].is_kept_when_deleted
    assert not storage.resources["ScratchBucket"].is_kept_when_deleted
    assert storage.resources["ScratchBucket"].holds_data
    assert not templates[2].resources["Topic"].holds_data


@pytest.mark.parametrize(
    "text, message",
    [
        ("a: b", "no Resources"),
        ("Resources: {A: {}}", "its resource A has no Type"),
        ("{", "not a template"),
    ],
)
def test_what_is_not_a_template_is_said_with_its_file(tmp_path, text, message):
    file = tmp_path / "queue.yaml"
    file.write_text(text)
    with pytest.raises(ConfigurationError, match=message) as failure:
        read_template("queue", file)
    assert str(file) in str(failure.value)


def test_a_folder_without_templates_and_one_that_is_not_known_are_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="holds no template"):
        load_templates(tmp_path)
    (tmp_path / "cellar.yaml").write_text("Resources: {A: {Type: B}}")
    with pytest.raises(ConfigurationError, match=r"cellar.yaml is not one of the stacks network, storage"):
        load_templates(tmp_path)


def test_a_long_template_is_sent_without_comments_and_one_that_is_still_too_long_is_refused():
    text = "Resources: {A: {Type: B}}\n"
    fits = text + "#" * (TEMPLATE_MAX_BYTES - len(text))
    assert template_of("web", fits).body == fits
    assert template_of("web", fits + "#").body == '{"Resources":{"A":{"Type":"B"}}}'
    description = "x" * TEMPLATE_MAX_BYTES
    with pytest.raises(ValueError, match="CloudFormation takes 51200"):
        template_of("web", json.dumps({"Description": description, "Resources": {"A": {"Type": "B"}}}))


@pytest.mark.parametrize(
    "parameter, good, bad, message",
    [
        (Parameter("N", "Number", min_value=5, max_value=9), ("5", "9"), "4", "at least 5, and '4' is less"),
        (Parameter("N", "Number", min_value=5, max_value=9), ("7",), "9.5", "at most 9, and '9.5' is more"),
        (Parameter("N", "Number"), ("-1.5",), "many", "has to be a number, and 'many' is not"),
        (Parameter("N", allowed_values=("a", "b")), ("a",), "c", "one of a, b, and 'c' is not"),
        (Parameter("N", allowed_pattern="[a-z]+"), ("ab",), "ab1", r"of the form \[a-z\]\+; 'ab1' is not"),
        (Parameter("N", allowed_pattern="a", constraint="an a"), ("a",), "b", "has to be an a; 'b' is not"),
        (
            Parameter("N", min_length=2, max_length=3),
            ("ab", "abc"),
            "abcd",
            "2 to 3 characters, and it has 4",
        ),
        (Parameter("N"), ("x" * 4096,), "x" * 4097, "0 to 4096 characters, and it has 4097"),
        (Parameter("N", "AWS::EC2::VPC::Id"), ("vpc-0a",), "net-1", "an id such as vpc-0123abcd"),
        (
            Parameter("N", "List<AWS::EC2::Subnet::Id>"),
            ("subnet-1,subnet-2",),
            "subnet-1,x",
            "subnet-0123abcd",
        ),
        (Parameter("N", "List<Number>"), ("1,2",), "1,b", "a number"),
        (Parameter("N", "CommaDelimitedList"), ("a,b",), None, ""),
    ],
)
def test_a_value_is_held_against_what_its_template_says(parameter, good, bad, message):
    for value in good:
        assert list(misfits(parameter, value)) == []
    if bad is not None:
        (found,) = misfits(parameter, bad)
        assert re.search(message, found), found


def test_a_secret_value_is_not_in_the_message():
    (found,) = misfits(Parameter("Password", allowed_pattern="[a-z]{20}", is_secret=True), "hunter2")
    assert "hunter2" not in found


def test_every_mistake_is_said_at_once_and_none_where_all_fits():
    templates = load_templates(DATA)
    assert problems(templates, Values({}, KNOWN, "small.json")) == []
    wrong = {
        "VisibilityTimeoutSecond": "5",
        "VisibilityTimeoutSeconds": "4",
        "TablesBucket": "mine",
        "Environment": "Small",
        "Encryption": "rot13",
    }
    found = problems(
        [*templates, template("web", needs={"Certificate": {"Type": "String", "Description": "its ARN"}})],
        Values(wrong, KNOWN, "small.json"),
    )
    assert found == [
        (
            "small.json: no template has a parameter VisibilityTimeoutSecond: "
            "did you mean VisibilityTimeoutSeconds?"
        ),
        (
            "small.json: Environment has to be 2 to 12 small letters and digits, the first a letter; "
            "'Small' is not"
        ),
        "small.json: Encryption has to be one of AES256, aws:kms, and 'rot13' is not",
        "small.json: VisibilityTimeoutSeconds has to be at least 5, and '4' is less",
        "small.json: TablesBucket is an output of the stack storage: leave it out",
        "small.json: Certificate (its ARN) is missing, which the stack web needs",
    ]


def test_an_output_is_for_later_stacks_only_and_is_not_given_by_hand():
    needs = {"Url": {"Type": "String"}}
    first, second = template("queue", says=("Url",)), template("web", needs=needs)
    assert problems([first, second], Values({}, {})) == []
    assert problems([first, second], Values({"Url": "x"}, {}, "file")) == [
        "file: Url is an output of the stack queue: leave it out"
    ]
    before, after = template("queue", needs=needs), template("web", says=("Url",))
    (found,) = problems([before, after], Values({}, {}))
    assert "the stack queue needs Url, an output of web, which is deployed after it" in found


def test_names_are_written_out_for_a_new_stack_as_far_as_they_are_known():
    storage = load_templates(DATA)[0]
    body = json.loads(storage.with_plain_names({"Environment": "small"}))
    assert body["Resources"]["LakeBucket"]["Properties"] == {"BucketName": "small-lake"}
    name = body["Resources"]["RawBucket"]["Properties"]["BucketName"]
    assert name == {"Fn::Sub": "small-raw-${Generation}"}


def test_values_come_from_the_file_then_the_deployment_then_earlier_stacks():
    needs = {name: {"Type": "String"} for name in ("A", "B", "C")} | {"D": {"Type": "String", "Default": "d"}}
    asking = template("web", needs=needs)
    assert resolve(asking, Values({"A": "file"}, {"A": "known", "B": "known"}), {"B": "out", "C": "out"}) == {
        "A": "file",
        "B": "known",
        "C": "out",
    }
    assert resolve(asking, Values({}, {}), {"A": "out"}) is None


def test_a_file_of_parameters_is_an_object_of_values(tmp_path):
    file = tmp_path / "small.json"
    with pytest.raises(ConfigurationError, match=r"small.json is missing.*\(none\)"):
        read_parameters(file)
    file.write_text("{")
    with pytest.raises(ConfigurationError, match="is not JSON"):
        read_parameters(file)
    file.write_text('{"storage": {"RawDays": 1}}')
    with pytest.raises(ConfigurationError, match="one JSON object of names and values"):
        read_parameters(file)
    file.write_text('{"ZoneCount": 3, "Nat": true, "Zones": ["a", "b"], "Name": "x"}')
    assert read_parameters(file) == {"ZoneCount": "3", "Nat": "true", "Zones": "a,b", "Name": "x"}
