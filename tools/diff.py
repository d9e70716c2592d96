"""Compare an environment with what is deployed; without credentials, with the last ``make synth``.

``make diff ENV=dev`` calls it: the environment is synthesised aside, and ``python -m delivery diff`` says
what a deploy would do: what is replaced or lost, who may do more, what opens, what it costs.
``make diff ENV=dev RAW=1`` shows the templates' lines as well, by ``cdk diff``.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from delivery.__main__ import SAYS_NO  # noqa: E402 - a script of its own: the project is on its path now
from delivery.__main__ import main as delivery  # noqa: E402
from delivery.assemblies import AssemblyError, Stack, read_assembly, write_assembly  # noqa: E402

CDK = str(ROOT / "tools" / "cdk")
SYNTHESISED = ROOT / "cdk.out"


def has_credentials() -> bool:
    """Whether the AWS SDK finds credentials anywhere it looks: environment, profile, container, machine."""
    import botocore.session

    return botocore.session.Session().get_credentials() is not None


def synthesised() -> tuple[Stack, ...]:
    """The stacks of the last ``make synth``; none where it was not run."""
    try:
        return read_assembly(SYNTHESISED)
    except AssemblyError:
        return ()


def raw(after: Path, stage: str, before: Path | None) -> None:
    """Show the lines of the templates of ``stage`` that differ, by the CDK CLI."""
    if before is None:
        subprocess.run(
            [CDK, "diff", f"{stage}/*", "--no-notices", "--app", str(after)], cwd=ROOT, check=False
        )
        return
    names = {stack.id: number for number, stack in enumerate(read_assembly(before))}
    for stack in read_assembly(after):
        if stack.id in names:
            template = str(before / f"{names[stack.id]}.template.json")
            command = [CDK, "diff", stack.id, "--exclusively", "--template", template, "--app", str(after)]
            subprocess.run([*command, "--no-notices"], cwd=ROOT, check=False)


def main(arguments: Sequence[str]) -> int:
    """Compare an environment (``dev``) with what can be reached; exit status 2 when data would be lost."""
    environment = arguments[0]
    stage = environment[:1].upper() + environment[1:]
    online = has_credentials()
    there = [] if online else [stack for stack in synthesised() if stack.id.startswith(f"{stage}/")]
    if not online:
        known = f"the last 'make synth' ({SYNTHESISED.name})"
        against = known if there else "nothing: 'make synth' was not run"
        print(f"no AWS credentials: comparing {stage} with {against}", flush=True)
    with tempfile.TemporaryDirectory() as place:
        after, before = Path(place) / "after", Path(place) / "before"
        before.mkdir()
        write_assembly(there, before)
        synth = [CDK, "synth", "--quiet", "--no-notices", "--no-lookups", "--output", str(after)]
        code = subprocess.run([*synth, "-c", f"environment={environment}"], cwd=ROOT, check=False).returncode
        if code:
            return code
        if os.environ.get("RAW"):
            raw(after, stage, None if online else before)
        code = delivery(["diff", "deployed" if online else str(before), str(after), "--stage", stage])
    if code == SAYS_NO:
        print("look at it before you deploy")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
