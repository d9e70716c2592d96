"""Other ways to a model, and who else starts training: what is made, what it may do, what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import aws_cdk as cdk
import botocore.session
import pytest
from cdk_nag import AwsSolutionsChecks
from cdk_support import ROOT, Template, actions, cdk_context, resources, statements
from ml_contract.load import ContractError, LoadedWorkload, load_workload
from ml_lifecycle.training.airflow import dag_folder

from environments import Airflow, Environment, Network, Orchestration
from rehearsal.executors.state_tasks import sdk_client_name
from stacks.airflow import AirflowStack
from stacks.data_lake import DataLakeStack
from stacks.foundation import FoundationStack
from stacks.workload_alternatives import WorkloadAlternativesStack
from stacks.workload_models import WorkloadModelsStack

YAML = """
version: 1
name: parcel_delay
title: Parcels that arrive late
owner: logistics@example.com
record:
  identifier: parcel
  event_time: sent_at
  fields:
    parcel: {type: string, required: true, max_length: 40, sensitive: pii}
    sent_at: {type: timestamp, required: true}
    weight_kg: {type: number, minimum: 0, maximum: 70}
    late: {type: string, allowed: ["no", "yes"]}
label: {task: binary, field: late, values: ["no", "yes"]}
acceptance: {metric: auc, at_least: 0.6}
"""
BEDROCK = """{service: bedrock, model: amazon.nova-micro-v1:0:128k, technique: fine_tuning,
  training_data: texts/train.jsonl, validation_data: texts/held.jsonl, hyperparameters: {epochCount: "2"}}"""
HUB = """{service: jumpstart, model: huggingface-llm-qwen3-8b, technique: sft, accept_eula: true,
  training_data: texts/train.jsonl}"""
AUTOPILOT = "{mode: hyperparameter_tuning, max_candidates: 9, objective: F1}"
FLOW = ROOT / "examples/everything/workloads/everything/parcels.flow"
WRANGLER = "{flow: parcels.flow, output: 5b8f2a10-types.default, train: true}"
ENVIRONMENT = Environment(
    name="test",
    network=Network(max_azs=2),
    orchestration=Orchestration(step_functions=True, airflow=Airflow(max_workers=3)),
)


def load(folder: Path, **blocks: str) -> LoadedWorkload:
    path = folder / "parcel_delay"
    path.mkdir(parents=True, exist_ok=True)
    shutil.copy(FLOW, path)
    text = "\n".join(f"  {name}: {block}" for name, block in blocks.items())
    (path / "workload.yaml").write_text(f"{YAML}alternatives:\n{text}\n")
    return load_workload(path)


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Template]:
    """Both stacks for a workload with everything, and one with SageMaker's foundation models; checked."""
    folder = tmp_path_factory.mktemp("alternatives")
    app = cdk.App(context=cdk_context(), outdir=str(folder / "out"))
    foundation = FoundationStack(app, "Foundation", environment=ENVIRONMENT)
    given = {
        "All": load(folder / "a", autopilot=AUTOPILOT, foundation_model=BEDROCK, wrangler=WRANGLER),
        "Hub": load(folder / "b", foundation_model=HUB),
    }
    lake = DataLakeStack(app, "DataLake", environment=ENVIRONMENT, workloads=list(given.values())[:1])
    stacks: dict[str, cdk.Stack] = {}
    made = []
    for name, workload in given.items():
        common: dict[str, Any] = {
            "environment": ENVIRONMENT,
            "workload": workload,
            "foundation": foundation,
            "lake": lake.lake,
        }
        models = WorkloadModelsStack(app, f"{name}Models", serving_stack_name="Serving", **common)
        made.append(models)
        stacks[name] = WorkloadAlternativesStack(app, name, models=models, **common)
    stacks["Airflow"] = AirflowStack(
        app, "Airflow", environment=ENVIRONMENT, foundation=foundation, models=made[:1]
    )
    cdk.Validations.of(app).add_plugins(AwsSolutionsChecks(app))
    directory = Path(app.synth().directory)
    found = {
        name: json.loads((directory / f"{stack.artifact_id}.template.json").read_text())
        for name, stack in stacks.items()
    }
    assets = json.loads((directory / f"{stacks['Airflow'].artifact_id}.assets.json").read_text())
    found["AirflowAssets"] = assets
    return found


def plain(value: Any) -> str:
    """A text with its references replaced by a name."""
    if isinstance(value, str):
        return value
    if "Fn::Join" in value:
        return "".join(plain(part) for part in value["Fn::Join"][1])
    return "token"


