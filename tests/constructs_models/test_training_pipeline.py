"""The training pipeline: its steps, its options, its roles, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import aws_cdk as cdk
import pytest
from aws_cdk import aws_iam as iam
from cdk_support import Template, only, resources, statements, synthesise_stacks
from ml_contract.load import ContractError, LoadedWorkload
from ml_lifecycle.training import TrainingPipeline, definition, service_model
from model_support import NAME, Around, granted, parcels, pipeline_definition, step

SPOT = """
training:
  # An image of somebody else, whose hyperparameters nobody here knows.
  algorithm: image
  image: {uri: 123456789012.dkr.ecr.us-east-1.amazonaws.com/trainer:1}
  spot: true
  cache_hours: 12
  max_runtime_minutes: 30000
  early_stopping_rounds: null
  instance_type: ml.g4dn.xlarge
  input_mode: FastFile
  hyperparameters: {eta: 0.05, tree_method: "${hist}"}
"""

JUDGED = """
evaluation:
  bias: {facets: {carrier: {disadvantaged: [south]}}, favourable_above: 10}
  explain: {shap_rows: 50}
  champion: {margin: 0.01}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("workloads")


def pipeline(stack: cdk.Stack, workload: LoadedWorkload, **options: Any) -> TrainingPipeline:
    around = Around(stack)
    if options.pop("vpc", True):
        options["network"] = around.network()
    return TrainingPipeline(
        stack,
        "Training",
        workload=workload,
        pipeline_name=NAME,
        model_package_group_name=NAME,
        features=around.lake.features,
        artifacts=around.lake.artifacts,
        volume_key=around.data_key,
        **options,
    )


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> dict[str, Template]:
    def grants(stack: cdk.Stack) -> None:
        built = pipeline(stack, parcels(folder))
        built.grant_start(iam.Role(stack, "Starter", assumed_by=iam.ServicePrincipal("lambda.amazonaws.com")))

    return synthesise_stacks(
        tmp_path_factory.mktemp("training"),
        {
            "Default": grants,
            "Judged": lambda stack: pipeline(stack, parcels(folder, JUDGED)),
            "Spot": lambda stack: pipeline(stack, parcels(folder, SPOT), features_uri="s3://elsewhere/f/"),
        },
    )


@pytest.fixture(scope="module")
def default(templates: dict[str, Template]) -> dict[str, Any]:
    return pipeline_definition(templates["Default"])


def test_should_define_the_steps_and_parameters_that_others_rely_on(default: dict[str, Any]) -> None:
    assert [(each["Name"], each["Type"]) for each in default["Steps"]] == [
        ("Prepare", "Processing"),
        ("Train", "Training"),
        ("Evaluate", "Processing"),
        ("Accept", "Condition"),
    ]
    parameters = {each["Name"]: each["DefaultValue"] for each in default["Parameters"]}
    assert parameters == {
        "FeaturesUri": "${FeaturesUri}",
        "ModelApprovalStatus": "PendingManualApproval",
        "Reason": "manual",
    }
    prepare = step(default, "Prepare")["Arguments"]
    assert prepare["AppSpecification"]["ContainerArguments"] == ["prepare"]
    assert [each["InputName"] for each in prepare["ProcessingInputs"]] == ["contract", "features"]
    assert [each["OutputName"] for each in prepare["ProcessingOutputConfig"]["Outputs"]] == [
        "train",
        "validation",
        "test",
        "transform",
        "baseline",
        "lineage",
    ]
    train = step(default, "Train")["Arguments"]
    assert [each["ChannelName"] for each in train["InputDataConfig"]] == [
        "train",
        "validation",
        "transform",
        "contract",
    ]
    evaluate = step(default, "Evaluate")
    assert evaluate["Arguments"]["AppSpecification"]["ContainerArguments"] == ["evaluate"]
    assert [each["InputName"] for each in evaluate["Arguments"]["ProcessingInputs"]] == [
        "contract",
        "model",
        "test",
        "validation",
    ]
    assert {each["PropertyFileName"]: each["FilePath"] for each in evaluate["PropertyFiles"]} == {
        "Evaluation": "evaluation.json",
        "Registration": "register.json",
    }


def test_should_judge_by_the_acceptance_of_the_workload(default: dict[str, Any]) -> None:
    condition, verdict = step(default, "Accept")["Arguments"]["Conditions"]
    assert condition["Type"] == "LessThanOrEqualTo"
    assert condition["LeftValue"]["Std:JsonGet"]["Path"] == "metrics.rmse.value"
    assert condition["RightValue"] == 30
    assert verdict["Type"] == "Equals"
    assert verdict["LeftValue"]["Std:JsonGet"]["Path"] == "acceptance.verdict"
    assert verdict["RightValue"] == "accepted"
    message = step(default, "Reject")["Arguments"]["ErrorMessage"]
    assert message["Std:JsonGet"]["Path"] == "acceptance.why"


