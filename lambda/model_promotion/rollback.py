"""An update of the serving stack was rolled back: the registry and the parameters follow what really runs."""

from __future__ import annotations

from collections.abc import Mapping

from model_promotion.cloud import EARLIEST, NONE, ROLLED_BACK, Cloud, Event, Outcome, ParameterVersion, Stack
from model_promotion.errors import BadMessageError, MisconfiguredError
from model_promotion.settings import Settings

__all__ = ["read_stack", "restore_if_rolled_back", "rolled_back"]


def read_stack(cloud: Cloud, settings: Settings) -> Stack:
    """The serving stack, with both parameters where there are two."""
    challenger = None if settings.challenger is None else settings.challenger.parameter_name
    return cloud.stack(settings.stack_name, settings.parameter_name, challenger)


def rolled_back(event: Event, cloud: Cloud, settings: Settings) -> Outcome:
    """Handle CloudFormation's event of a rollback."""
    stack_id, details = event.detail.get("stack-id"), event.detail.get("status-details")
    if not isinstance(stack_id, str) or not isinstance(details, Mapping):
        raise BadMessageError("the stack event has no detail.stack-id or detail.status-details")

    def ignored(why: str) -> Outcome:
        return Outcome(action="ignored", why=why)

    # arn:{partition}:cloudformation:{region}:{account}:stack/{name}/{unique id}
    parts = stack_id.split("/")
    if len(parts) < 2 or parts[1] != settings.stack_name:
        return ignored(f"the event is of stack {stack_id}, not of {settings.stack_name}")
    if details.get("status") != ROLLED_BACK:
        return ignored(f"the event says {details.get('status')}, not {ROLLED_BACK}")
    stack = read_stack(cloud, settings)
    if stack.status != ROLLED_BACK:
        return ignored(f"the stack is {stack.status} by now")
    restored = restore_if_rolled_back(stack, cloud, settings)
    if restored is not None:
        return restored
    if cloud.history(settings.parameter_name)[-1].value == stack.serves:
        return ignored("the parameter is what the stack runs; another change was rolled back")
    return ignored("the parameter was written after that update; its own update follows")


def restore_if_rolled_back(stack: Stack, cloud: Cloud, settings: Settings) -> Outcome | None:
    """Undo what the stack did not keep; ``None`` when nothing is to be undone.

    The rejection comes first: should a later call fail, the retry finds the same difference and does it all.
    """
    champion = cloud.history(settings.parameter_name)[-1]
    test = settings.challenger
    if _was_rolled_back(champion, stack, stack.serves):
        restored = _restore(champion, stack, cloud, settings)
        if test is not None and stack.challenger == champion.value:
            # What was promoted from a test still stands beside the champion; it goes with its promotion.
            if cloud.history(test.parameter_name)[-1].value != NONE:
                cloud.put(test.parameter_name, NONE, f"ended with the rollback of {champion.value}")
            cloud.update(settings.stack_name, stack.parameters)
        return restored
    if test is None:
        return None
    challenger = cloud.history(test.parameter_name)[-1]
    if challenger.value == NONE or not _was_rolled_back(challenger, stack, stack.challenger):
        return None
    reason = _reason(stack, cloud, settings)
    if cloud.package(challenger.value) is not None:
        cloud.reject(challenger.value, reason)
    cloud.put(
        test.parameter_name, NONE, f"{_approved_at(challenger)}ended by the rollback of {challenger.value}"
    )
    return Outcome(
        action="restored", why=reason, package=challenger.value, fields={"serves": stack.serves, "version": 0}
    )


def _was_rolled_back(parameter: ParameterVersion, stack: Stack, runs: str) -> bool:
    """Whether the stack's last update came after the parameter was written, and failed."""
    return (
        stack.status == ROLLED_BACK
        and parameter.value != runs
        and stack.updated is not None
        and parameter.modified <= stack.updated
    )


def _approved_at(parameter: ParameterVersion) -> str:
    # The approval's time stays: an approval given while this one was being deployed is still newer than it.
    return "" if parameter.approved_at == EARLIEST else f"approved_at={parameter.approved_at.isoformat()} "


def _reason(stack: Stack, cloud: Cloud, settings: Settings) -> str:
    """Why the update failed: what the resources said, since the stack itself names them only."""
    said = cloud.failures(settings.stack_name, stack.updated)
    why = "; ".join(said) or stack.status_reason or "the deployment did not become stable"
    return f"Rolled back by CloudFormation: {why}"


def _restore(parameter: ParameterVersion, stack: Stack, cloud: Cloud, settings: Settings) -> Outcome:
    """Reject what was rolled back and set the parameter to what the stack still runs."""
    versions = [v.value for v in cloud.history(settings.parameter_name)]
    if stack.serves not in versions:
        raise MisconfiguredError(
            f"stack {settings.stack_name} runs {stack.serves}, "
            f"which parameter {settings.parameter_name} never was"
        )
    failed = parameter.value
    reason = _reason(stack, cloud, settings)
    if cloud.package(failed) is not None:
        cloud.reject(failed, reason)
    cloud.put(
        settings.parameter_name,
        stack.serves,
        f"{_approved_at(parameter)}restored after the rollback of {failed}",
    )
    return Outcome(
        action="restored",
        why=reason,
        package=failed,
        fields={"serves": stack.serves, "version": len(versions) - versions[::-1].index(stack.serves)},
    )
