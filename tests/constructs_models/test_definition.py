"""Rendering a pipeline's definition: from the SDK once, from the cache ever after."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cdk_support import ROOT
from ml_contract.load import discover_workloads
from ml_lifecycle.training import definition, service_model
from ml_lifecycle.training.shapes import shape_of

SHAPES = [definition.shape(higher_is_better=higher) for higher in (True, False)]
#: What the workloads of this project ask for.
SHIPPED = [
    shape_of(loaded.workload)
    for folder in (ROOT / "workloads", *sorted((ROOT / "examples").glob("*/workloads")))
    for loaded in discover_workloads(folder)
]


@pytest.fixture
def no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object, **_kwargs: object) -> None:
        raise AssertionError("the SDK must not be started")

    monkeypatch.setattr(subprocess, "run", refuse)


@pytest.mark.parametrize("values", [*SHAPES, *SHIPPED])
def test_should_ship_what_most_workloads_and_those_of_this_project_ask_for(
    no_process: None, values: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(definition, "_cache", lambda: tmp_path)
    rendered = definition.render(definition.PROGRAM, values)
    names = [step["Name"] for step in rendered["Steps"]]
    assert (names[0], names[-1]) == ("Prepare", "Accept")


def test_should_refuse_a_choice_that_there_is_not() -> None:
    with pytest.raises(ValueError, match=r"choices are .*spot.*, got colour"):
        definition.shape(colour="red")


@pytest.mark.slow
def test_should_ship_what_the_installed_sdk_renders() -> None:
    [fresh] = definition._run(definition.PROGRAM, [SHAPES[0]])
    assert fresh == definition.render(definition.PROGRAM, SHAPES[0]), (
        "run python -m ml_lifecycle.training.definition and read the difference"
    )


def test_should_ship_nothing_that_no_shape_asks_for() -> None:
    asked = [*SHAPES, *SHIPPED]
    names = {f"{definition._digest(definition.PROGRAM, values)}.json" for values in asked}
    assert {path.name for path in definition._SHIPPED.iterdir()} == names


def test_should_never_import_the_sdk_while_the_cache_is_warm() -> None:
    code = (
        "import sys; from ml_lifecycle.training import definition as d;"
        "d.render(d.PROGRAM, d.shape(higher_is_better=True));"
        "sys.exit(any(m.split('.')[0] in ('sagemaker', 'boto3', 'botocore') for m in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_should_render_another_program_once_and_keep_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "program.py"
    program.write_text("def build(session, values): ...")
    runs: list[object] = []

    def run(path: Path, shapes: list[Any]) -> list[dict[str, Any]]:
        runs.append(path)
        return [{"Steps": [], "role": shapes[0]["training_role"]}]

    monkeypatch.setattr(definition, "_run", run)
    monkeypatch.setattr(definition, "_cache", lambda: tmp_path / "cache")
    first = definition.render(program, SHAPES[0])
    assert definition.render(program, SHAPES[0]) == first
    assert runs == [program]
    program.write_text("def build(session, values): ... # changed")
    definition.render(program, SHAPES[0])
    assert runs == [program, program]


@pytest.mark.slow
def test_should_refuse_a_program_that_uses_the_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(definition, "_cache", lambda: tmp_path / "cache")
    program = tmp_path / "program.py"
    program.write_text(
        "import urllib.request\n"
        "def build(session, values):\n"
        "    urllib.request.urlopen('http://127.0.0.1:9')\n"
    )
    with pytest.raises(
        ValueError, match="must not use the network while its definition is rendered"
    ) as error:
        definition.render(program, SHAPES[0])
    assert str(program) in str(error.value)
    assert not (tmp_path / "cache").exists()


def test_should_refuse_a_program_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="program must be a Python file or package with build"):
        definition.render(tmp_path / "none.py", SHAPES[0])


def test_should_fill_in_values_and_drop_what_has_none() -> None:
    rendered = {
        "Role": definition.STAND_INS["training_role"],
        "Key": definition.STAND_INS["training_volume_key"],
        "Size": definition.STAND_INS["volume_gb"],
        "Hyper": definition.STAND_INS["hyperparameters"],
        "Subnets": definition.STAND_INS["subnets"],
        "Empty": None,
        "Kept": 30,
    }
    assert definition.fill(
        rendered,
        {
            "training_role": "arn",
            "training_volume_key": None,
            "volume_gb": 50,
            "hyperparameters": {"eta": "0.1"},
            "subnets": ["a", "b"],
        },
    ) == {"Role": "arn", "Size": 50, "Hyper": {"eta": "0.1"}, "Subnets": ["a", "b"], "Kept": 30}


def test_should_find_a_stand_in_that_a_program_used_a_part_of() -> None:
    assert definition.left_over({"Uri": f"{definition.STAND_INS['training_uri']}/more"}) == ["training_uri"]
    assert definition.left_over({"Uri": "s3://bucket/training"}) == []


def test_should_use_stand_ins_that_sagemaker_would_take() -> None:
    rendered = definition.render(definition.PROGRAM, SHAPES[0])
    types = {
        "training_instance_type": "ml.m5.large",
        "processing_instance_type": "ml.m5.large",
        "endpoint_instance_type": "ml.m5.large",
        "transform_instance_type": "ml.m5.large",
        "volume_gb": 30,
        "input_mode": "FastFile",
        "instance_count": 1,
        "keep_alive_seconds": None,
    }
    assert definition.problems(definition.fill(rendered, types)) == []


def test_should_catch_a_wrong_argument_in_a_step() -> None:
    rendered = definition.render(definition.PROGRAM, SHAPES[0])
    train = next(step for step in rendered["Steps"] if step["Name"] == "Train")
    train["Arguments"]["ResourceConfig"]["InstanceTyp"] = train["Arguments"]["ResourceConfig"].pop(
        "InstanceType"
    )
    found = definition.problems(rendered)
    assert any(
        line.startswith("Train: CreateTrainingJob.ResourceConfig.InstanceTyp: is no parameter")
        for line in found
    )


def test_should_catch_a_name_that_stands_for_an_input_and_an_output() -> None:
    rendered = definition.render(definition.PROGRAM, SHAPES[0])
    evaluate = next(step for step in rendered["Steps"] if step["Name"] == "Evaluate")["Arguments"]
    evaluate["ProcessingOutputConfig"]["Outputs"][0]["OutputName"] = "model"
    found = definition.problems(rendered)
    assert (
        "Evaluate: CreateProcessingJob: names of inputs and outputs must be unique, got model twice" in found
    )


def test_should_agree_with_botocore_about_the_shipped_definitions() -> None:
    import botocore.loaders
    import botocore.model
    import botocore.validate

    service = botocore.model.ServiceModel(
        botocore.loaders.Loader().load_service_model("sagemaker", "service-2")
    )
    for values in SHAPES:
        for step in definition._steps(definition.render(definition.PROGRAM, values)["Steps"]):
            operation = definition._API.get(step["Type"])
            if operation is None:
                continue
            shape = service.operation_model(operation).input_shape
            assert shape is not None
            # botocore knows no pipeline expressions: each becomes a text.
            plain = json.loads(json.dumps(step["Arguments"]), object_hook=_text)
            plain |= dict.fromkeys(definition._GIVEN & set(shape.members), "name")
            report = botocore.validate.ParamValidator().validate(plain, shape)
            unexpected = [
                line
                for line in report.generate_report().splitlines()
                if "VolumeSizeInGB" not in line and "KeepAlivePeriod" not in line
            ]
            assert unexpected == [], step["Name"]
    assert service_model.enum("TrainingInstanceType")


def _text(node: dict[str, Any]) -> object:
    return "expression" if set(node) & {"Get", "Std:Join", "Std:JsonGet"} and len(node) == 1 else node
