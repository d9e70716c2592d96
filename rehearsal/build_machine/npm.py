"""Stands in for ``npm install -g`` in a build: what is asked for is here already, or is refused.

The CDK CLI is the project's own, pinned one; another version fails the build, as it would behave otherwise.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path


def main(arguments: list[str]) -> None:
    """Answer ``npm install -g aws-cdk@<version>`` and ``npm install -g cdk-assets@<version>``."""
    if arguments[:2] != ["install", "-g"] or len(arguments) != 3:
        raise SystemExit(f"npm {' '.join(arguments)}: the rehearsal answers npm install -g <package> only")
    name, _, version = arguments[2].rpartition("@")
    if name == "aws-cdk":
        cli = Path(os.environ["REHEARSAL_CDK"]).parent.parent / "package.json"
        here = json.loads(cli.read_text(encoding="utf-8"))["version"]
        if version != here:
            raise SystemExit(f"npm: the rehearsal has aws-cdk {here}, the build asks for {version}")
        print(f"aws-cdk {here} is installed")
    elif name == "cdk-assets":
        print(f"cdk-assets {version}: the rehearsal's own program publishes in its place")
    else:
        raise SystemExit(f"npm: the rehearsal has no {arguments[2]}; it has aws-cdk and cdk-assets")


if __name__ == "__main__":
    main(sys.argv[1:])
