"""SageMaker's own training images, as data.

``framework_images.json`` is cut from the tables of the SageMaker Python SDK (``python -m
ml_lifecycle.training.framework_images`` writes it anew; a test compares it with the SDK that is installed):
which account a Region pulls an image from, and how its tag is written. No synthesis imports the SDK for it.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aws_cdk as cdk
from aws_cdk import aws_iam as iam

from constructs import Construct
from ml_lifecycle.pseudo import PARTITION, REGION, stack_of
from ml_lifecycle.training.job_role import grant_pull_token

__all__ = ["FrameworkImage", "framework_image", "versions"]

_FILE = Path(__file__).with_name("framework_images.json")
#: Framework -> the SDK's name of it, and the least version that makes sense here. SageMaker's XGBoost before
#: 3.0 leaves its model as a pickle (up to 1.2) or in a binary form that XGBoost 3.1 no longer reads
#: (XGBoost, "Introduction to Model IO"). PyTorch before 2.6 exports no ONNX that is tested here.
_FRAMEWORKS = {"pytorch": ("pytorch", (2, 6)), "xgboost": ("xgboost", (3, 0))}


@dataclass(frozen=True, kw_only=True)
class FrameworkImage:
    """One of SageMaker's images: repository, tag, and the account that holds it in each Region."""

    repository: str
    tag: str
    accounts: tuple[tuple[str, str], ...]

    def uri(self, scope: Construct) -> str:
        """URI in the Region of the scope's stack. Raises ValueError for a Region without it."""
        return f"{self._account(scope)}.dkr.ecr.{REGION}.{cdk.Aws.URL_SUFFIX}/{self.repository}:{self.tag}"

    def grant_pull(self, scope: Construct, grantee: iam.IRole) -> iam.Grant:
        """Grant pulling it: an account of AWS owns the repository, so its ARN is written out."""
        grant_pull_token(grantee)
        return iam.Grant.add_to_principal(
            grantee=grantee,
            actions=["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"],
            resource_arns=[
                f"arn:{PARTITION}:ecr:{REGION}:{self._account(scope)}:repository/{self.repository}"
            ],
        )

    def _account(self, scope: Construct) -> str:
        stack = stack_of(scope)
        accounts = dict(self.accounts)
        if not cdk.Token.is_unresolved(stack.region):
            if stack.region not in accounts:
                raise ValueError(
                    f"region must be one that offers {self.repository}:{self.tag}, got {stack.region}; they "
                    f"are {', '.join(sorted(accounts))}"
                )
            return accounts[stack.region]
        # The Region is known when the stack is deployed.
        mapping_id = "Image" + "".join(part.title() for part in self.repository.split("-"))
        mapping = stack.node.try_find_child(mapping_id)
        if mapping is None:
            mapping = cdk.CfnMapping(
                stack,
                mapping_id,
                mapping={region: {"account": account} for region, account in self.accounts},
            )
        assert isinstance(mapping, cdk.CfnMapping)
        return mapping.find_in_map(REGION, "account")


@functools.cache
def _table() -> dict[str, Any]:
    data: dict[str, Any] = json.loads(_FILE.read_text())
    return data


def versions(framework: str) -> tuple[str, ...]:
    """Versions of a framework's image, with the short forms (``2.10``)."""
    known = _table()["frameworks"][framework]
    return (*known["versions"], *known["aliases"])


def framework_image(framework: str, version: str, *, gpu: bool = False) -> FrameworkImage:
    """Return the training image of a framework; ValueError for a version that there is not."""
    if version not in versions(framework):
        raise ValueError(
            f"version must be one of {', '.join(versions(framework))} for {framework}, got {version!r}"
        )
    known = _table()["frameworks"][framework]
    found = known["versions"][known["aliases"].get(version, version)]
    accounts = _table()["accounts"][found["accounts"]]
    return FrameworkImage(
        repository=found["repository"],
        tag=found["gpu" if gpu else "cpu"],
        accounts=tuple(sorted(accounts.items())),
    )


def extract() -> dict[str, Any]:
    """Cut the table out of the installed SageMaker SDK."""
    from importlib.metadata import distribution

    folder = Path(str(distribution("sagemaker-core").locate_file("sagemaker/core/image_uri_config")))
    accounts: list[dict[str, str]] = []
    frameworks: dict[str, Any] = {}
    for framework, (name, least) in _FRAMEWORKS.items():
        table = json.loads((folder / f"{name}.json").read_text())["training"]
        found: dict[str, Any] = {}
        for version, entry in table["versions"].items():
            numbers = version.split("-")[0].split(".")
            if tuple(int(number) for number in numbers[:2] if number.isdigit()) < least or len(numbers) < 2:
                continue
            if entry["registries"] not in accounts:
                accounts.append(entry["registries"])
            # image_uris.retrieve: a tag ends in processor and Python where the table names them.
            pythons = entry.get("py_versions", [])
            suffix = f"-{pythons[-1]}" if pythons else ""
            found[version] = {
                "repository": entry["repository"],
                "accounts": accounts.index(entry["registries"]),
                **{kind: f"{version}-{kind}{suffix}" if pythons else version for kind in ("cpu", "gpu")},
            }
        aliases = {short: full for short, full in table.get("version_aliases", {}).items() if full in found}
        frameworks[framework] = {"versions": found, "aliases": aliases}
    return {"frameworks": frameworks, "accounts": accounts}


def main() -> None:
    """Write ``framework_images.json`` from the SDK that is installed."""
    _FILE.write_text(json.dumps(extract(), indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
