"""A function of an image that is no Lambda image by itself."""

import os
from typing import Any


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Answer as the function's variables say, or fail."""
    if event.get("fail") or os.environ["MEAN"] == "bad":
        raise RuntimeError("told to fail")
    return {"statusCode": 200, "body": os.environ["MEAN"], "version": context.function_version}
