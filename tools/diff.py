"""Compare an environment with what is deployed; without credentials, with the last ``make synth``.

``make diff ENV=dev`` calls it. With credentials it is ``cdk diff 'Dev/*'``. Without any, nothing can be asked
of an account: the environment is synthesised aside and each stack compared with its template in ``cdk.out``,
or with an empty one where there is none. One line says which.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CDK = str(ROOT / "tools" / "cdk")
SYNTHESISED = ROOT / "cdk.out"


def has_credentials() -> bool:
    """Whether the AWS SDK finds credentials anywhere it looks: environment, profile, container, machine."""
    import botocore.session

    return botocore.session.Session().get_credentials() is not None


def templates(assembly: Path) -> dict[str, Path]:
    """Template of each stack by its id, ``Dev/Foundation``; none where nothing was synthesised."""
    manifest = assembly / "manifest.json"
    if not manifest.exists():
        return {}
    found: dict[str, Path] = {}
    for key, artifact in json.loads(manifest.read_text(encoding="utf-8")).get("artifacts", {}).items():
        properties = artifact.get("properties", {})
        if artifact["type"] == "cdk:cloud-assembly":
            found |= templates(assembly / properties["directoryName"])
        elif artifact["type"] == "aws:cloudformation:stack":
            # A stack in a stage is called "Dev/Foundation (Dev-Foundation)".
            found[artifact.get("displayName", key).split(" ")[0]] = assembly / properties["templateFile"]
    return found


def compare(after: Path, stage: str, before: Mapping[str, Path]) -> int:
    """Show what changed in each stack of ``stage`` from ``before`` to the assembly ``after``."""
    empty = after / "empty.template.json"
    empty.write_text("{}")
    code = 0
    for stack in templates(after):
        if stack.startswith(f"{stage}/"):
            template = str(before.get(stack, empty))
            command = [CDK, "diff", stack, "--exclusively", "--template", template, "--app", str(after)]
            code = max(code, subprocess.run([*command, "--no-notices"], cwd=ROOT, check=False).returncode)
    return code


def main(environment: str) -> int:
    """Compare ``environment`` (``dev``) with what can be reached."""
    stage = environment[:1].upper() + environment[1:]
    if has_credentials():
        return subprocess.run([CDK, "diff", f"{stage}/*", "--no-notices"], cwd=ROOT, check=False).returncode
    before = templates(SYNTHESISED)
    known = any(stack.startswith(f"{stage}/") for stack in before)
    against = f"the last 'make synth' ({SYNTHESISED.name})" if known else "nothing: 'make synth' was not run"
    print(f"no AWS credentials: comparing {stage} with {against}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        after = Path(folder) / "assembly"
        synth = [CDK, "synth", "--quiet", "--no-notices", "--no-lookups", "--output", str(after)]
        code = subprocess.run([*synth, "-c", f"environment={environment}"], cwd=ROOT, check=False).returncode
        return code or compare(after, stage, before)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
