"""The same model behind a Lambda function: the container's HTTP, spoken through Lambda's events.

The image's entry point is then ``python -m awslambdaric``, its command this module's ``handler``. An event is
that of a function URL or an HTTP API (payload format 2.0).
"""

from __future__ import annotations

import functools
import logging
import os
import sys
from typing import Any

from mangum import Mangum

from ml_serving.app import Application
from ml_serving.fetch import model_folder
from ml_serving.server import load_predictor
from ml_serving.settings import Settings

__all__ = ["handler"]

logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(levelname)s %(name)s %(message)s")


class ServerError(Exception):
    """A request that could not be answered for reasons of ours."""


@functools.cache
def adapter() -> Mangum:
    """Return the application with its model, ready for Lambda's events."""
    settings = Settings.of(os.environ)
    application = Application()
    application.predictor = load_predictor(model_folder(settings.model_data_url), settings)
    return Mangum(application, lifespan="off")


def handler(event: Any, context: Any) -> Any:
    """Answer one event.

    Raises:
        ServerError: the answer is a 5xx. Only what raises is an error to Lambda: its metric, on which an
            alarm rolls a deployment back, would not count an answer.
    """
    answer = adapter()(event, context)
    if answer["statusCode"] >= 500:
        raise ServerError(f"{answer['statusCode']}: {answer['body']}")
    return answer


if "AWS_LAMBDA_FUNCTION_NAME" in os.environ:
    # While Lambda initialises: no request ever meets a model that is being loaded.
    adapter()