def test_should_judge_beside_the_approved_model_when_the_workload_says_so(
    templates: dict[str, Template],
) -> None:
    judged = pipeline_definition(templates["Judged"])
    parameters = {each["Name"]: each["DefaultValue"] for each in judged["Parameters"]}
    # Without an approved model both inputs hold the contract, which is always there.
    assert parameters["ChampionModel"] == parameters["ChampionTest"] == "${ContractUri}"
    inputs = {
        each["InputName"]: each["S3Input"]["S3Uri"]
        for each in step(judged, "Evaluate")["Arguments"]["ProcessingInputs"]
    }
    assert inputs["champion"] == {"Get": "Parameters.ChampionModel"}
    assert inputs["champion_test"] == {"Get": "Parameters.ChampionTest"}
    register = step(judged, "Register")["Arguments"]
    for report in ("Report", "PreTrainingReport", "PostTrainingReport"):
        assert register["ModelMetrics"]["Bias"][report]["S3Uri"]["Std:Join"]["Values"][1] == "bias.json"
    explained = register["ModelMetrics"]["Explainability"]["Report"]["S3Uri"]["Std:Join"]["Values"]
    assert explained[1] == "explainability.json"
    baselines = register["DriftCheckBaselines"]
    assert set(baselines["Bias"]) == {"PreTrainingConstraints", "PostTrainingConstraints"}
    assert set(baselines["Explainability"]) == {"Constraints"}


def test_should_register_with_metrics_and_baseline(default: dict[str, Any]) -> None:
    register = step(default, "Register")["Arguments"]
    assert register["ModelPackageGroupName"] == NAME
    assert register["ModelApprovalStatus"] == {"Get": "Parameters.ModelApprovalStatus"}
    [container] = register["InferenceSpecification"]["Containers"]
    assert container["Image"] == "${ServingImage}"
    threshold = container["Environment"]["DECISION_THRESHOLD"]["Std:JsonGet"]
    assert (threshold["Path"], threshold["PropertyFile"]["Get"].rsplit(".")[-1]) == (
        "decision_threshold",
        "Registration",
    )
    card = register["ModelCard"]
    assert card["ModelCardStatus"] == "PendingReview"
    assert card["ModelCardContent"]["Std:JsonGet"]["Path"] == "model_card"
    assert "Report" not in register["ModelMetrics"]["Bias"]
    quality = register["ModelMetrics"]["ModelQuality"]["Statistics"]["S3Uri"]["Std:Join"]["Values"]
    assert quality[1] == "evaluation.json"
    baseline = register["DriftCheckBaselines"]["ModelDataQuality"]
    assert [baseline[kind]["S3Uri"]["Std:Join"]["Values"][1] for kind in ("Statistics", "Constraints")] == [
        "statistics.json",
        "constraints.json",
    ]


def test_should_take_hyperparameters_as_texts_with_the_rounds(default: dict[str, Any]) -> None:
    assert step(default, "Train")["Arguments"]["HyperParameters"] == {
        "rounds": "200",
        "early_stopping_rounds": "20",
    }


def test_should_isolate_every_job_and_place_it_in_the_vpc(default: dict[str, Any]) -> None:
    place = {"SecurityGroupIds": ["${SecurityGroups0}"], "Subnets": ["${Subnets0}"]}
    for name in ("Prepare", "Evaluate"):
        assert step(default, name)["Arguments"]["NetworkConfig"] == {
            "EnableInterContainerTrafficEncryption": True,
            "EnableNetworkIsolation": True,
            "VpcConfig": place,
        }
    train = step(default, "Train")["Arguments"]
    assert train["EnableNetworkIsolation"] is True
    assert train["EnableInterContainerTrafficEncryption"] is True
    assert train["VpcConfig"] == place


def test_should_encrypt_volumes_and_outputs(default: dict[str, Any]) -> None:
    train = step(default, "Train")["Arguments"]
    assert train["ResourceConfig"]["VolumeKmsKeyId"] == "${TrainingVolumeKey}"
    assert train["OutputDataConfig"]["KmsKeyId"] == "${OutputKey}"
    prepare = step(default, "Prepare")["Arguments"]
    assert prepare["ProcessingOutputConfig"]["KmsKeyId"] == "${OutputKey}"
    cluster = prepare["ProcessingResources"]["ClusterConfig"]
    assert cluster["VolumeKmsKeyId"] == "${ProcessingVolumeKey}"


