"""What a change does to resources that hold data: nothing that loses it, judged by the registry's schemas."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cdk_support import ROOT, Assembly, Template, cdk_context, offline, resources
from ml_contract.commands.features import record_features
from ml_contract.load import ContractError, load_workload

from rehearsal.cloudformation.schemas import UnknownTypeError, schema_of

pytestmark = pytest.mark.slow

GROUP = "AWS::SageMaker::FeatureGroup"
Change = Callable[[Path], None]


def in_yaml(*replacements: tuple[str, str]) -> Change:
    def change(folder: Path) -> None:
        file = folder / "workload.yaml"
        text = file.read_text()
        for old, new in replacements:
            assert old in text, old
            text = text.replace(old, new)
        file.write_text(text)

    return change


#: A further feature, and one that becomes another: of whatever the worked example derives.
ADDS = in_yaml(
    ("  derive:\n", "  derive:\n    claim_weekday: {kind: date_part, field: incident_date, part: weekday}\n")
)
BREAKS = in_yaml(("    injury_share:", "    injury_part:"))


@pytest.fixture(scope="module")
def workload(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The worked example, its feature group recorded as it is."""
    folder = tmp_path_factory.mktemp("workloads") / "claims_fraud"
    shutil.copytree(ROOT / "workloads" / "claims_fraud", folder)
    (folder / "features.lock.json").unlink(missing_ok=True)
    assert record_features(folder) == 0
    return folder


@pytest.fixture(scope="module")
def stage(workload: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[str, Template]]:
    """Templates of one stage, after a change of the workload, with a tag of the whole app."""

    def build(*changes: Change, tag: str = "one") -> dict[str, Template]:
        import aws_cdk as cdk

        import environments
        from stacks.stage import LifecycleStage

        root = tmp_path_factory.mktemp("change")
        folder = root / "claims_fraud"
        shutil.copytree(workload, folder)
        for change in changes:
            change(folder)
        with offline():
            app = cdk.App(context=cdk_context(), outdir=str(root / "cdk.out"))
            built = LifecycleStage(
                app, "Dev", environment=environments.DEV, workloads=[load_workload(folder)]
            )
            # Of the stage: an app's own tags end where a stage begins.
            cdk.Tags.of(built).add("cost-centre", tag)
            app.synth()
        return Assembly(root / "cdk.out").templates()

    return build


@pytest.fixture(scope="module")
def before(stage: Callable[..., dict[str, Template]]) -> dict[str, Template]:
    return stage()


def keeps(resource: Template) -> bool:
    return resource.get("DeletionPolicy") in ("Retain", "RetainExceptOnCreate", "Snapshot")


def retained(templates: dict[str, Template]) -> Iterator[tuple[str, Template]]:
    for stack, template in templates.items():
        for logical_id, resource in template["Resources"].items():
            if keeps(resource):
                yield f"{stack}/{logical_id}", resource


def value(resource: Template, path: tuple[str, ...]) -> Any:
    found: Any = resource.get("Properties", {})
    for part in path:
        if not isinstance(found, dict):
            return found
        found = found.get(part)
    return found


def replaced(before: dict[str, Template], after: dict[str, Template]) -> list[str]:
    """Resources that hold data and would go, or be made anew for a property that only creation takes."""
    now = dict(retained(after))
    found = []
    for name, old in retained(before):
        new = now.get(name)
        if new is None or new["Type"] != old["Type"]:
            found.append(f"{name}: goes")
            continue
        try:
            schema = schema_of(old["Type"])
        except UnknownTypeError:
            assert old["Type"].startswith("Custom::"), old["Type"]
            continue
        paths = [*schema.create_only, *schema._paths("conditionalCreateOnlyProperties")]
        tags = schema.tag_property
        if tags is not None and schema.document.get("tagging", {}).get("tagUpdatable") is False:
            paths.append((tags,))
        found += [
            f"{name}: {'.'.join(path)} only at creation"
            for path in dict.fromkeys(paths)
            if value(old, path) != value(new, path)
        ]
    return found


