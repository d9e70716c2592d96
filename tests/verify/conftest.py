"""Fixtures of the cross-checks' tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from verify_support import Mini


@pytest.fixture
def mini(tmp_path: Path) -> Mini:
    """An assembly without resources."""
    return Mini(tmp_path / "assembly")
