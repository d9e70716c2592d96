"""Tune: many training jobs in place of one; the best model goes on."""

from __future__ import annotations

from typing import Any

from sagemaker.core.parameter import CategoricalParameter
from sagemaker.core.shapes import (
    HyperParameterTuningJobWarmStartConfig,
    ParentHyperParameterTuningJob,
)
from sagemaker.mlops.workflow.steps import TuningStep
from sagemaker.train.tuner import HyperparameterTuner

from .common import Prepared, Run, Trained
from .train import channels, trainer


class Tuner(HyperparameterTuner):  # type: ignore[misc]
    """The SDK's tuner, and what it leaves out of the request: isolation, the key of the volume, formats.

    Which hyperparameters are searched and how is one value, ``tuning``: ``HyperParameterTuningJobConfig``
    as the API has it.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        super().__init__(
            trainer(run),
            # Replaced as a whole, see _start_tuning_job.
            objective_metric_name="replaced",
            hyperparameter_ranges={"replaced": CategoricalParameter(["replaced"])},
            max_jobs=1,
            warm_start_config=_warm_start(run),
        )

    def _start_tuning_job(self, inputs: Any) -> None:
        super()._start_tuning_job(inputs)
        values = self._run.values
        request = self.sagemaker_session.context.args
        request["HyperParameterTuningJobConfig"] = values["tuning_config"]
        definition = request["TrainingJobDefinition"]
        # A tracked training reaches its tracking server, see train.trainer.
        definition["EnableNetworkIsolation"] = not values["tracked"]
        definition["EnableInterContainerTrafficEncryption"] = True
        definition["ResourceConfig"]["VolumeKmsKeyId"] = values["training_volume_key"]
        if values["algorithm"] != "built_in":
            # SageMaker refuses metric definitions for its own algorithms, which bring theirs.
            definition["AlgorithmSpecification"]["MetricDefinitions"] = values["tuning_metrics"]


def _warm_start(run: Run) -> HyperParameterTuningJobWarmStartConfig | None:
    if run.values["tuning"] != "warm":
        return None
    return HyperParameterTuningJobWarmStartConfig(
        warm_start_type=run.values["warm_start_type"],
        parent_hyper_parameter_tuning_jobs=[
            ParentHyperParameterTuningJob(hyper_parameter_tuning_job_name=run.parent_tuning_job)
        ],
    )


def tune(run: Run, prepared: Prepared) -> Trained:
    """Define the step."""
    step = TuningStep(
        name="Tune",
        display_name="Search hyperparameters and train a model with each",
        step_args=Tuner(run).tune(inputs=channels(run, prepared), wait=False),
        # Never from the cache: where the best model lies is told by this execution's own folder.
        retry_policies=run.retries,
    )
    best = step.properties.TrainingJobSummaries[0].TrainingJobName
    return Trained(steps=(step,), model_uri=run.uri("train", best, "output/model.tar.gz"))
