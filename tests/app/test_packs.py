"""The packs of cdk-nag over everything that is shipped, and what the packs cannot see."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cdk_support import ROOT, Template, cdk_context, offline, resources, synthesise_app
from ml_lifecycle.packs import PACKS, add_packs, packs_named

if TYPE_CHECKING:
    import aws_cdk as cdk

#: What invokes a function and does not wait for its answer.
_NO_ANSWER = ("AWS::Events::Rule", "AWS::Scheduler::Schedule", "AWS::SNS::Subscription")
#: Functions whose failed run is made up for by the next one, and nothing is lost between.
_MADE_UP_FOR = {"LabellingOwnRounds": "measures each hour how long items wait; the next hour measures again"}


def _ran(folder: Path) -> set[str]:
    report = json.loads((folder / "validation-report.json").read_text())
    return {r["pluginName"] for r in report["pluginReports"]}


@pytest.mark.slow
def test_should_pass_every_pack_in_every_environment(tmp_path: Path) -> None:
    def add(app: cdk.App) -> None:
        add_packs(app, tuple(PACKS))

    # Raises with the whole list when one finding is not acknowledged.
    synthesised = synthesise_app(tmp_path, prepare=add)
    assert set(PACKS) <= _ran(synthesised.folder)


@pytest.mark.slow
def test_should_pass_every_pack_with_every_option_switched_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import aws_cdk as cdk

    monkeypatch.syspath_prepend(str(ROOT / "examples" / "everything"))
    file = ROOT / "examples" / "everything" / "app.py"
    spec = importlib.util.spec_from_file_location("everything_held_to_packs", file)
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    with offline():
        app = cdk.App(context={**cdk_context(), "packs": "all"}, outdir=str(tmp_path))
        example.build(app).synth()
    assert set(PACKS) <= _ran(tmp_path)


def test_should_fail_on_a_finding_of_a_pack_that_nobody_acknowledged(tmp_path: Path) -> None:
    import aws_cdk as cdk
    from aws_cdk import aws_s3 as s3

    app = cdk.App(outdir=str(tmp_path))
    add_packs(app, ["PCI.DSS.321"])
    s3.Bucket(cdk.Stack(app, "Open"), "Bucket")
    with pytest.raises(RuntimeError, match=r"PCI\.DSS\.321-S3BucketSSLRequestsOnly"):
        app.synth()


@pytest.mark.parametrize("text", ["", "PCI", "AwsSolutions,Nist"])
def test_should_name_the_packs_there_are_when_one_is_unknown(text: str) -> None:
    with pytest.raises(ValueError, match=r"some of AwsSolutions, HIPAA\.Security, NIST\.800\.53\.R5, PCI"):
        packs_named(text)


def test_should_read_names_of_packs() -> None:
    assert packs_named("all") == tuple(PACKS)
    assert packs_named("PCI.DSS.321, AwsSolutions") == ("PCI.DSS.321", "AwsSolutions")


# --- what LambdaDLQ cannot tell: who waits for an answer -----------------------------------------


def _functions_named(value: Any, functions: set[str]) -> set[str]:
    """Logical ids of functions whose ARN is named anywhere in ``value``."""
    if isinstance(value, dict):
        target = value.get("Fn::GetAtt") or [value.get("Ref")]
        here = {target[0]} & functions if isinstance(target, list) else set()
        return here.union(*(_functions_named(child, functions) for child in value.values()))
    if isinstance(value, list):
        return set[str]().union(*(_functions_named(child, functions) for child in value))
    return set()


def unheard(template: Template) -> list[str]:
    """Functions that are invoked without an answer and whose failures go nowhere."""
    functions = resources(template, "AWS::Lambda::Function")
    configured = {
        json.dumps(r["Properties"]["FunctionName"])
        for r in resources(template, "AWS::Lambda::EventInvokeConfig").values()
        if "OnFailure" in r["Properties"].get("DestinationConfig", {})
    }
    told = {
        name
        for name, function in functions.items()
        if "DeadLetterConfig" in function["Properties"] or json.dumps({"Ref": name}) in configured
    }
    asked: set[str] = set()
    for kind in _NO_ANSWER:
        for resource in resources(template, kind).values():
            wanted = resource["Properties"].get("Targets") or resource["Properties"]
            asked |= _functions_named(wanted, set(functions))
    return sorted(name for name in asked - told if not name.startswith(tuple(_MADE_UP_FOR)))


def test_should_keep_what_a_function_failed_at_when_nobody_waits_for_its_answer(tmp_path: Path) -> None:
    templates = synthesise_app(tmp_path).templates()
    found = {name: lost for name, template in templates.items() if (lost := unheard(template))}
    assert not found, f"functions without a dead-letter queue or a destination for failures: {found}"


def test_should_find_a_function_whose_failures_go_nowhere() -> None:
    rule = {
        "Type": "AWS::Events::Rule",
        "Properties": {"Targets": [{"Arn": {"Fn::GetAtt": ["Silent", "Arn"]}, "Id": "T"}]},
    }
    silent = {"Type": "AWS::Lambda::Function", "Properties": {}}
    assert unheard({"Resources": {"Rule": rule, "Silent": silent}}) == ["Silent"]
    heard = {**silent, "Properties": {"DeadLetterConfig": {"TargetArn": "queue"}}}
    assert unheard({"Resources": {"Rule": rule, "Silent": heard}}) == []
