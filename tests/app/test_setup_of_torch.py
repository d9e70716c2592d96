"""PyTorch is installed beside the lock: the build without CUDA, quickly given up where there is none."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tools import setup

ROOT = Path(__file__).resolve().parents[2]
IMAGE = ROOT / "containers" / "training_torch"


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What pip is called with, in a virtual environment without PyTorch; every call fails."""
    found: list[list[str]] = []

    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        found.append(list(command))
        return subprocess.CompletedProcess(command, 1, "", "ERROR: No matching distribution found")

    (tmp_path / "lib/python3.11/site-packages").mkdir(parents=True)
    monkeypatch.setattr(setup, "VENV", tmp_path)
    monkeypatch.setattr(setup.subprocess, "run", run)
    return found


def there(folder: Path, build: str = "") -> None:
    place = folder / f"lib/python3.11/site-packages/torch-{setup.TORCH}{build}.dist-info"
    place.mkdir(parents=True)
    (place / "RECORD").touch()


def test_should_train_here_with_the_version_that_the_image_has() -> None:
    pinned = re.search(r"^torch==(.+)$", (IMAGE / "requirements.txt").read_text(), flags=re.MULTILINE)
    assert pinned is not None
    assert pinned[1] == setup.TORCH


def test_should_never_ask_for_a_build_with_cuda_on_linux(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    assert setup.torch_wanted() == f"torch=={setup.TORCH}+cpu"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert setup.torch_wanted() == f"torch=={setup.TORCH}"


def test_should_look_at_hand_then_at_pytorchs_index_then_where_pip_is_told_to(
    calls: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    setup.install_torch()
    assert [("--no-index" in call, setup.TORCH_INDEX in call) for call in calls] == [
        (True, False),
        (False, True),
        (False, False),
    ]
    for call in calls:
        assert "--no-deps" in call
        assert call[-1] == setup.torch_wanted()
    # Offline, a try ends after seconds.
    assert all(call[call.index("--timeout") + 1] == "10" for call in calls[1:])
    said = capsys.readouterr().out
    assert "No matching distribution found" in said
    assert "cannot be rehearsed, all else can" in said


def test_should_not_try_again_at_once_but_an_hour_later(calls: list[list[str]]) -> None:
    setup.install_torch()
    setup.install_torch()
    assert len(calls) == 3
    tried = setup.VENV / ".torch.tried"
    os.utime(tried, (0, 0))
    setup.install_torch()
    assert len(calls) == 6


@pytest.mark.parametrize("build", ["", "+cpu", "+cu130"])
def test_should_leave_a_build_of_that_version_alone(calls: list[list[str]], build: str) -> None:
    there(setup.VENV, build)
    setup.install_torch()
    assert calls == []


def test_should_build_the_image_without_cuda_unless_asked() -> None:
    text = (IMAGE / "Dockerfile").read_text()
    assert "ARG ACCELERATOR=cpu\n" in text
    assert f'cpu) index="--extra-index-url {setup.TORCH_INDEX}"' in text
    assert 'cuda) index=""' in text
