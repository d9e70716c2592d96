"""A challenger beside the champion, tried on live traffic (ab) or on copies of it (shadow), then judged.

::

    approval -> challenger parameter, update of the stack, a schedule for the end of the test
    alarm of the challenger rings -> rejected at once
    end of the test -> too few requests: again, at most ATTEMPTS times, then rejected
                    -> quiet: champion := challenger, challenger := none, update of the stack

Where it stands is read from the two parameters and from the stack each time, so that a message that comes
twice, late or after a crash between any two calls does what is left to do, and no more. A test has one
package; the next approval waits in the queue for its end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta

from model_promotion.cloud import NONE, Cloud, Event, Outcome, Package, Stack, described, require_updatable
from model_promotion.errors import BadMessageError, TransientError
from model_promotion.rollback import read_stack, restore_if_rolled_back
from model_promotion.settings import ChallengerTest, Settings

__all__ = ["ALARM", "ENDED", "alarm_rang", "begin_or_resume", "resume_or_end", "trial_ended"]

#: Our own schedule, in the form of an event.
ENDED = "Challenger Test Ended"
ALARM = "CloudWatch Alarm State Change"
#: How often a test with too few requests goes on, the first time included.
ATTEMPTS = 3


def begin_or_resume(
    event: Event, package: Package, stack: Stack, cloud: Cloud, settings: Settings
) -> Outcome | None:
    """Put an accepted package beside the champion, or go on with that; ``None``: nothing tries challengers.

    Raises:
        TransientError: another package is being tried.
    """
    test = settings.challenger
    if test is None:
        return None
    under_test = cloud.history(test.parameter_name)[-1].value
    if under_test not in (NONE, package.arn):
        raise TransientError(f"{under_test} is being tried; this approval waits for the end of its test")
    if under_test == NONE:
        cloud.put(test.parameter_name, package.arn, described(event, package))
    if stack.challenger != package.arn:
        cloud.update(settings.stack_name, stack.parameters)
    _Trial(cloud, settings, test, stack).plan(event.time, attempt=1)
    why = f"tried beside the champion for {test.minutes} minutes"
    return Outcome(action="testing", why=why, package=package.arn)


def trial_ended(event: Event, cloud: Cloud, settings: Settings) -> Outcome:
    """The time of a test is over: promote, reject, or go on because too little was seen."""
    arn, began = event.detail.get("ModelPackageArn"), event.detail.get("ApprovedAt")
    attempt = event.detail.get("Attempt")
    if not isinstance(arn, str) or not isinstance(began, str) or not isinstance(attempt, int):
        raise BadMessageError("the end of a test has no detail.ModelPackageArn, ApprovedAt or Attempt")
    if settings.challenger is None:
        return Outcome(action="ignored", why="the workload no longer tries challengers", package=arn)
    stack = read_stack(cloud, settings)
    require_updatable(stack, settings.stack_name)
    restored = restore_if_rolled_back(stack, cloud, settings)
    if restored is not None:
        return restored
    trial = _Trial(cloud, settings, settings.challenger, stack)
    if trial.package != arn or trial.began.isoformat() != began:
        return trial.resumed(arn)
    return trial.judged(event.time, attempt)


def alarm_rang(event: Event, cloud: Cloud, settings: Settings) -> Outcome:
    """An alarm of the serving stack went off: a challenger that it watches is rejected at once."""
    test, name, state = settings.challenger, event.detail.get("alarmName"), event.detail.get("state")
    if not isinstance(name, str) or not isinstance(state, Mapping):
        raise BadMessageError("the alarm's event has no detail.alarmName or detail.state")
    if test is None or state.get("value") != "ALARM" or name not in cloud.alarms():
        return Outcome(action="ignored", why=f"alarm {name} is no challenger's, or not in ALARM")
    stack = read_stack(cloud, settings)
    require_updatable(stack, settings.stack_name)
    restored = restore_if_rolled_back(stack, cloud, settings)
    if restored is not None:
        return restored
    trial = _Trial(cloud, settings, test, stack)
    if trial.package == NONE:
        return trial.resumed(stack.challenger)
    if event.time < trial.began:
        return Outcome(action="ignored", why="the alarm rang before this challenger was approved")
    if trial.champion == trial.package:
        why = "the challenger is being promoted already"
        return Outcome(action="ignored", why=why, package=trial.package)
    return trial.reject(f"alarm {name} went off")


def resume_or_end(
    event: Event, stack: Stack, cloud: Cloud, settings: Settings, *, grace: timedelta
) -> Outcome | None:
    """Go on with a test that no message will go on with; ``None``: there is none, and nothing lags behind."""
    test = settings.challenger
    if test is None:
        return None
    latest = max(cloud.history(name)[-1].modified for name in (settings.parameter_name, test.parameter_name))
    trial = _Trial(cloud, settings, test, stack)
    if (trial.champion, trial.package) != (stack.serves, stack.challenger):
        if event.time - latest < grace:
            return Outcome(action="ignored", why="the stack is about to follow", package=trial.package)
        package = cloud.package(trial.package)
        if package is None or trial.champion != stack.serves:
            return trial.resumed(stack.challenger)
        return begin_or_resume(replace(event, time=trial.began), package, stack, cloud, settings)
    return None if trial.package == NONE else trial.looked_after(event.time)


class _Trial:
    """The test that is under way, as the parameters tell it."""

    def __init__(self, cloud: Cloud, settings: Settings, test: ChallengerTest, stack: Stack) -> None:
        self._cloud = cloud
        self._settings = settings
        self._test = test
        self._stack = stack
        parameter = cloud.history(test.parameter_name)[-1]
        self.package = parameter.value
        self.began = parameter.approved_at
        self._description = parameter.description
        self.champion = cloud.history(settings.parameter_name)[-1].value

    def judged(self, at: datetime, attempt: int) -> Outcome:
        """Decide at the end of a test."""
        package = self._cloud.package(self.package)
        if package is None or package.approval_status != "Approved":
            status = "deleted" if package is None else package.approval_status
            return self._end(f"the package is {status} by now")
        ringing = sorted(name for name, rings in self._cloud.alarms().items() if rings)
        if ringing:
            return self.reject(f"alarm {', '.join(ringing)} is in ALARM")
        seen = self._cloud.requests(self.began, at)
        # A promotion that was cut short after the first parameter is not judged again.
        if seen < self._test.minimum_requests and self.champion != self.package:
            why = f"it had {seen} requests of at least {self._test.minimum_requests}"
            if attempt >= ATTEMPTS:
                return self.reject(why)
            self.plan(at, attempt=attempt + 1)
            return Outcome(action="testing", why=f"{why}; the test goes on", package=self.package)
        return self._promote(seen)

    def looked_after(self, at: datetime) -> Outcome:
        """End a test of which no message will: its alarm rings, or it is long over."""
        ringing = sorted(name for name, rings in self._cloud.alarms().items() if rings)
        if ringing:
            return self.reject(f"alarm {', '.join(ringing)} is in ALARM")
        # An approval may have waited a day for the stack before its test began.
        if at >= self.began + timedelta(days=1, minutes=self._test.minutes * ATTEMPTS):
            return self.judged(at, ATTEMPTS)
        return Outcome(action="ignored", why="a test is under way", package=self.package)

    def resumed(self, arn: str) -> Outcome:
        """Update a stack that lags behind its parameters: an earlier attempt ended before that call."""
        if (self.champion, self.package) == (self._stack.serves, self._stack.challenger):
            return Outcome(action="ignored", why="the test has been concluded", package=arn)
        self._update()
        action = "promoted" if self.champion == arn else "rejected"
        return Outcome(action=action, why="concluded before; the stack follows", package=arn)

    def reject(self, why: str) -> Outcome:
        """End the test and say why in the registry, which comes first: a retry does both again."""
        package = self._cloud.package(self.package)
        if package is not None and package.approval_status == "Approved":
            self._cloud.reject(self.package, f"Rejected as a challenger: {why}")
        return self._end(why)

    def plan(self, since: datetime, *, attempt: int) -> None:
        """Plan the end of the test; its name is made of what it ends, so that twice is once."""
        # The approval may have waited; a time that has passed would be no test.
        when = max(since, self._cloud.now()) + timedelta(minutes=self._test.minutes)
        version = self.package.rsplit("/", 1)[-1]
        name = f"{self._test.schedule_prefix}-{version}-{self.began:%Y%m%d%H%M%S}-{attempt}"
        detail = {
            "ModelPackageArn": self.package,
            "ApprovedAt": self.began.isoformat(),
            "Attempt": attempt,
        }
        body = {"id": name, "detail-type": ENDED, "time": when.isoformat(), "detail": detail}
        self._cloud.schedule(name, when, body)

    def _promote(self, seen: int) -> Outcome:
        if self.champion != self.package:
            told = f"{self._description}; promoted after {seen} requests without an alarm"
            self._cloud.put(self._settings.parameter_name, self.package, told)
        self._clear(f"{self.package} was promoted")
        self._update()
        return Outcome(
            action="promoted",
            why=f"no alarm in {self._test.minutes} minutes and {seen} requests",
            package=self.package,
            fields={"replaces": self.champion},
        )

    def _end(self, why: str) -> Outcome:
        self._clear(f"{self.package} was rejected: {why}")
        self._update()
        return Outcome(
            action="rejected", why=why, package=self.package, fields={"serves": self._stack.serves}
        )

    def _clear(self, why: str) -> None:
        # The approval's time stays: what was approved during the test is newer than it.
        told = f"approved_at={self.began.isoformat()} {why}"
        self._cloud.put(self._test.parameter_name, NONE, told)

    def _update(self) -> None:
        self._cloud.update(self._settings.stack_name, self._stack.parameters)
