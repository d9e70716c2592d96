"""Stands in for ``cdk-assets``: publishes one asset of an assembly, as the role that the manifest names.

Files and folders go to their bucket as they are or zipped; images go through the rehearsal's docker.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import boto3.session
from botocore.config import Config
from botocore.exceptions import ClientError


def main(arguments: list[str]) -> None:
    """Answer ``cdk-assets --path <assets.json> --verbose publish <asset>:<destination>``."""
    parser = argparse.ArgumentParser(prog="cdk-assets")
    parser.add_argument("--path", type=Path, required=True)
    parser.add_argument("--verbose", action="store_true")
    parser.add_argument("command", choices=["publish"])
    parser.add_argument("assets", nargs="+")
    options = parser.parse_args(arguments)
    manifest = json.loads(options.path.read_text(encoding="utf-8"))
    for asset in options.assets:
        name, _, place = asset.partition(":")
        if name in manifest.get("files", {}):
            entry = manifest["files"][name]
            _file(options.path.parent, entry["source"], _here(entry["destinations"][place]))
        elif name in manifest.get("dockerImages", {}):
            entry = manifest["dockerImages"][name]
            _image(options.path.parent, entry["source"], _here(entry["destinations"][place]))
        else:
            raise SystemExit(f"cdk-assets: {options.path} has no asset {name}")
        print(f"published {asset}")


def _session() -> Any:
    return boto3.session.Session()


def _client(session: Any, service: str, region: str | None) -> Any:
    return session.client(service, region_name=region, config=Config(s3={"addressing_style": "path"}))


def _here(destination: dict[str, Any]) -> dict[str, Any]:
    """A destination with the account and Region of the build in place of their placeholders."""
    session = _session()
    account = session.client("sts").get_caller_identity()["Account"]
    text = json.dumps(destination)
    for name, value in (
        ("${AWS::AccountId}", account),
        ("${AWS::Region}", session.region_name),
        ("${AWS::Partition}", "aws"),
    ):
        text = text.replace(name, value)
    found: dict[str, Any] = json.loads(text)
    return found


def _as(role: str | None) -> Any:
    """A session of the role that the manifest names."""
    own = _session()
    if role is None:
        return own
    given = own.client("sts").assume_role(RoleArn=role, RoleSessionName="cdk-assets")["Credentials"]
    return boto3.session.Session(
        aws_access_key_id=given["AccessKeyId"],
        aws_secret_access_key=given["SecretAccessKey"],
        aws_session_token=given["SessionToken"],
        region_name=own.region_name,
    )


def _file(folder: Path, source: dict[str, Any], destination: dict[str, Any]) -> None:
    s3 = _client(_as(destination.get("assumeRoleArn")), "s3", destination.get("region"))
    place = {"Bucket": destination["bucketName"], "Key": destination["objectKey"]}
    try:
        s3.head_object(**place)
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] not in (403, 404):
            raise
    else:
        # Its key is its hash.
        return
    path = folder / source["path"]
    s3.put_object(**place, Body=_zipped(path) if source.get("packaging") == "zip" else path.read_bytes())


def _zipped(folder: Path) -> bytes:
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                archive.write(path, path.relative_to(folder).as_posix())
    return body.getvalue()


def _image(folder: Path, source: dict[str, Any], destination: dict[str, Any]) -> None:
    session = _as(destination.get("assumeRoleArn"))
    ecr = _client(session, "ecr", destination.get("region"))
    described = ecr.describe_repositories(repositoryNames=[destination["repositoryName"]])["repositories"]
    tag = f"{described[0]['repositoryUri']}:{destination['imageTag']}"
    context = folder / source["directory"]
    words = ["build", "--tag", tag]
    for key, value in source.get("dockerBuildArgs", {}).items():
        words += ["--build-arg", f"{key}={value}"]
    if "dockerFile" in source:
        words += ["--file", source["dockerFile"]]
    credentials = session.get_credentials().get_frozen_credentials()
    environment = {
        **os.environ,
        "AWS_ACCESS_KEY_ID": credentials.access_key,
        "AWS_SECRET_ACCESS_KEY": credentials.secret_key,
        "AWS_SESSION_TOKEN": credentials.token or "",
    }
    for command in ([*words, str(context)], ["push", tag]):
        subprocess.run(["docker", *command], check=True, env=environment)


if __name__ == "__main__":
    main(sys.argv[1:])
