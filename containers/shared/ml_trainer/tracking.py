"""Runs on an MLflow tracking server, SageMaker's managed one among them; off unless the job names one.

Tracking is a record, not a part of the training: a server that cannot be reached is said in the log, and the
training goes on without it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ml_runtime.job import say

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

#: The tracking server: the ARN of a managed one (package sagemaker-mlflow signs as the job's role) or a URI.
SERVER = "MLFLOW_TRACKING_URI"
#: MLflow REST API, runs/log-batch: at most 1,000 metrics a request.
BATCH = 1_000
#: Metrics wait this long, so that a round never waits for the server.
FLUSH_SECONDS = 10.0
#: MLflow's own default would retry for minutes: longer than a small training takes.
_PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}


class Tracking:
    """The run of one training job, or nothing where no server is named.

    Args:
        experiment: name of the experiment; made when it is not there.
        parameters: what the training was asked for.
        writes: false on all hosts of a job but one.
    """

    def __init__(self, experiment: str, parameters: Mapping[str, Any], *, writes: bool = True) -> None:
        self._client: MlflowClient | None = None
        self._run = ""
        self._waiting: list[Any] = []
        self._sent_at = time.monotonic()
        if not writes or not os.environ.get(SERVER):
            return
        for name, value in _PATIENCE.items():
            os.environ.setdefault(name, value)
        try:
            self._begin(experiment, parameters)
        except Exception as error:  # noqa: BLE001 - whatever the server or the network does, training goes on
            self._give_up(error)

    @property
    def active(self) -> bool:
        """Whether a server takes what is logged."""
        return self._client is not None

    def log(self, number: int, values: Mapping[str, float]) -> None:
        """Log the metrics of a round."""
        if self._client is None:
            return
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._waiting += [Metric(name, value, now, number) for name, value in values.items()]
        full = len(self._waiting) + len(values) > BATCH
        if full or time.monotonic() - self._sent_at >= FLUSH_SECONDS:
            self._send()

    def end(self, status: str, metadata: Mapping[str, Any] | None = None) -> None:
        """End the run: ``FINISHED``, ``FAILED`` or ``KILLED``; final metrics come from ``metadata``."""
        if self._client is None:
            return
        client = self._client
        try:
            if self._waiting:
                client.log_batch(self._run, metrics=self._waiting)
            for name, value in (metadata or {}).get("metrics", {}).items():
                client.log_metric(self._run, f"final-{name}", value)
            client.set_terminated(self._run, status)
        except Exception as error:  # noqa: BLE001 - as above
            self._give_up(error)

    def _begin(self, experiment: str, parameters: Mapping[str, Any]) -> None:
        from mlflow.entities import Param
        from mlflow.tracking import MlflowClient

        client = MlflowClient(os.environ[SERVER])
        found = client.get_experiment_by_name(experiment)
        number = client.create_experiment(experiment) if found is None else found.experiment_id
        job = os.environ.get("TRAINING_JOB_NAME")
        tags = {} if job is None else {"training_job": job}
        self._run = client.create_run(number, run_name=job, tags=tags).info.run_id
        client.log_batch(self._run, params=[Param(key, str(value)) for key, value in parameters.items()])
        self._client = client
        say(f"tracked as run {self._run} of the experiment {experiment}")

    def _send(self) -> None:
        if self._client is None or not self._waiting:
            return
        batch, self._waiting, self._sent_at = self._waiting, [], time.monotonic()
        try:
            self._client.log_batch(self._run, metrics=batch)
        except Exception as error:  # noqa: BLE001 - as above
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        self._client = None
        reason = " ".join(str(error).split())[:300]
        say(f"training goes on untracked: {type(error).__name__}: {reason}")
