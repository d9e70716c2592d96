"""SageMaker's own images, which nobody can pull here: what stands in for each.

An image of a framework is this Python with the framework in it; a job says what it starts. SageMaker's own
XGBoost is a program of AWS around the open one; ``xgboost_algorithm`` does with the same library what
its documentation says. A rehearsal with one of them shows our side of it: what the job is given, and what
becomes of its artifact.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

__all__ = ["stand_in"]

_HERE = Path(__file__).resolve().parent
#: Repository -> the program that the image starts by itself, none for one that is told.
_PROGRAMS: dict[str, str | None] = {
    "sagemaker-xgboost": "xgboost_algorithm.py",
    "pytorch-training": None,
}


def stand_in(image_uri: str) -> tuple[Path, list[str]] | None:
    """Return folder and command of what stands in for an image; None for one that nothing stands in for."""
    found = re.fullmatch(r"[0-9]{12}\.dkr\.ecr\.[a-z0-9-]+\.[a-z.]+/([a-z0-9-]+):[\w.-]+", image_uri)
    if found is None or found[1] not in _PROGRAMS:
        return None
    program = _PROGRAMS[found[1]]
    return _HERE, [] if program is None else [sys.executable, str(_HERE / program)]
