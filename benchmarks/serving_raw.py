"""The floor: what uvicorn and ONNX Runtime cost by themselves. No record is read, no feature is made."""

from __future__ import annotations

import os
import pathlib
from typing import Any

import numpy as np
import onnxruntime as ort

options = ort.SessionOptions()
options.intra_op_num_threads = 1
options.inter_op_num_threads = 1
session = ort.InferenceSession(
    pathlib.Path(os.environ["BENCH_MODEL"], "model.onnx").read_bytes(),
    options,
    providers=["CPUExecutionProvider"],
)
vector = np.load(os.environ["BENCH_VECTOR"])
feed = {session.get_inputs()[0].name: vector}
outputs = [session.get_outputs()[-1].name]


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Take the body, predict a fixed row, answer its score."""
    del scope
    message = await receive()
    while message["more_body"]:
        message = await receive()
    score = float(session.run(outputs, feed)[0][0, -1])
    body = b'{"predictions":[{"score":%b}]}' % repr(score).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
