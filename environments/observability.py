"""What an environment shows of itself beyond its workloads."""

from __future__ import annotations

from dataclasses import dataclass

from environments.refusal import refuse

__all__ = ["Observability", "Tracing"]


@dataclass(frozen=True, kw_only=True)
class Tracing:
    """Where spans go: an OpenTelemetry collector, by OTLP over HTTP.

    ``endpoint`` is its base URL (``/v1/traces`` is put after it), one that a function outside a VPC reaches;
    ``None`` is X-Ray's own OTLP endpoint. ``sample_ratio`` is the share of the traces that begin here; a
    caller's own decision is kept.
    """

    endpoint: str | None = None
    sample_ratio: float = 0.05

    def __post_init__(self) -> None:
        problems = []
        if self.endpoint is not None and (
            not self.endpoint.startswith(("http://", "https://")) or self.endpoint.endswith("/")
        ):
            problems.append(
                f"endpoint must be an http or https URL without a slash at its end, got {self.endpoint!r}"
            )
        if not 0 < self.sample_ratio <= 1:
            problems.append(f"sample_ratio must be above 0 and at most 1, got {self.sample_ratio}")
        refuse("tracing", problems)


@dataclass(frozen=True, kw_only=True)
class Observability:
    """What is watched of the environment as a whole; all of it costs, so all of it is off.

    ``platform`` adds a dashboard of all workloads (3 USD a month beyond an account's third, CloudWatch
    pricing), a page over all models (``<artifacts>/model-dashboard/index.html``, written every hour) and an
    alarm on throttled functions (0.10 USD a month).

    ``silent_endpoint_hours`` alarms when nobody has asked an endpoint for so long (0.10 USD a month and
    endpoint); ``None``: silence is nothing to tell.
    """

    platform: bool = False
    silent_endpoint_hours: int | None = None

    def __post_init__(self) -> None:
        # CloudWatch, PutMetricAlarm: periods of an hour or more, all of them within a week.
        hours = self.silent_endpoint_hours
        if hours is not None and not 1 <= hours <= 168:
            refuse(
                "observability",
                [f"silent_endpoint_hours must be between 1 and 168 (a week) or None, got {hours}"],
            )
