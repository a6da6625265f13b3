"""What osls packaged: the folder `.serverless` with the zip and the CloudFormation template."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared.errors import LocalEnvironmentError

Template = dict[str, Any]


@dataclass(frozen=True)
class Package:
    """One package, for one stage and region."""

    zip: Path
    stack: str
    region: str
    first_template: Template  # of a stack's first moment: the bucket that the zip goes to
    template: Template

    @classmethod
    def read(cls, folder: Path) -> "Package":
        """Read what `osls package` or `osls deploy` left. Raises LocalEnvironmentError where it left nothing."""
        try:
            state, first, template = (
                json.loads((folder / name).read_text("utf-8"))
                for name in (
                    "serverless-state.json",
                    "cloudformation-template-create-stack.json",
                    "cloudformation-template-update-stack.json",
                )
            )
        except FileNotFoundError as error:
            raise LocalEnvironmentError(
                f"{folder.name} holds no package.", solutions=["Make one: make build-aws"]
            ) from error
        service, provider = state["service"]["service"], state["service"]["provider"]
        return cls(
            zip=folder / state["package"]["artifact"],
            stack=provider.get("stackName") or f"{service}-{provider['stage']}",
            region=provider["region"],
            first_template=first,
            template=template,
        )

    def function(self, name: str) -> dict[str, Any]:
        """Give the template's properties of the function whose name in serverless.yml is this."""
        properties: dict[str, Any] = self.template["Resources"][self.logical_id(name)]["Properties"]
        return properties

    def logical_id(self, name: str) -> str:
        """Give the template's name of a function."""
        for logical_id, resource in self.template["Resources"].items():
            if resource["Type"] == "AWS::Lambda::Function" and resource["Properties"]["FunctionName"].endswith(
                f"-{name}"
            ):
                return str(logical_id)
        raise LocalEnvironmentError(f"The package has no function {name}.", solutions=["Add it to serverless.yml."])

    def environment(self, name: str) -> dict[str, Any]:
        """Give a function's variables; a value that only CloudFormation knows is no text."""
        variables: dict[str, Any] = self.function(name)["Environment"]["Variables"]
        return variables

    def with_needs(self, logical_id: str) -> Template:
        """Give the resources that one needs, itself among them: its role, its log, the bucket of its code."""
        resources = self.template["Resources"]
        needed: Template = {}
        waiting = [logical_id]
        while waiting:
            name = waiting.pop()
            if name in resources and name not in needed:
                needed[name] = resources[name]
                waiting += _names_in(resources[name])
        return needed


def _names_in(value: Any) -> list[str]:
    """Collect the names that a part of a template refers to, by Ref, Fn::GetAtt, Fn::Sub or DependsOn."""
    if isinstance(value, list):
        return [name for item in value for name in _names_in(item)]
    if not isinstance(value, dict):
        return []
    names = []
    for key, item in value.items():
        if key == "Ref":
            names.append(item)
        elif key == "Fn::GetAtt":
            names.append(item[0] if isinstance(item, list) else item.partition(".")[0])
        elif key == "DependsOn":
            names += item if isinstance(item, list) else [item]
        elif key == "Fn::Sub":
            names += re.findall(r"\$\{(\w+)", item[0] if isinstance(item, list) else item)
        else:
            names += _names_in(item)
    return names
