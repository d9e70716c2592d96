"""What Glue jobs import that AWS Glue does not bring: pyiceberg, and what it needs."""

from __future__ import annotations

import re

from aws_cdk import aws_iam as iam

from ml_lifecycle.pseudo import PARTITION

__all__ = ["GLUE_MODULES", "grant_wheels", "module_arguments"]

#: Each at the version that the jobs are tested with. What boto3 brings (urllib3, python-dateutil) is left to
#: Glue; pyarrow is not, since pyiceberg needs a newer one than Glue 5.0 has (18 or later).
GLUE_MODULES = (
    "annotated-types==0.8.0",
    "cachetools==7.3.2",
    "certifi==2026.10.18",
    "charset-normalizer==3.5.2",
    "click==8.5.1",
    "fsspec==2026.9.0",
    "idna==3.20",
    "markdown-it-py==4.3.0",
    "mdurl==0.1.2",
    "mmh3==5.3.1",
    "pyarrow==25.0.1",
    "pydantic==2.14.3",
    "pydantic-core==2.50.4",
    "pygments==2.21.0",
    "pyiceberg==0.12.0",
    "pyparsing==3.3.3",
    "pyroaring==1.2.0",
    "requests==2.34.2",
    "rich==14.3.4",
    "strictyaml==1.7.3",
    "tenacity==9.2.1",
    "typing-extensions==4.16.0",
    "typing-inspection==0.4.5",
    "zstandard==0.25.0",
)


def module_arguments(wheels: str | None) -> dict[str, str]:
    """The job arguments that install them: from PyPI, or from a zip of wheels in S3 and from nowhere else.

    Glue jobs without a connection to a VPC reach PyPI. Where they must not, ``wheels`` names a zip of the
    wheels of ``GLUE_MODULES``, whose name ends in ``.gluewheels.zip`` (AWS Glue Developer Guide, "Using
    Python libraries with AWS Glue", Glue 5.0 and later).
    """
    if wheels is None:
        return {"--additional-python-modules": ",".join(GLUE_MODULES)}
    if not re.fullmatch(r"s3://[^/]+/.+\.gluewheels\.zip", wheels):
        raise ValueError(f"wheels must look like s3://bucket/key.gluewheels.zip or be None, got {wheels!r}")
    return {"--additional-python-modules": wheels, "--python-modules-installer-option": "--no-index"}


def grant_wheels(wheels: str | None, grantee: iam.IGrantable) -> None:
    """Grant reading the zip of wheels; Glue fetches it as the job's role."""
    if wheels is not None:
        place = wheels.removeprefix("s3://")
        iam.Grant.add_to_principal(
            grantee=grantee, actions=["s3:GetObject"], resource_arns=[f"arn:{PARTITION}:s3:::{place}"]
        )