def test_should_write_every_execution_into_a_folder_of_its_own(default: dict[str, Any]) -> None:
    outputs = step(default, "Prepare")["Arguments"]["ProcessingOutputConfig"]["Outputs"]
    for output in outputs:
        joined = output["S3Output"]["S3Uri"]["Std:Join"]
        assert joined["Values"][:2] == ["${TrainingUri}", {"Get": "Execution.PipelineExecutionId"}]


def test_should_try_again_what_aws_breaks_and_nothing_else(default: dict[str, Any]) -> None:
    for name in ("Prepare", "Train", "Evaluate"):
        kinds = {kind for policy in step(default, name)["RetryPolicies"] for kind in policy["ExceptionType"]}
        assert kinds == {
            "SageMaker.JOB_INTERNAL_ERROR",
            "SageMaker.CAPACITY_ERROR",
            "Step.SERVICE_FAULT",
            "Step.THROTTLING",
        }


def test_should_neither_cache_nor_use_spot_unless_asked(default: dict[str, Any]) -> None:
    train = step(default, "Train")
    assert "CacheConfig" not in train
    assert not train["Arguments"].get("EnableManagedSpotTraining")
    assert "CheckpointConfig" not in train["Arguments"]


def test_should_read_its_channels_in_the_mode_of_the_workload(
    default: dict[str, Any], templates: dict[str, Template]
) -> None:
    for found, mode in ((default, "File"), (pipeline_definition(templates["Spot"]), "FastFile")):
        arguments = step(found, "Train")["Arguments"]
        assert arguments["AlgorithmSpecification"]["TrainingInputMode"] == mode
        channels = {c["ChannelName"]: c["InputMode"] for c in arguments["InputDataConfig"]}
        assert channels == dict.fromkeys(("train", "validation", "transform", "contract"), mode)
        # Processing jobs know File and Pipe only.
        inputs = step(found, "Prepare")["Arguments"]["ProcessingInputs"]
        assert {i["S3Input"]["S3InputMode"] for i in inputs} == {"File"}


def test_should_use_spot_with_checkpoints_cache_and_long_runs_when_asked(
    templates: dict[str, Template],
) -> None:
    found = pipeline_definition(templates["Spot"])
    train = step(found, "Train")
    arguments = train["Arguments"]
    assert train["CacheConfig"] == {"Enabled": True, "ExpireAfter": "PT12H"}
    assert arguments["EnableManagedSpotTraining"] is True
    assert arguments["CheckpointConfig"]["S3Uri"]["Std:Join"]["Values"][-1] == "checkpoints"
    assert arguments["StoppingCondition"] == {
        "MaxRuntimeInSeconds": 1_800_000,
        "MaxWaitTimeInSeconds": 3_600_000,
    }
    # A processing job ends after nine days, whatever training may take.
    assert step(found, "Prepare")["Arguments"]["StoppingCondition"]["MaxRuntimeInSeconds"] == 777_600
    # An instance with disks of its own takes no key; the other one does.
    assert "VolumeKmsKeyId" not in arguments["ResourceConfig"]
    cluster = step(found, "Prepare")["Arguments"]["ProcessingResources"]["ClusterConfig"]
    assert "VolumeKmsKeyId" in cluster
    # Fn::Sub reads ${!hist} as the text ${hist}.
    assert arguments["HyperParameters"] == {"eta": "0.05", "tree_method": "${!hist}", "rounds": "200"}
    assert found["Parameters"][0]["DefaultValue"] == "s3://elsewhere/f/"


def test_should_define_every_variable_that_the_definition_names(templates: dict[str, Template]) -> None:
    import re

    body = only(templates["Default"], "AWS::SageMaker::Pipeline")["PipelineDefinition"]
    text, variables = body["PipelineDefinitionBody"]["Fn::Sub"]
    assert set(re.findall(r"\$\{(\w+)\}", text)) == set(variables)
    assert "stand-in" not in text


def test_should_wait_for_the_roles_policies(templates: dict[str, Template]) -> None:
    [resource] = resources(templates["Default"], "AWS::SageMaker::Pipeline").values()
    policies = [name for name in resource["DependsOn"] if "DefaultPolicy" in name]
    assert len(policies) == 3


