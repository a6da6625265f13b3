"""Migrate through the function `migrate`: it is brought up to date alone, then called; the rest of a deploy waits.

It reaches a database that only the VPC does. On a stack's first deploy there is nothing but it and what it needs. It
stays new where migrating fails; everything else stays as it was.
"""

import json
from collections.abc import Callable
from typing import Any

from ops import aws_sdk
from ops.aws_package import Package, Template
from shared.errors import MigrationError

FUNCTION = "migrate"  # its name in serverless.yml
_POLL = 2  # seconds between looks at a stack
_LONGEST = 1800  # seconds that a stack's change may take

Report = Callable[[str], None]


def run(package: Package, *, report: Report) -> None:
    """Bring `migrate` up to date and call it. Raises MigrationError on anything but its explicit ok."""
    session = aws_sdk.module("boto3").Session(region_name=package.region)
    with aws_sdk.explained():
        _bring_up_to_date(package, session, report)
        # Sent once: one that runs long must not be sent again. Alive through a NAT gateway, which forgets a connection
        # that is silent for 350 s.
        config = aws_sdk.module("botocore.config").Config(
            read_timeout=package.function(FUNCTION)["Timeout"] + 30,
            retries={"total_max_attempts": 1},
            tcp_keepalive=True,
        )
        functions = session.client("lambda", config=config)
        report("Migrating ...")
        answer = functions.invoke(
            FunctionName=package.function(FUNCTION)["FunctionName"], Payload=json.dumps({"command": "deploy"})
        )
        payload = answer["Payload"].read().decode("utf-8", "replace")
    read(payload, answer.get("FunctionError"), report=report)


def read(payload: str, function_error: str | None, *, report: Report) -> None:
    """Report what the function did. Raises MigrationError unless it says that all is well."""
    try:
        result = json.loads(payload)
    except ValueError:
        result = None
    found: dict[str, Any] = result if isinstance(result, dict) else {}
    for line in found.get("lines", []):
        report(line)
    if found.get("ok") is True and function_error is None:
        return
    said = found.get("error") or found.get("errorMessage") or payload[:500]
    raise MigrationError(
        f"The function `{FUNCTION}` did not migrate: {said}", solutions=[f"Its log: npx osls logs -f {FUNCTION}"]
    )


def _bring_up_to_date(package: Package, session: Any, report: Report) -> None:
    """Change the stack to hold the packaged `migrate`, and of all else what it held before."""
    clouds, bucket = session.client("cloudformation"), session.client("s3")
    current = _current_template(package, clouds)
    if current is None:
        report(f"Creating the stack {package.stack} ...")
        _change(package, clouds, "create", TemplateBody=json.dumps(package.first_template))
        current = package.first_template
    code = package.function(FUNCTION)["Code"]
    found = clouds.describe_stack_resource(StackName=package.stack, LogicalResourceId=code["S3Bucket"]["Ref"])
    name = found["StackResourceDetail"]["PhysicalResourceId"]
    report(f"Uploading {package.zip.name} ...")
    bucket.put_object(Bucket=name, Key=code["S3Key"], Body=package.zip.read_bytes())

    needed = package.with_needs(package.logical_id(FUNCTION))
    template = {**current, "Resources": {**current["Resources"], **needed}}
    # By address: a template of more than 51,200 bytes does not travel otherwise (CloudFormation's quotas).
    key = f"{code['S3Key'].rpartition('/')[0]}/{FUNCTION}.json"
    bucket.put_object(Bucket=name, Key=key, Body=json.dumps(template).encode())
    report(f"Updating the function {FUNCTION} ...")
    _change(package, clouds, "update", TemplateURL=f"https://{name}.s3.{package.region}.amazonaws.com/{key}")


def _current_template(package: Package, clouds: Any) -> Template | None:
    try:
        template: Template = clouds.get_template(StackName=package.stack, TemplateStage="Original")["TemplateBody"]
    except clouds.exceptions.ClientError as error:
        if "does not exist" in str(error):
            return None
        raise
    return template


def _change(package: Package, clouds: Any, kind: str, **template: str) -> None:
    change = clouds.create_stack if kind == "create" else clouds.update_stack
    try:
        change(StackName=package.stack, Capabilities=["CAPABILITY_IAM", "CAPABILITY_NAMED_IAM"], **template)
    except clouds.exceptions.ClientError as error:
        if "No updates are to be performed" in str(error):
            return
        raise
    try:
        clouds.get_waiter(f"stack_{kind}_complete").wait(
            StackName=package.stack, WaiterConfig={"Delay": _POLL, "MaxAttempts": _LONGEST // _POLL}
        )
    except aws_sdk.module("botocore.exceptions").WaiterError as error:
        raise MigrationError(
            f"CloudFormation could not {kind} {package.stack}: {_reason(package, clouds) or error}",
            solutions=["A stack that was never complete must go first: npx osls remove"],
        ) from error


def _reason(package: Package, clouds: Any) -> str | None:
    """Give the reason that CloudFormation names first for the change that failed last."""
    reason = None
    for event in clouds.describe_stack_events(StackName=package.stack)["StackEvents"]:  # the newest first
        if event["ResourceStatus"].endswith("_FAILED"):
            reason = f"{event['LogicalResourceId']}: {event.get('ResourceStatusReason')}"
        elif event.get("ResourceStatusReason") == "User Initiated":
            break
    return reason
