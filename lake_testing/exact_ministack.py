"""ministack, made to refuse what AWS refuses. Run by the Python of `.venv-emulator`, never imported.

ministack 1.5.33 evaluates IAM, but differs from AWS where a forgotten right would not be found, or a right
that AWS knows is not enough:

- a batch call of SQS is checked as an action that AWS does not have, such as `sqs:SendMessageBatch`;
- a missing object is answered with 404 also to a caller without `s3:ListBucket`, where AWS answers 403;
- a call that it knows no action of IAM for is allowed;
- a call of Glue on a database is checked as one on a table, and one on a table as one on its database;
- a stack that is deleted takes its buckets along, however many objects are in them.

Every decision is written as a line of JSON to the file that `DECISIONS_FILE` names. It changes functions
inside of ministack: requirements-emulator.in pins the version.
"""

import json
import os
from importlib import import_module
from pathlib import Path
from typing import Any, Final

SINGLE_ACTIONS: Final = {
    f"sqs:{action}Batch": f"sqs:{action}"
    for action in ("SendMessage", "DeleteMessage", "ChangeMessageVisibility")
}
UNKNOWN_ACTION: Final = "UnknownAction"

# The checks of types and of dependencies run in the other environment, where there is no ministack.
actions: Any = import_module("ministack.core.iam_actions")
evaluator: Any = import_module("ministack.core.iam_evaluator")
provisioners: Any = import_module("ministack.services.cloudformation.provisioners")
s3: Any = import_module("ministack.services.s3")
extract_plainly = actions.extract_iam_action
extract_resource_plainly = actions.extract_resource_arn
enforce_plainly = evaluator.enforce
delete_bucket_plainly = provisioners._s3_delete


def extract_iam_action(service: str | None, *request: Any) -> str:
    """Return the action of IAM that AWS checks for a request."""
    action: str | None = extract_plainly(service, *request)
    return SINGLE_ACTIONS.get(action, action) if action else f"{service or 'unknown'}:{UNKNOWN_ACTION}"


def extract_resource_arn(
    service: str, method: str, path: str, headers: Any, body: bytes, routing: Any, region: str, account: str
) -> str:
    """Return the resource that AWS checks for a request: of Glue, the database or the table that it names."""
    target = str(headers.get("x-amz-target", ""))
    if service == "glue" and target.endswith(("Database", "Table")):
        asked = json.loads(body or b"{}")
        glue = f"arn:aws:glue:{region}:{account}"
        if target.endswith("Table"):
            table = asked.get("Name") or asked.get("TableInput", {}).get("Name")
            return f"{glue}:table/{asked.get('DatabaseName')}/{table}"
        return f"{glue}:database/{asked.get('Name') or asked.get('DatabaseInput', {}).get('Name')}"
    arn: str = extract_resource_plainly(service, method, path, headers, body, routing, region, account)
    return arn


def enforce(
    access_key: str, action: str, service: str, region: str, resource_arn: str = "*", **context: Any
) -> Any:
    """Return None when the call is allowed, otherwise why it is not; write the decision down."""
    refused = enforce_plainly(access_key, action, service, region, resource_arn=resource_arn, **context)
    if refused is None and action == "s3:GetObject" and _is_missing(resource_arn):
        bucket = resource_arn.partition("/")[0]
        refused = enforce_plainly(access_key, "s3:ListBucket", service, region, resource_arn=bucket)
    decision = {"key": access_key, "action": action, "resource": resource_arn, "allowed": refused is None}
    decisions.write(json.dumps(decision) + "\n")
    return refused


def _is_missing(resource_arn: str) -> bool:
    name, _, key = resource_arn.removeprefix("arn:aws:s3:::").partition("/")
    bucket = s3._ensure_bucket(name)
    return bucket is not None and key not in bucket["objects"]


def delete_bucket(name: str, properties: Any) -> None:
    """Delete the bucket of a stack, unless there are objects in it."""
    bucket = s3._ensure_bucket(name)
    if bucket is not None and bucket["objects"]:
        raise ValueError(f"The bucket you tried to delete is not empty: {name} (BucketNotEmpty)")
    delete_bucket_plainly(name, properties)


if __name__ == "__main__":
    decisions = Path(os.environ["DECISIONS_FILE"]).open("a", buffering=1)  # noqa: SIM115
    actions.extract_iam_action = extract_iam_action
    actions.extract_resource_arn = extract_resource_arn
    evaluator.enforce = enforce
    provisioners._RESOURCE_HANDLERS["AWS::S3::Bucket"]["delete"] = delete_bucket
    import_module("ministack.app").main()