def test_should_notice_what_replaces(before: dict[str, Template]) -> None:
    (stack,) = [name for name in before if name.endswith("ClaimsFraudData")]
    template = before[stack]
    [(logical_id, group)] = resources(template, GROUP).items()
    other = {**group, "Properties": {**group["Properties"], "Description": "other", "Tags": []}}
    changed = {**before, stack: {**template, "Resources": {**template["Resources"], logical_id: other}}}
    name = f"{stack}/{logical_id}"
    assert replaced(before, changed) == [
        f"{name}: Description only at creation",
        f"{name}: Tags only at creation",
    ]
    gone = {k: v for k, v in template["Resources"].items() if k != logical_id}
    assert replaced(before, {**before, stack: {**template, "Resources": gone}}) == [f"{name}: goes"]


def test_should_replace_nothing_that_holds_data_for_a_changed_tag_of_the_whole_app(
    stage: Callable[..., dict[str, Template]], before: dict[str, Template]
) -> None:
    after = stage(tag="two")
    assert before != after, "the tag is somewhere"
    assert replaced(before, after) == []


def test_should_add_a_feature_where_the_group_stands(
    stage: Callable[..., dict[str, Template]], before: dict[str, Template]
) -> None:
    after = stage(ADDS)
    assert replaced(before, after) == []
    [old] = groups(before)
    [new] = groups(after)
    assert new["FeatureGroupName"] == old["FeatureGroupName"]
    assert new["FeatureDefinitions"][:-1] == old["FeatureDefinitions"]
    assert new["FeatureDefinitions"][-1] == {"FeatureName": "claim_weekday", "FeatureType": "Fractional"}


def test_should_refuse_a_change_that_no_group_can_follow(workload: Path, tmp_path: Path) -> None:
    folder = tmp_path / "claims_fraud"
    shutil.copytree(workload, folder)
    BREAKS(folder)
    with pytest.raises(
        ContractError, match=r"feature injury_share goes; undo the change, or .*--new-version"
    ):
        load_workload(folder)


def test_should_put_a_new_version_beside_the_old_one(
    stage: Callable[..., dict[str, Template]], before: dict[str, Template]
) -> None:
    def recorded(folder: Path) -> None:
        assert record_features(folder, new_version=True) == 0

    def switched(folder: Path) -> None:
        recorded(folder)
        assert record_features(folder, activate=2) == 0

    after = stage(BREAKS, recorded)
    assert replaced(before, after) == []
    [old] = groups(before)
    first, second = sorted(
        groups(after), key=lambda group: group["FeatureGroupName"] != old["FeatureGroupName"]
    )
    assert first == old, "the old version is as it was"
    names = [d["FeatureName"] for d in second["FeatureDefinitions"]]
    assert "injury_part" in names
    assert "injury_share" not in names
    assert "-v2-" in second["FeatureGroupName"]
    assert all(keeps(r) for r in resources(data(after), GROUP).values())
    # The new one is written (its backfill); readers move when somebody says so.
    assert outputs(after) == (second["FeatureGroupName"], old["FeatureGroupName"])
    later = stage(BREAKS, switched)
    assert replaced(after, later) == []
    assert outputs(later) == (second["FeatureGroupName"], second["FeatureGroupName"])


def data(templates: dict[str, Template]) -> Template:
    (found,) = [template for name, template in templates.items() if name.endswith("ClaimsFraudData")]
    return found


def groups(templates: dict[str, Template]) -> list[Template]:
    return [resource["Properties"] for resource in resources(data(templates), GROUP).values()]


def outputs(templates: dict[str, Template]) -> tuple[str, str]:
    found = data(templates)["Outputs"]
    return found["FeatureGroupName"]["Value"], found["ActiveFeatureGroupName"]["Value"]
