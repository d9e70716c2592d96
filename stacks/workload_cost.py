"""A workload's running parts stop while nobody uses them, where the environment wants that."""

from __future__ import annotations

from typing import cast

import aws_cdk as cdk
from ml_contract.load import LoadedWorkload
from ml_lifecycle.cost import IdleStop, RunState
from ml_lifecycle.serving import SageMakerEndpoint

from environments import Environment
from stacks.foundation import FoundationStack
from stacks.workload_data import WorkloadDataStack
from stacks.workload_models import WorkloadModelsStack
from stacks.workload_operations import WorkloadOperationsStack
from stacks.workload_serving import WorkloadServingStack
from stacks.workload_windows import WorkloadWindowsStack

#: Styles whose instances cost while nobody asks; the others bill by the request.
ALWAYS_ON = ("asynchronous", "inference_components", "multi_model", "real_time")


def stop_when_idle(
    *,
    environment: Environment,
    workload: LoadedWorkload,
    foundation: FoundationStack,
    data: WorkloadDataStack,
    models: WorkloadModelsStack,
    serving: WorkloadServingStack,
    operations: WorkloadOperationsStack,
    windows: WorkloadWindowsStack | None,
) -> IdleStop | None:
    """Let the endpoint, Flink's windows and the monitors' runs stop; ``None`` when nothing of it would cost.

    An endpoint with scheduled batch transforms beside it is left alone: they use the model unasked.
    """
    hours, spec = environment.cost.stop_idle_after_hours, workload.workload
    served = serving.served
    endpoint = (
        served
        if isinstance(served, SageMakerEndpoint)
        and spec.serving.style in ALWAYS_ON
        and spec.serving.batch is None
        else None
    )
    if hours is None or (endpoint is None and windows is None):
        return None
    state = RunState(
        data,
        "RunState",
        name=f"/ml-lifecycle/{environment.name}/{spec.slug}/run-state",
        log_key=foundation.keys.logs,
        log_retention_days=environment.retention.log_days,
    )
    stacks: list[cdk.Stack] = []
    if endpoint is not None:
        state.narrow(endpoint.condition)
        # A promotion updates the stack: CloudFormation reads its parameters as who does.
        state.grant_read(models.registry.promotion)
        stacks.append(serving)
        for monitor in operations.monitors:
            if monitor.engine == "processing":
                running = state.condition(operations)
                monitor.schedule.state = cdk.Fn.condition_if(
                    running.logical_id, "ENABLED", "DISABLED"
                ).to_string()
                stacks.append(operations)
    if windows is not None:
        starter = cast(cdk.CfnResource, windows.windows.starter.node.default_child)
        starter.cfn_options.condition = state.condition(windows)
        stacks.append(windows)
    stacks = list(dict.fromkeys(stacks))
    for stack in stacks:
        stack.add_stack_dependency(data)
    idle = IdleStop(
        operations,
        "Idle",
        workload=spec.name,
        environment_name=environment.name,
        state=state,
        stacks=[stack.stack_name for stack in stacks],
        endpoint_name=None if endpoint is None else endpoint.endpoint_name,
        after_hours=hours,
        message_key=foundation.keys.messages,
        log_key=foundation.keys.logs,
        topic=foundation.stakeholders.topic,
        alarm_topic=foundation.notices.topic,
        streams=[] if windows is None else [data.ingestion.stream.stream_name],
        read=[
            name
            for name in (
                models.registry.approval_parameter_name,
                models.registry.challenger_parameter_name,
            )
            if name is not None
        ],
        log_retention_days=environment.retention.log_days,
    )
    cdk.CfnOutput(operations, "IdleFunctionName", value=idle.function.function_name)
    cdk.CfnOutput(operations, "RunStateParameter", value=state.parameter_name)
    return idle
