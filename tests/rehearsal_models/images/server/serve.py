"""A model server under SageMaker's container contract: adds the model's mean to the number in the body.

On ECS the mean is the variable MEAN, and there are no folders.
With SAGEMAKER_MULTI_MODEL it keeps at most two models, and answers 507 when a third one comes.
"""

import json
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

BASE = Path(os.environ.get("SAGEMAKER_BASE_DIR", "/none"))
MULTI = os.environ.get("SAGEMAKER_MULTI_MODEL") == "true"
ROOM = 2


def means_of(folder: Path) -> float:
    """The mean that a model folder holds."""
    return float(json.loads((folder / "model.json").read_text())["mean"])


MODELS: dict[str, float] = {}
if "MEAN" in os.environ:
    MODELS[""] = float(os.environ["MEAN"])
elif not MULTI:
    MODELS[""] = means_of(BASE / "model")


class Handler(BaseHTTPRequestHandler):
    """The paths of the contract."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Healthy unless told otherwise."""
        self.answer(503 if os.environ.get("SICK") else 200, b"")

    def do_DELETE(self) -> None:
        """Forget a model."""
        del MODELS[self.path.split("/")[2]]
        self.answer(200, b"")

    def do_POST(self) -> None:
        """Answer, or fail as the model or the body asks."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/models":
            self.load(json.loads(body))
            return
        mean = MODELS[self.path.split("/")[2] if MULTI else ""]
        if mean < 0 or os.environ.get("FAILS") == "yes":
            self.answer(500, b"the model is broken")
        elif body.startswith(b"bad"):
            self.answer(400, b"not a number")
        else:
            if body.startswith(b"slow"):
                time.sleep(0.7)
            lines = [line for line in body.decode().splitlines() if line] or [""]
            numbers = [float(line.split(",")[0]) if line[:1].isdigit() else 0.0 for line in lines]
            if self.headers.get("Accept") == "text/csv":
                self.answer(200, "".join(f"{number + mean}\n" for number in numbers).encode(), "text/csv")
            else:
                self.answer(200, json.dumps({"sum": sum(numbers) + mean}).encode())

    def load(self, asked: dict[str, str]) -> None:
        """Load a model of a multi-model container."""
        if len(MODELS) >= ROOM:
            self.answer(507, b"no room")
        else:
            MODELS[asked["model_name"]] = means_of(Path(asked["url"]))
            self.answer(200, b"")

    def answer(self, status: int, body: bytes, kind: str = "application/json") -> None:
        """Send an answer."""
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Keep the log quiet."""


assert sys.argv[1] == "serve"
PLACE = os.environ.get("SERVING_HOST", "127.0.0.1"), int(os.environ.get("SAGEMAKER_BIND_TO_PORT", "8080"))
ThreadingHTTPServer(PLACE, Handler).serve_forever()