def test_should_let_the_pipeline_start_its_own_jobs_and_pass_its_own_roles(
    templates: dict[str, Template],
) -> None:
    found = statements(templates["Default"], "TrainingRole")
    by_action = {
        action: resource for action, resource in granted(found) if action.startswith("sagemaker:Create")
    }
    prefix = "arn:<AWS::Partition>:sagemaker:<AWS::Region>:<AWS::AccountId>"
    assert by_action["sagemaker:CreateProcessingJob"] == f"{prefix}:processing-job/pipelines-*"
    assert by_action["sagemaker:CreateTrainingJob"] == f"{prefix}:training-job/pipelines-*"
    packages = {r for action, r in granted(found) if action == "sagemaker:CreateModelPackage"}
    assert packages == {f"{prefix}:model-package-group/{NAME}", f"{prefix}:model-package/{NAME}/*"}
    [passing] = [s for s in found if s["Action"] == "iam:PassRole"]
    assert passing["Condition"] == {"StringEquals": {"iam:PassedToService": "sagemaker.amazonaws.com"}}
    assert len(passing["Resource"]) == 2


def test_should_give_training_no_way_to_the_features(templates: dict[str, Template]) -> None:
    training = granted(statements(templates["Default"], "TrainingTrainingRole"))
    processing = granted(statements(templates["Default"], "TrainingProcessingRole"))
    assert not any("LakeFeatures" in resource for _, resource in training)
    reads = {resource for action, resource in processing if action == "s3:GetObject"}
    assert any(r.startswith("<LakeFeatures") and r.endswith("/parcel-delay/data/*") for r in reads)
    writes = {resource for action, resource in training | processing if action == "s3:PutObject"}
    assert all(r.startswith("<LakeArtifacts") and r.endswith("/parcel-delay/training/*") for r in writes)


def test_should_let_each_job_use_the_key_that_it_is_told_for_its_output(
    templates: dict[str, Template],
) -> None:
    for role in ("TrainingTrainingRole", "TrainingProcessingRole"):
        keys = {r for a, r in granted(statements(templates["Default"], role)) if a == "kms:Encrypt"}
        assert len(keys) == 1
        assert all(key.startswith("<LakeKey") for key in keys)


def test_should_grant_no_wildcard_action(templates: dict[str, Template]) -> None:
    for role in ("TrainingRole", "TrainingTrainingRole", "TrainingProcessingRole"):
        assert not [action for action, _ in granted(statements(templates["Default"], role)) if "*" in action]


def test_should_grant_starting_this_pipeline_only(templates: dict[str, Template]) -> None:
    arn = f"arn:<AWS::Partition>:sagemaker:<AWS::Region>:<AWS::AccountId>:pipeline/{NAME}"
    assert granted(statements(templates["Default"], "Starter")) == {
        ("sagemaker:ListPipelineExecutions", arn),
        ("sagemaker:StartPipelineExecution", arn),
    }


def test_should_refuse_an_instance_type_with_its_line(folder: Path) -> None:
    workload = parcels(folder, "training: {instance_type: ml.inf2.xlarge}\n")
    with pytest.raises(
        ContractError, match=r"workload\.yaml:\d+: training\.instance_type: 'ml\.inf2\.xlarge'"
    ):
        pipeline(cdk.Stack(), workload)


def test_should_refuse_a_request_that_sagemaker_would_refuse(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rendered = definition.render(definition.PROGRAM, definition.shape(higher_is_better=False))
    step(rendered, "Prepare")["Arguments"]["AppSpecification"]["ImageUrl"] = "x"
    monkeypatch.setattr(definition, "render", lambda *_: rendered)
    with pytest.raises(
        ValueError, match=r"Prepare: CreateProcessingJob\.AppSpecification\.ImageUrl: is no parameter"
    ):
        pipeline(cdk.Stack(), parcels(folder))


def test_should_refuse_too_many_hyperparameters(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    render, ours = definition.render, definition.shape(higher_is_better=False)
    many = ", ".join(f"p{number}: 1" for number in range(100))
    image = "algorithm: image, image: {uri: 123456789012.dkr.ecr.us-east-1.amazonaws.com/trainer:1}"
    workload = parcels(folder, f"training: {{{image}, hyperparameters: {{{many}}}}}\n")
    # The shape of an image of ours is the same, but for what is checked before.
    monkeypatch.setattr(definition, "render", lambda program, _: render(program, ours))
    with pytest.raises(
        ValueError, match=r"Train: CreateTrainingJob\.HyperParameters: must have between 0 and 100"
    ):
        pipeline(cdk.Stack(), workload)
    assert service_model.enum("TrainingInstanceType")


def test_should_refuse_a_program_that_uses_a_part_of_a_value(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rendered = definition.render(definition.PROGRAM, definition.shape(higher_is_better=False))
    rendered["Metadata"]["Where"] = f"{definition.STAND_INS['training_uri']}/sub"
    monkeypatch.setattr(definition, "render", lambda *_: rendered)
    with pytest.raises(ValueError, match="must pass on training_uri as it is given"):
        pipeline(cdk.Stack(), parcels(folder))