def machines(template: Template) -> dict[str, dict[str, Any]]:
    """State machines by name, their definitions read."""
    return {
        one["Properties"]["StateMachineName"]: json.loads(plain(one["Properties"]["DefinitionString"]))
        for one in resources(template, "AWS::StepFunctions::StateMachine").values()
    }


def unfit(value: Any, shape: Any, path: str) -> list[str]:
    """What a service would refuse in the parameters of a task: unknown and missing members."""
    if shape.type_name == "structure":
        known = {name.lower(): name for name in shape.members}
        given = {key.removesuffix(".$").lower(): (key, item) for key, item in value.items()}
        wrong = [f"{path}.{key} is unknown" for low, (key, _) in given.items() if low not in known]
        wrong += [f"{path}.{name} is missing" for name in shape.required_members if name.lower() not in given]
        for low, (key, item) in given.items():
            if low in known and not key.endswith(".$"):
                wrong += unfit(item, shape.members[known[low]], f"{path}.{key}")
        return wrong
    if shape.type_name == "list":
        return [line for i, item in enumerate(value) for line in unfit(item, shape.member, f"{path}[{i}]")]
    allowed = getattr(shape, "enum", None)
    return [f"{path}: {value!r} is none of {allowed}"] if allowed and value not in allowed else []


@pytest.mark.parametrize("stack", ["All", "Hub"])
def test_should_ask_services_for_what_they_know(templates: dict[str, Template], stack: str) -> None:
    session = botocore.session.get_session()
    seen = 0
    for name, definition in machines(templates[stack]).items():
        for state, one in definition["States"].items():
            if one["Type"] != "Task":
                continue
            _, service, action = one["Resource"].split(":states:::")[1].split(":")
            model = session.get_service_model(sdk_client_name(service))
            operation = next(n for n in model.operation_names if n.lower() == action.lower())
            wrong = unfit(one["Parameters"], model.operation_model(operation).input_shape, f"{name} {state}")
            assert wrong == []
            seen += 1
    assert seen == (9 if stack == "All" else 4)


def test_should_make_a_machine_for_each(templates: dict[str, Template]) -> None:
    prefix = "test-parcel-delay"
    assert set(machines(templates["All"])) == {
        f"{prefix}-{end}" for end in ("train", "autopilot", "foundation-model", "wrangler")
    }
    assert set(machines(templates["Hub"])) == {f"{prefix}-train", f"{prefix}-foundation-model"}


def test_should_train_on_what_the_flow_wrote(templates: dict[str, Template]) -> None:
    states = machines(templates["All"])["test-parcel-delay-wrangler"]["States"]
    assert states["Ended"]["Choices"][0]["Next"] == "Then"
    parameters = {p["Name"]: p["Value"] for p in states["Then"]["Parameters"]["PipelineParameters"]}
    assert parameters["FeaturesUri"].endswith("/parcel-delay/wrangled/")
    assert states["Then"]["Next"] == "Done"


def test_should_encrypt_and_enclose_every_job(templates: dict[str, Template]) -> None:
    found = machines(templates["All"])
    autopilot = found["test-parcel-delay-autopilot"]["States"]["Start"]["Parameters"]
    assert autopilot["SecurityConfig"]["EnableInterContainerTrafficEncryption"] is True
    assert set(autopilot["SecurityConfig"]) >= {"VolumeKmsKeyId", "VpcConfig"}
    assert autopilot["AutoMLJobObjective"] == {"MetricName": "F1"}
    bedrock = found["test-parcel-delay-foundation-model"]["States"]["Start"]["Parameters"]
    assert set(bedrock) >= {"CustomModelKmsKeyId", "VpcConfig", "ValidationDataConfig"}
    wrangler = found["test-parcel-delay-wrangler"]["States"]["Start"]["Parameters"]
    assert "VolumeKmsKeyId" in wrangler["ProcessingResources"]["ClusterConfig"]
    assert wrangler["NetworkConfig"]["EnableInterContainerTrafficEncryption"] is True


def test_should_let_each_machine_do_its_own_and_no_more(templates: dict[str, Template]) -> None:
    roles = {
        name.rpartition("Machine")[0] or name: actions(statements(templates["All"], name))
        for name in resources(templates["All"], "AWS::IAM::Role")
        if "Job" not in name
    }
    own = {
        key: {a for a in found if a.startswith(("sagemaker:", "bedrock:"))} for key, found in roles.items()
    }
    assert {"sagemaker:CreateAutoMLJobV2", "sagemaker:DescribeAutoMLJobV2"} in own.values()
    assert {"bedrock:CreateModelCustomizationJob", "bedrock:GetModelCustomizationJob"} in own.values()
    train = {
        "sagemaker:ListPipelineExecutions",
        "sagemaker:StartPipelineExecution",
        "sagemaker:DescribePipelineExecution",
    }
    assert train in own.values()


