"""How SageMaker moves traffic to a new model: blue/green, in batches, and what turns it back."""

from __future__ import annotations

from collections.abc import Sequence

from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_sagemaker as sagemaker
from ml_contract.spec.serving import Rollout, Serving

__all__ = ["component_deployment", "deployment", "refuse_unwatched"]

#: UpdateEndpoint, BlueGreenUpdatePolicy.MaximumExecutionTimeoutInSeconds: ten minutes to eight hours.
_SHORTEST_ROLLOUT, _LONGEST_ROLLOUT = 600, 28_800
#: A linear step is 10 to 50 percent of the fleet (UpdateEndpoint, TrafficRoutingConfig.LinearStepSize).
_SMALLEST_LINEAR_PERCENT = 10
#: What provisioning and draining a fleet takes beside the baking; the rest of the time a rollout is given.
_FLEET_SECONDS = 3_600
#: The old fleet answers for this long after the shift, so that a late alarm can still turn back.
_TERMINATION_WAIT_SECONDS = 120


def refuse_unwatched(serving: Serving) -> None:
    """Refuse a rollout that SageMaker refuses, or would do without a look at its alarms.

    Endpoints on Inf1 have no deployment guardrails: they move all at once, unwatched by any alarm
    (SageMaker Developer Guide, deployment guardrails, "Exclusions").
    """
    if serving.instance_type.startswith("ml.inf1."):
        raise ValueError(
            f"serving.instance_type must not be one of Inf1, got {serving.instance_type}: "
            "SageMaker rolls such an endpoint out all at once and rolls back on no alarm; "
            "use ml.inf2.xlarge or larger"
        )
    rollout = serving.rollout
    # A canary has no least size; a linear step has (TrafficRoutingConfig, LinearStepSize).
    if rollout.strategy == "linear" and rollout.step_percent < _SMALLEST_LINEAR_PERCENT:
        raise ValueError(
            f"serving.rollout.step_percent must be between {_SMALLEST_LINEAR_PERCENT} and 50 with "
            f"strategy linear, got {rollout.step_percent}; raise it or use strategy canary"
        )


def deployment(
    rollout: Rollout, alarms: Sequence[cloudwatch.IAlarm]
) -> sagemaker.CfnEndpoint.DeploymentConfigProperty | None:
    """Return how an endpoint is updated.

    ``None`` for ab and shadow: a deployment configuration wants the same variants before and after
    (SageMaker Developer Guide, deployment guardrails, "Exclusions"), and a challenger comes and goes. Such
    an endpoint moves all at once; it is the test that shows whether the challenger is any good.
    """
    if rollout.strategy in ("ab", "shadow"):
        return None
    rolling = rollout.strategy == "rolling"
    return sagemaker.CfnEndpoint.DeploymentConfigProperty(
        blue_green_update_policy=None
        if rolling
        else sagemaker.CfnEndpoint.BlueGreenUpdatePolicyProperty(
            traffic_routing_configuration=_routing(rollout),
            termination_wait_in_seconds=_TERMINATION_WAIT_SECONDS,
            maximum_execution_timeout_in_seconds=_timeout(rollout),
        ),
        rolling_update_policy=sagemaker.CfnEndpoint.RollingUpdatePolicyProperty(
            maximum_batch_size=_size(rollout),
            wait_interval_in_seconds=rollout.bake_minutes * 60,
            maximum_execution_timeout_in_seconds=_timeout(rollout),
            # Back at once: without it SageMaker brings up the whole old fleet again, which is what we want.
            rollback_maximum_batch_size=None,
        )
        if rolling
        else None,
        auto_rollback_configuration=sagemaker.CfnEndpoint.AutoRollbackConfigProperty(
            alarms=[sagemaker.CfnEndpoint.AlarmProperty(alarm_name=alarm.alarm_name) for alarm in alarms]
        ),
    )


def component_deployment(
    rollout: Rollout, alarms: Sequence[cloudwatch.IAlarm]
) -> sagemaker.CfnInferenceComponent.InferenceComponentDeploymentConfigProperty:
    """Return how the copies of an inference component are replaced: batch by batch."""
    part = sagemaker.CfnInferenceComponent
    return part.InferenceComponentDeploymentConfigProperty(
        rolling_update_policy=part.InferenceComponentRollingUpdatePolicyProperty(
            maximum_batch_size=part.InferenceComponentCapacitySizeProperty(
                type="CAPACITY_PERCENT", value=rollout.step_percent
            ),
            wait_interval_in_seconds=rollout.bake_minutes * 60,
            maximum_execution_timeout_in_seconds=_timeout(rollout),
        ),
        auto_rollback_configuration=part.AutoRollbackConfigurationProperty(
            alarms=[part.AlarmProperty(alarm_name=alarm.alarm_name) for alarm in alarms]
        ),
    )


def _routing(rollout: Rollout) -> sagemaker.CfnEndpoint.TrafficRoutingConfigProperty:
    return sagemaker.CfnEndpoint.TrafficRoutingConfigProperty(
        type=rollout.strategy.upper(),
        wait_interval_in_seconds=rollout.bake_minutes * 60,
        canary_size=_size(rollout) if rollout.strategy == "canary" else None,
        linear_step_size=_size(rollout) if rollout.strategy == "linear" else None,
    )


def _size(rollout: Rollout) -> sagemaker.CfnEndpoint.CapacitySizeProperty:
    return sagemaker.CfnEndpoint.CapacitySizeProperty(type="CAPACITY_PERCENT", value=rollout.step_percent)


def _timeout(rollout: Rollout) -> int:
    # A canary bakes after its first step and after the rest; linear and rolling after each step.
    each = -(-100 // rollout.step_percent)
    steps = {"all_at_once": 1, "canary": 2}.get(rollout.strategy, each)
    seconds = steps * rollout.bake_minutes * 60 + _TERMINATION_WAIT_SECONDS + _FLEET_SECONDS
    if seconds > _LONGEST_ROLLOUT:
        raise ValueError(
            f"serving.rollout must end within {_LONGEST_ROLLOUT // 60} minutes, got {steps} steps of "
            f"{rollout.bake_minutes} minutes and an hour for the fleets ({seconds // 60} minutes); "
            "raise step_percent or lower bake_minutes"
        )
    return max(_SHORTEST_ROLLOUT, seconds)
