"""The environment of the example: every option that an environment has."""

from __future__ import annotations

from environments import (
    Airflow,
    Audit,
    Dashboards,
    Environment,
    Governance,
    GpuQueue,
    HyperPod,
    Lustre,
    Network,
    Observability,
    Orchestration,
    Organisation,
    Perimeter,
    Retention,
    Search,
    Security,
    Services,
    SharedStorage,
    Tables,
    Tracing,
    Tracking,
    Video,
    Warehouse,
)

EVERYTHING = Environment(
    name="every",
    network=Network(cidr="10.90.0.0/16", max_azs=3, interface_endpoints=True),
    retention=Retention(log_days=30),
    destroy_data=True,
    tracing=Tracing(),
    observability=Observability(platform=True, silent_endpoint_hours=24),
    alarm_email="platform@example.com",
    budget_usd=100,
    governance=Governance(reads_up_to="internal", audit=Audit(retention_days=30)),
    tables=Tables(),
    services=Services(
        warehouse=Warehouse(),
        dashboards=Dashboards(readers=("arn:aws:quicksight:us-east-1:123456789012:group/default/analysts",)),
        search=Search(),
        lustre=Lustre(prefix="everything/"),
        shared_storage=SharedStorage(),
        tracking=Tracking(),
        videos=(Video(name="depot-gate"),),
    ),
    orchestration=Orchestration(step_functions=True, airflow=Airflow()),
    security=Security(
        organisation=Organisation(
            names={"AWS::CloudFormation::Stack": "Every-.*", "AWS::SageMaker::Endpoint": "every-.*"},
            tags={"cost-center": "4711"},
            required_tags=("cost-center",),
        ),
        keys_by_classification=True,
        key_administrators=("arn:aws:iam::123456789012:role/key-administrators",),
        perimeter=Perimeter(organization_id="o-0123456789", more_buckets=("jumpstart-cache-prod-us-east-1",)),
    ),
    gpu=GpuQueue(
        image="123456789012.dkr.ecr.us-east-1.amazonaws.com/photos:1",
        prefix="photos/",
        instance_types=("g6",),
    ),
    hyperpod=HyperPod(instance_type="ml.p5.48xlarge", prefix="everything/llm/"),
)
