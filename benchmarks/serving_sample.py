"""A container as AWS's samples build it: Flask behind gunicorn, pandas reads the CSV, XGBoost predicts.

It is given what those samples expect, a row of ready numbers: it neither checks a record nor makes a feature.
"""

from __future__ import annotations

import io
import os
import pathlib

import flask
import pandas as pd
import xgboost as xgb

app = flask.Flask(__name__)
booster = xgb.Booster(model_file=pathlib.Path(os.environ["BENCH_MODEL"], "model.ubj"))


@app.get("/ping")
def ping() -> flask.Response:
    """Say that the model is there."""
    return flask.Response("\n", 200, mimetype="application/json")


@app.post("/invocations")
def invocations() -> flask.Response:
    """Score the rows of a CSV body."""
    if flask.request.content_type != "text/csv":
        return flask.Response("only CSV is taken", 415, mimetype="text/plain")
    rows = pd.read_csv(io.StringIO(flask.request.get_data(as_text=True)), header=None)
    scores = booster.predict(xgb.DMatrix(rows.to_numpy()))
    out = io.StringIO()
    pd.DataFrame({"results": scores}).to_csv(out, header=False, index=False)
    return flask.Response(out.getvalue(), 200, mimetype="text/csv")
