"""What a training job runs: an image, what it is told, and who may fetch it."""

from __future__ import annotations

from pathlib import Path

from aws_cdk import aws_ecr as ecr
from aws_cdk import aws_ecr_assets as ecr_assets
from aws_cdk import aws_iam as iam
from aws_cdk import aws_s3_assets as s3_assets
from ml_contract.load import ContractError, LoadedWorkload
from ml_contract.spec.training import Distribution

from constructs import Construct
from ml_lifecycle import code, instance_types
from ml_lifecycle.pseudo import PARTITION
from ml_lifecycle.training.framework_images import FrameworkImage, framework_image
from ml_lifecycle.training.job_role import grant_asset, grant_pull

__all__ = ["Algorithm"]

#: Objective of SageMaker's XGBoost by task, as our image chooses it.
_OBJECTIVES = {
    "binary": "binary:logistic",
    "multiclass": "multi:softprob",
    "regression": "reg:squarederror",
}


class Algorithm(Construct):
    """Define what trains the model of a workload: one of this project's images, SageMaker's, or its own.

    ``image_uri``, ``hyperparameters``, ``entrypoint`` and ``environment`` go into the request;
    ``grant_fetch`` lets the job's role read them. ``exports`` says that what the image leaves is no model
    folder yet, so that the pipeline needs an Export step.

    Args:
        scope: where it belongs.
        construct_id: its id.
        workload: whose ``training`` block decides.
        ours: this project's image, where it trains.

    Raises:
        ContractError: a version of SageMaker's image that there is not, with its line.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        workload: LoadedWorkload,
        ours: ecr_assets.DockerImageAsset | None,
    ) -> None:
        super().__init__(scope, construct_id)
        self._training = workload.workload.training
        self._task = workload.workload.label.task
        self._classes = workload.compiled.label.values
        self._repositories: list[ecr.IRepository] = []
        self._framework: FrameworkImage | None = None
        self.script: s3_assets.Asset | None = None
        self.entrypoint: list[str] | None = None
        self.exports = self._training.algorithm in ("built_in", "script")
        self.image_uri = self._image(workload, ours)

    def _image(self, workload: LoadedWorkload, ours: ecr_assets.DockerImageAsset | None) -> str:
        training, folder = self._training, Path(workload.path).parent
        if training.built_in is not None:
            return self._framework_uri(
                workload, "built_in", training.built_in.name, training.built_in.version
            )
        if training.script is not None:
            self.script = s3_assets.Asset(
                self, "Script", path=str(self._script_folder(folder, workload.name))
            )
            # The channel holds one file, under the last part of its key.
            file = str(self.script.s3_object_key).rpartition("/")[2]
            self.entrypoint = ["python3", f"/opt/ml/input/data/code/{file}"]
            return self._framework_uri(workload, "script", training.script.framework, training.script.version)
        if training.image is not None and training.image.folder is not None:
            ours = ecr_assets.DockerImageAsset(
                self,
                "Image",
                directory=str(folder / training.image.folder),
                platform=ecr_assets.Platform.LINUX_AMD64,
                outputs=["type=docker"],
            )
        elif training.image is not None and training.image.uri is not None:
            return self._of_others(training.image.uri)
        if ours is None:
            raise ValueError(f"ours must be the image of {training.algorithm}, got None")
        self._repositories.append(ours.repository)
        return str(ours.image_uri)

    def _of_others(self, uri: str) -> str:
        host, _, rest = uri.partition("/")
        account, _, _, region = host.split(".")[:4]
        name = rest.split("@")[0].split(":")[0]
        self._repositories.append(
            ecr.Repository.from_repository_attributes(
                self,
                "Repository",
                repository_arn=f"arn:{PARTITION}:ecr:{region}:{account}:repository/{name}",
                repository_name=name,
            )
        )
        return uri

    def _framework_uri(self, workload: LoadedWorkload, block: str, name: str, version: str) -> str:
        gpu = instance_types.accelerator(self._training.instance_type) == "gpu"
        try:
            self._framework = framework_image(name, version, gpu=gpu)
        except ValueError as error:
            problem = workload.problem(f"training.{block}.version", str(error))
            raise ContractError([problem]) from error
        return self._framework.uri(self)

    def _script_folder(self, folder: Path, name: str) -> Path:
        script, distribution = self._training.script, self._training.distribution
        assert script is not None
        return code.training_script(
            name,
            folder / "training",
            {
                "entry_point": script.entry_point,
                "torchrun": distribution is not None,
                "processes_per_instance": None if distribution is None else self._processes(distribution),
            },
        )

    def _processes(self, distribution: Distribution) -> int | None:
        """Processes on an instance; none means one per GPU, which torchrun counts when it starts."""
        given = distribution.processes_per_instance
        gpu = instance_types.accelerator(self._training.instance_type) == "gpu"
        return 1 if given is None and not gpu else given

    @property
    def hyperparameters(self) -> dict[str, str]:
        """Hyperparameters as SageMaker takes them: texts."""
        training = self._training
        given: dict[str, float | int | str] = dict(training.hyperparameters)
        if training.algorithm == "built_in":
            given.setdefault("objective", _OBJECTIVES[self._task])
            given["num_round"] = training.rounds
            if self._task == "multiclass":
                given["num_class"] = len(self._classes or ())
        else:
            given["rounds"] = training.rounds
        if training.early_stopping_rounds is not None:
            given["early_stopping_rounds"] = training.early_stopping_rounds
        for name in ("k_folds", "checkpoint_every_rounds", "checkpoint_every_minutes"):
            value = getattr(training, name)
            if value is not None:
                given[name] = value
        if training.distribution is not None and training.algorithm != "script":
            given["distribution"] = training.distribution.kind
            if training.distribution.processes_per_instance is not None:
                given["processes_per_instance"] = training.distribution.processes_per_instance
        return {name: str(value) for name, value in given.items()}

    @property
    def environment(self) -> dict[str, str] | None:
        """Variables of the job: libfabric takes EFA where several instances that have it train together.

        Source: SageMaker developer guide, "Run training with EFA".
        """
        if self._training.instance_count == 1 or not instance_types.has_efa(self._training.instance_type):
            return None
        return {"FI_PROVIDER": "efa", "FI_EFA_USE_DEVICE_RDMA": "1"}

    def grant_fetch(self, role: iam.IRole) -> None:
        """Grant pulling the image and reading the script."""
        for repository in self._repositories:
            grant_pull(repository, role)
        if self._framework is not None:
            self._framework.grant_pull(self, role)
        if self.script is not None:
            grant_asset(self.script, role)
