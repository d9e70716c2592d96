"""What keeps watch and delivers: CloudWatch, logs, network, budgets, audit, pipelines."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from cost.assembly import Resource
from cost.load import HOURS
from cost.rules.base import Context, Usage, priced

#: Deliveries a month, and minutes of each build of one.
DELIVERIES, BUILD_MINUTES = 20, 10
BUILDS: Final = {
    "BUILD_GENERAL1_SMALL": "codebuild.small",
    "BUILD_GENERAL1_MEDIUM": "codebuild.medium",
    "BUILD_GENERAL1_LARGE": "codebuild.large",
}


@priced("AWS::CloudWatch::Alarm")
def alarm(resource: Resource, context: Context) -> Iterator[Usage]:
    """A month of each metric that the alarm looks at."""
    metrics = resource.properties.get("Metrics")
    looked_at = 1 if metrics is None else sum(1 for m in metrics if "MetricStat" in m)
    yield Usage(
        price="cloudwatch.alarm", quantity=max(1, looked_at), why=f"an alarm on {looked_at} metric(s)"
    )


@priced("AWS::CloudWatch::CompositeAlarm")
def composite(resource: Resource, context: Context) -> Iterator[Usage]:
    """A month of the alarm."""
    yield Usage(price="cloudwatch.composite", quantity=1, why="a composite alarm")


@priced("AWS::CloudWatch::Dashboard")
def dashboard(resource: Resource, context: Context) -> Iterator[Usage]:
    """A month of the dashboard; the first three of an account are free, which is not counted on."""
    yield Usage(
        price="cloudwatch.dashboard", quantity=1, why="a dashboard (an account's first three are free)"
    )


@priced("AWS::Logs::LogGroup")
def logs(resource: Resource, context: Context) -> Iterator[Usage]:
    """What functions say of a thousand records; a group that nobody writes to costs nothing."""
    groups = sum(1 for _ in context.stack.of_type("AWS::Logs::LogGroup"))
    gb = context.records * context.assumptions.log_bytes_per_record / 1024**3 / max(1, groups)
    yield Usage(price="cloudwatch.logs.in", quantity=gb, why="lines of functions and jobs", state="load")


@priced("AWS::EC2::VPCEndpoint")
def endpoint(resource: Resource, context: Context) -> Iterator[Usage]:
    """Hours of an interface endpoint in each zone; gateway endpoints are free."""
    if resource.text("VpcEndpointType") != "Interface":
        return
    zones = len(resource.properties.get("SubnetIds", ())) or 1
    yield Usage(price="vpc.endpoint", quantity=HOURS * zones, why=f"an interface endpoint in {zones} zone(s)")


@priced("AWS::OpenSearchServerless::VpcEndpoint")
def search_endpoint(resource: Resource, context: Context) -> Iterator[Usage]:
    """The same, made by OpenSearch."""
    zones = len(resource.properties.get("SubnetIds", ())) or 1
    yield Usage(price="vpc.endpoint", quantity=HOURS * zones, why=f"its endpoint in {zones} zone(s)")


@priced("AWS::Budgets::Budget")
def budget(resource: Resource, context: Context) -> Iterator[Usage]:
    """Budgets that only tell are free; with actions they are billed by the day beyond the first two."""
    actions = [
        a
        for a in context.stack.of_type("AWS::Budgets::BudgetsAction")
        if f"${{{resource.id}" in (a.text("BudgetName") or "")
    ]
    if actions:
        yield Usage(
            price="budgets.action",
            quantity=HOURS / 24,
            why="a budget with actions (two of an account are free)",
        )


@priced("AWS::Budgets::BudgetsAction")
def action(resource: Resource, context: Context) -> Iterator[Usage]:
    """Billed with its budget."""
    yield from ()


@priced("AWS::CloudTrail::Trail")
def trail(resource: Resource, context: Context) -> Iterator[Usage]:
    """Data events: some ten per record that comes or prediction that is captured, in bundles of a hundred."""
    events = sum(load.records + load.predictions for load in context.loads.values()) / 100 * 10
    yield Usage(price="trail.data", quantity=events / 1e5, why="data events of the lake", state="load")


@priced("AWS::Config::ConfigRule")
def config_rule(resource: Resource, context: Context) -> Iterator[Usage]:
    """An evaluation a day of a rule that is asked by the clock; changes are few."""
    daily = resource.text("MaximumExecutionFrequency") is not None
    yield Usage(
        price="config.evaluation",
        quantity=HOURS / 24 if daily else 10,
        why="a rule that is asked once a day" if daily else "ten changes a month that a rule looks at",
    )


@priced("AWS::GuardDuty::Detector")
def detector(resource: Resource, context: Context) -> Iterator[Usage]:
    """S3 protection, by the data events that the trail would see; of other events nothing is forecast."""
    events = sum(load.records + load.predictions for load in context.loads.values()) / 100 * 10
    yield Usage(
        price="guardduty.s3", quantity=events / 1e6, why="data events that S3 protection reads", state="load"
    )


@priced("AWS::SQS::Queue")
def queue(resource: Resource, context: Context) -> Iterator[Usage]:
    """Lambda's pollers ask about five times in twenty seconds whether there is something."""
    mapped = any(
        f"${{{resource.id}." in (mapping.text("EventSourceArn") or "")
        for mapping in context.stack.of_type("AWS::Lambda::EventSourceMapping")
    )
    if mapped:
        # Lambda, "Using Lambda with Amazon SQS": five long polls of up to 20 seconds when nothing comes.
        polls = 5 * HOURS * 3_600 / 20
        yield Usage(price="sqs.request", quantity=polls / 1e6, why="polls of an empty queue")


@priced("AWS::SNS::Topic")
def topic(resource: Resource, context: Context) -> Iterator[Usage]:
    """Notices are few."""
    yield Usage(price="sns.request", quantity=1e-4, why="a hundred notices", state="load")


@priced("AWS::CodePipeline::Pipeline")
def pipeline(resource: Resource, context: Context) -> Iterator[Usage]:
    """Minutes of its actions (V2), or a month of it (V1)."""
    if resource.text("PipelineType") != "V2":
        yield Usage(price="codepipeline.v1", quantity=1, why="the pipeline")
        return
    actions = sum(len(stage.get("Actions", ())) for stage in resource.properties.get("Stages", ()))
    yield Usage(
        price="codepipeline.minute",
        quantity=actions * DELIVERIES,
        why=f"{DELIVERIES} deliveries a month, a minute for each of {actions} actions",
        state="load",
    )


@priced("AWS::CodeBuild::Project")
def build(resource: Resource, context: Context) -> Iterator[Usage]:
    """Minutes of its builds."""
    kind = resource.text("Environment", "ComputeType") or ""
    yield Usage(
        price=BUILDS.get(kind, f"codebuild:{kind}"),
        quantity=DELIVERIES * BUILD_MINUTES,
        why=f"{DELIVERIES} deliveries a month of {BUILD_MINUTES} minutes",
        state="load",
    )
