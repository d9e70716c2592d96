"""What an environment says of its services, what it cannot say, and the stack that holds them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import aws_cdk as cdk
import pytest
from cdk_nag import AwsSolutionsChecks
from cdk_support import ROOT, cdk_context, resources

from environments import (
    Dashboards,
    Environment,
    Lustre,
    Network,
    Search,
    Services,
    SharedStorage,
    Tracking,
    Video,
    Warehouse,
)
from stacks.data_lake import DataLakeStack
from stacks.foundation import FoundationStack
from stacks.services import ServicesStack

READER = "arn:aws:quicksight:eu-central-1:111111111111:group/default/analysts"
ALL = Services(
    warehouse=Warehouse(max_rpu=64),
    search=Search(standby=True),
    lustre=Lustre(prefix="images/", capacity_gib=2400),
    shared_storage=SharedStorage(backups=False),
    tracking=Tracking(size="Medium"),
    videos=(Video(name="north-gate"), Video(name="south-gate", interval_seconds=10)),
)
ENVIRONMENT = Environment(name="test", network=Network(max_azs=3), services=ALL)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Dashboards(readers=()), "readers must hold at least one ARN, got none"),
        (lambda: Dashboards(readers=("ana", "ben")), "got 'ana'; readers must hold ARNs .*got 'ben'"),
        (lambda: Lustre(prefix="/images"), "prefix must end with '/' and not start with it, got '/images'"),
        (lambda: Video(name="North Gate"), "name must be 2 to 61 lower-case letters.*got 'North Gate'"),
        (
            lambda: Services(videos=(Video(name="gate"), Video(name="gate"))),
            "videos must have names of their own, got 'gate' twice",
        ),
    ],
)
def test_should_refuse_services_that_cannot_be(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_should_have_none_unless_named() -> None:
    assert not Services().any
    # Dashboards stand with their workloads.
    assert not Services(dashboards=Dashboards(readers=(READER,))).any
    for name in ("warehouse", "search", "lustre", "shared_storage", "tracking", "videos"):
        assert replace(Services(), **{name: getattr(ALL, name)}).any


def made(app: cdk.App, environment: Environment) -> ServicesStack:
    foundation = FoundationStack(app, "Foundation", environment=environment)
    lake = DataLakeStack(app, "DataLake", environment=environment, workloads=[])
    return ServicesStack(
        app,
        "Services",
        environment=environment,
        foundation=foundation,
        lake=lake.lake,
        removal_policy=lake.removal_policy,
    )


def test_should_make_what_is_named_with_its_numbers_and_pass_the_security_checks(tmp_path: Path) -> None:
    app = cdk.App(context=cdk_context(), outdir=str(tmp_path))
    stack = made(app, ENVIRONMENT)
    cdk.Validations.of(app).add_plugins(AwsSolutionsChecks(app))
    template = json.loads((Path(app.synth().directory) / f"{stack.artifact_id}.template.json").read_text())

    def one(kind: str) -> dict[str, Any]:
        (found,) = resources(template, kind).values()
        return dict(found["Properties"])

    assert one("AWS::RedshiftServerless::Workgroup")["MaxCapacity"] == 64
    assert one("AWS::OpenSearchServerless::Collection")["StandbyReplicas"] == "ENABLED"
    assert one("AWS::FSx::FileSystem")["StorageCapacity"] == 2400
    assert one("AWS::EFS::FileSystem")["BackupPolicy"] == {"Status": "DISABLED"}
    names = {v["Properties"]["Name"] for v in resources(template, "AWS::KinesisVideo::Stream").values()}
    assert names == {"test-north-gate", "test-south-gate"}
    assert set(stack.videos) == {"north-gate", "south-gate"}
    assert one("AWS::SageMaker::MlflowTrackingServer")["TrackingServerSize"] == "Medium"
    assert None not in (stack.warehouse, stack.search, stack.lustre, stack.files, stack.tracking)
    schemas = [o["Value"] for n, o in template["Outputs"].items() if n.startswith("ExternalSchema")]
    assert len(schemas) == 2
    assert all(s.startswith("CREATE EXTERNAL SCHEMA IF NOT EXISTS test_") for s in schemas)


def test_should_make_one_service_alone() -> None:
    stack = made(cdk.App(context=cdk_context()), replace(ENVIRONMENT, services=Services(search=Search())))
    assert stack.search is not None
    assert (stack.warehouse, stack.lustre, stack.files, stack.videos) == (None, None, None, {})


def test_should_say_that_a_warehouse_wants_three_zones() -> None:
    environment = replace(ENVIRONMENT, network=Network(max_azs=2))
    with pytest.raises(ValueError, match="subnets must stand in three availability zones, got 2"):
        made(cdk.App(context=cdk_context()), environment)


def test_should_have_every_service_in_the_example_that_switches_everything_on() -> None:
    import sys

    sys.path.insert(0, str(ROOT / "examples" / "everything"))
    try:
        from environment import EVERYTHING
    finally:
        sys.path.pop(0)
    services = EVERYTHING.services
    assert all(
        (
            services.warehouse,
            services.dashboards,
            services.search,
            services.lustre,
            services.shared_storage,
            services.videos,
        )
    )
