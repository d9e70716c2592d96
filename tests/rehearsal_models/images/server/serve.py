"""A model server under SageMaker's container contract: adds the model's mean to the number in the body."""

import json
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

BASE = Path(os.environ["SAGEMAKER_BASE_DIR"])
MODEL = json.loads((BASE / "model/model.json").read_text())
FAILS = os.environ.get("FAILS") == "yes" or MODEL["mean"] < 0


class Handler(BaseHTTPRequestHandler):
    """The two paths of the contract."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Healthy unless told otherwise."""
        self.answer(503 if os.environ.get("SICK") else 200, b"")

    def do_POST(self) -> None:
        """Answer, or fail as the model or the body asks."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if FAILS:
            self.answer(500, b"the model is broken")
        elif body.startswith(b"bad"):
            self.answer(400, b"not a number")
        else:
            mean = MODEL["mean"]
            number = float(body.split(b",")[0]) if body[:1].isdigit() else 0.0
            self.answer(200, json.dumps({"sum": number + mean}).encode())

    def answer(self, status: int, body: bytes) -> None:
        """Send an answer."""
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Keep the log quiet."""


assert sys.argv[1] == "serve"
ThreadingHTTPServer(("127.0.0.1", int(os.environ["SAGEMAKER_BIND_TO_PORT"])), Handler).serve_forever()
