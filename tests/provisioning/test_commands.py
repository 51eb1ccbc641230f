"""What an operator does, against the emulator: deploy, upgrade, be refused, turn off, turn on again."""

import pytest
from botocore.exceptions import ClientError

from provisioning.__main__ import Aws
from provisioning.package import make_package

DEPLOYED = ("storage", "queue", "catalog", "ingest")


def test_a_lake_is_deployed_changed_refused_turned_off_and_turned_on_again(environment):
    planned = environment.run("plan")
    assert "needs TablesBucket" in planned
    assert "RawBucket" in planned
    with pytest.raises(ClientError, match="does not exist"):
        environment.stack_status("storage")

    deployed = environment.deploy()
    assert all(environment.stack_status(stack) == "CREATE_COMPLETE" for stack in DEPLOYED)
    assert "live.pings" in deployed
    _is_protected(environment)
    _package_is_sent(environment, deployed)

    again = environment.deploy()
    assert "nothing to change" in again
    assert "there already" in again

    _upgrade(environment)
    _refused_replacement(environment)
    _turn_off_and_on(environment)


def _is_protected(environment):
    client = environment.emulator.client("cloudformation")
    with pytest.raises(ClientError, match="TerminationProtection"):
        client.delete_stack(StackName=f"telemetry-lake-{environment.name}-storage")


def _package_is_sent(environment, deployed):
    package = make_package()
    assert f"s3://{environment.name}-code/{package.key}: sent" in deployed
    s3 = environment.emulator.client("s3")
    body = s3.get_object(Bucket=f"{environment.name}-code", Key=package.key)["Body"].read()
    assert body == package.body


def _upgrade(environment):
    environment.values["VisibilityTimeoutSeconds"] = "120"
    planned = environment.run("plan")
    assert "modified" in planned
    assert "VisibilityTimeout" in planned
    assert "1 modified" in planned
    # A plan leaves nothing behind.
    client = environment.emulator.client("cloudformation")
    assert client.list_change_sets(StackName=f"telemetry-lake-{environment.name}-queue")["Summaries"] == []
    environment.deploy()
    sqs = environment.emulator.client("sqs")
    url = sqs.get_queue_url(QueueName=f"{environment.name}-index")["QueueUrl"]
    attributes = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["VisibilityTimeout"])["Attributes"]
    assert attributes == {"VisibilityTimeout": "120"}


def _refused_replacement(environment):
    environment.emulator.client("s3").put_object(
        Bucket=f"{environment.name}-raw-first", Key="raw/v1/x", Body=b"a ping"
    )
    environment.values |= {"Generation": "second", "VisibilityTimeoutSeconds": "60"}
    environment.remove_resource("storage", "ScratchBucket")
    refused = environment.deploy(code=1)
    assert "the new one is empty; the old one is kept" in refused
    assert "--allow-replacement" in refused
    # The queue is before it in no order that matters: nothing at all was changed.
    sqs = environment.emulator.client("sqs")
    url = sqs.get_queue_url(QueueName=f"{environment.name}-index")["QueueUrl"]
    attributes = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["VisibilityTimeout"])["Attributes"]
    assert attributes == {"VisibilityTimeout": "120"}
    assert "ScratchBucket" in environment.deploy("--allow-replacement", "RawBucket", code=1)
    environment.deploy("--allow-replacement", "RawBucket", "--allow-replacement", "ScratchBucket")
    buckets = {each["Name"] for each in environment.emulator.client("s3").list_buckets()["Buckets"]}
    assert {f"{environment.name}-raw-first", f"{environment.name}-raw-second"} <= buckets
    assert f"{environment.name}-scratch" not in buckets


def _turn_off_and_on(environment):
    assert "is not" in environment.run("destroy", "--confirm", "another", code=1)
    said = environment.run("destroy", "--confirm", environment.name)
    assert f"AWS::S3::Bucket {environment.name}-code: 1 objects" in said
    assert "dollars a month" in said
    assert "nothing while it is not used" in said
    for stack in DEPLOYED:
        with pytest.raises(ClientError, match="does not exist"):
            environment.stack_status(stack)
    assert "there is no lake" in environment.run("destroy", "--confirm", environment.name, code=1)
    # What was kept is to come back into the stacks. To carry it out is not tried: the emulator proposes that,
    # and then finds that the names of the buckets are taken.
    assert environment.run("plan").count("taken in") == 5