def test_should_give_airflow_a_folder_of_its_own_and_private_doors(templates: dict[str, Template]) -> None:
    (environment,) = resources(templates["Airflow"], "AWS::MWAA::Environment").values()
    properties = environment["Properties"]
    assert properties["WebserverAccessMode"] == "PRIVATE_ONLY"
    assert properties["MaxWorkers"] == 3
    assert f"{properties['DagS3Path']}/" == dag_folder()
    named = properties["AirflowConfigurationOptions"]["training.pipelines"]
    assert json.loads(named) == ["test-parcel-delay"]
    keys = [
        destination["objectKey"]
        for asset in templates["AirflowAssets"]["files"].values()
        for destination in asset["destinations"].values()
    ]
    assert any(key.startswith(dag_folder()) and key.endswith(".py") for key in keys)
    services = {
        plain(e["Properties"]["ServiceName"]).rpartition("token.")[2]
        for e in resources(templates["Airflow"], "AWS::EC2::VPCEndpoint").values()
    }
    assert services == {"sqs", "airflow.api", "airflow.env"}


def test_should_run_each_pipeline_by_a_dag(monkeypatch: pytest.MonkeyPatch) -> None:
    """The DAG file, run with stand-ins for Airflow's classes."""
    import sys
    import types

    made: dict[str, dict[str, Any]] = {}

    class Dag:
        def __init__(self, **options: Any) -> None:
            made[options["dag_id"]] = options

        def __enter__(self) -> Dag:
            return self

        def __exit__(self, *_: object) -> None:
            return None

    started: list[dict[str, Any]] = []
    package = "airflow.providers.amazon.aws.operators.sagemaker"
    parts = package.split(".")
    for end in range(1, len(parts) + 1):
        monkeypatch.setitem(sys.modules, ".".join(parts[:end]), types.ModuleType(".".join(parts[:end])))
    sys.modules["airflow"].DAG = Dag  # type: ignore[attr-defined]
    operator = lambda **options: started.append(options)  # noqa: E731
    sys.modules[package].SageMakerStartPipelineOperator = operator  # type: ignore[attr-defined]
    monkeypatch.setenv("AIRFLOW__TRAINING__PIPELINES", '["dev-claims-fraud", "dev-hotline-demand"]')
    source = (ROOT / "dags" / "train_models.py").read_text()
    exec(compile(source, "train_models.py", "exec"), {"__name__": "dag"})
    assert list(made) == ["train-dev-claims-fraud", "train-dev-hotline-demand"]
    assert [one["pipeline_name"] for one in started] == ["dev-claims-fraud", "dev-hotline-demand"]
    assert all(one["wait_for_completion"] for one in started)


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        ({"autopilot": "{objective: RMSE}"}, "for a binary label: Accuracy, AUC"),
        ({"autopilot": "{max_candidates: 3}"}, "max_candidates goes with mode"),
        ({"foundation_model": BEDROCK.replace("fine_tuning", "sft")}, "is not one of bedrock"),
        (
            {"foundation_model": BEDROCK.replace("amazon.nova-micro-v1:0:128k", "Nova")},
            "Bedrock's ids look like",
        ),
        (
            {"foundation_model": HUB.replace("accept_eula: true", "accept_eula: false")},
            "accept_eula must be true",
        ),
        ({"foundation_model": HUB.replace("huggingface-llm-qwen3-8b", "a/b/c")}, "the hub's names look like"),
        ({"wrangler": "{flow: other.flow, output: a.default}"}, "there is no other.flow"),
        (
            {"wrangler": "{flow: parcels.flow, output: x.default}"},
            "got node 'x'; the flow has 5b8f2a10-source",
        ),
    ],
)
def test_should_refuse_what_does_not_fit(tmp_path: Path, blocks: dict[str, str], message: str) -> None:
    with pytest.raises(ContractError) as refused:
        load(tmp_path, **blocks)
    assert message in str(refused.value)


def test_should_refuse_an_airflow_that_cannot_reach_its_services() -> None:
    for network in (Network(max_azs=1), Network(interface_endpoints=False)):
        with pytest.raises(ValueError, match=r"orchestration\.airflow needs network\.max_azs"):
            Environment(name="test", network=network, orchestration=Orchestration(airflow=Airflow()))
    with pytest.raises(ValueError, match=r"environment_class must look like mw1\.small, got 'large'"):
        Airflow(environment_class="large")
