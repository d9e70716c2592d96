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
answer = np.zeros((1, 2), dtype=np.float32)
binding = session.io_binding()
binding.bind_ortvalue_input(session.get_inputs()[0].name, ort.OrtValue.ortvalue_from_numpy(vector))
binding.bind_ortvalue_output(session.get_outputs()[-1].name, ort.OrtValue.ortvalue_from_numpy(answer))


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Take the body, predict a fixed row, answer its score."""
    del scope
    message = await receive()
    while message["more_body"]:
        message = await receive()
    session.run_with_iobinding(binding)
    body = b'{"predictions":[{"score":%b}]}' % repr(answer.item(1)).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