def test_mistakes_are_said_before_anything_is_asked_of_aws(environment):
    environment.values |= {"VisibilityTimeoutSeconds": "never", "Zones": "3"}
    said = environment.deploy(code=1)
    assert "nothing was asked of AWS" in said
    assert "VisibilityTimeoutSeconds has to be a number, and 'never' is not" in said
    assert "no template has a parameter Zones" in said
    assert "write NAME=VALUE" in environment.run("plan", "--set", "Zones", code=1)
    environment.values = {"Environment": "other"}
    assert "give --environment other" in environment.run("plan", code=1)


def test_a_failed_stack_is_explained_and_cleared_away_by_the_next_deployment(environment):
    environment.values["RetentionSeconds"] = "5"
    said = environment.deploy(code=1)
    assert "queue ended in ROLLBACK_COMPLETE. What it had changed was taken back." in said
    assert "AWS::SQS::Queue DeadLetterQueue" in said
    assert "Correct the template or the parameter that it names" in said
    del environment.values["RetentionSeconds"]
    assert "is in ROLLBACK_COMPLETE: it is waited for, or cleared away" in environment.deploy()
    assert environment.stack_status("ingest") == "CREATE_COMPLETE"


def test_a_name_that_something_else_has_is_said_before_anything_is_made(environment):
    environment.emulator.client("s3").create_bucket(Bucket=f"{environment.name}-scratch")
    said = environment.deploy(code=1)
    assert "The affected resources are ScratchBucket" in said
    assert "Something of this name exists outside of the stack" in said


def test_something_else_that_is_missing_is_not_taken_for_a_missing_stack(environment):
    file = environment.templates / "queue.yaml"
    kind = '{Type: "AWS::SSM::Parameter::Value<String>", Default: /missing}'
    file.write_text(file.read_text().replace("Resources:", f"  Image: {kind}\nResources:", 1))
    assert "SSM parameter '/missing' does not exist" in environment.run("plan", code=1)


class Killed(BaseException):
    """Ends a deployment as a signal does: nothing catches it."""


@pytest.mark.long
@pytest.mark.parametrize(
    "after_call", ["create_change_set", "execute_change_set", "update_termination_protection"]
)
def test_a_deployment_that_was_killed_goes_on(environment, monkeypatch, after_call):
    plain = Aws.client
    calls = []

    def client(self, service):
        made = plain(self, service)

        def kill(**_):
            calls.append(service)
            # The second such call, so that one stack is as it should be.
            if len(calls) == 2:
                raise Killed

        if service == "cloudformation":
            made.meta.events.register(f"after-call.cloudformation.{_operation(after_call)}", kill)
        return made

    monkeypatch.setattr(Aws, "client", client)
    with pytest.raises(Killed):
        environment.deploy()
    monkeypatch.setattr(Aws, "client", plain)
    environment.deploy()
    assert all(environment.stack_status(stack) == "CREATE_COMPLETE" for stack in DEPLOYED)
    assert "nothing to change" in environment.run("plan")


def _operation(method):
    return "".join(word.capitalize() for word in method.split("_"))


def test_status_shows_every_stack_and_node(environment):
    assert environment.run("status").count("not deployed") == 10
    environment.deploy()
    said = environment.run("status")
    assert said.count("CREATE_COMPLETE") == 4
    assert "no machine" in said
    autoscaling = environment.emulator.client("autoscaling")
    autoscaling.set_desired_capacity(
        AutoScalingGroupName=f"{environment.name}-node-1", DesiredCapacity=1, HonorCooldown=False
    )
    assert "InService" in environment.run("status")


def test_a_resource_with_data_that_its_template_does_not_keep_is_not_deleted_by_the_way(environment):
    environment.deploy()
    refused = environment.run("destroy", "--confirm", environment.name, code=1)
    assert "--allow-deletion ScratchBucket" in refused
    assert environment.stack_status("ingest") == "CREATE_COMPLETE"
    environment.run("destroy", "--confirm", environment.name, "--allow-deletion", "ScratchBucket")
