"""The same model behind a Lambda function: the container's HTTP, spoken through Lambda's events.

The image's entry point is then ``python -m awslambdaric``, its command this module's ``handler``. An event is
that of a function URL or an HTTP API (payload format 2.0).
"""

from __future__ import annotations

import logging
import os
import sys

from mangum import Mangum

from ml_serving.app import Application
from ml_serving.fetch import model_folder
from ml_serving.server import load_predictor
from ml_serving.settings import Settings

__all__ = ["handler"]

logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(levelname)s %(name)s %(message)s")


def _application() -> Application:
    settings = Settings.of(os.environ)
    application = Application()
    # Lambda calls when this module is imported: no request ever meets a model that is being loaded.
    application.predictor = load_predictor(model_folder(settings.model_data_url), settings)
    return application


handler = Mangum(_application(), lifespan="off")
