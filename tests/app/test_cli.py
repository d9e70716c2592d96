"""The CDK CLI as a user calls it: no credentials, no network."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from cdk_support import ROOT, Assembly

pytestmark = pytest.mark.slow
#: Nothing of this machine's AWS configuration, and every way out leads to a closed port.
OFFLINE = {
    "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
    "HTTP_PROXY": "http://127.0.0.1:9",
    "HTTPS_PROXY": "http://127.0.0.1:9",
    "AWS_EC2_METADATA_DISABLED": "true",
}


def cdk(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["tools/cdk", *arguments, "--no-notices"],
        cwd=ROOT,
        env={**OFFLINE, "HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_should_list_readable_ids(tmp_path: Path) -> None:
    done = cdk(tmp_path, "list", "-c", "environment=dev", "--output", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()][:4] == [
        "Dev/Foundation",
        "Dev/DataLake",
        "Dev/Governance",
        "Dev/ClaimsFraudData",
    ]


def test_should_write_the_templates_that_tests_see(tmp_path: Path, assembly: Assembly) -> None:
    out = tmp_path / "out"
    done = cdk(tmp_path, "synth", "--quiet", "-c", "environment=dev", "--output", str(out))
    assert done.returncode == 0, done.stderr
    written = Assembly(out)
    for name in (n for n in written.stacks() if n.startswith("Dev/")):
        template, seen = written.template(name), assembly.template(name)
        assert template["Resources"].keys() - {"CDKMetadata"} == seen["Resources"].keys(), name


def test_should_compare_a_stack_with_a_template_on_disk(tmp_path: Path, assembly: Assembly) -> None:
    template = assembly.template("Dev/Foundation")
    gone = next(name for name, r in template["Resources"].items() if r["Type"] == "AWS::Budgets::Budget")
    del template["Resources"][gone]
    before = tmp_path / "before.json"
    before.write_text(json.dumps(template))
    done = cdk(
        tmp_path,
        "diff",
        "Dev/Foundation",
        "-e",
        "-c",
        "environment=dev",
        "--output",
        str(tmp_path / "out"),
        "--template",
        str(before),
    )
    assert done.returncode == 0, done.stderr
    assert f"[+] AWS::Budgets::Budget Foundation/Budget/Budget {gone}" in done.stdout + done.stderr
