"""The one place that reaches into ministack, the embedded AWS.

Everything else uses AWS's public APIs. Each function here leans on something that ministack does not
promise, so its version is pinned and checked, and each has a test in
``tests/rehearsal_core/test_ministack_bridge.py``. ministack is imported inside the functions: it reads its
environment when it is imported, which `configure` sets first.
"""

from __future__ import annotations

import importlib
import json
import os
import threading
import time as _real_time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from datetime import datetime
from importlib.metadata import version
from types import ModuleType, SimpleNamespace
from typing import Any
from urllib.parse import parse_qs

__all__ = [
    "PINNED_VERSION",
    "Check",
    "Decision",
    "Policy",
    "access_denied",
    "account_scope",
    "application",
    "checks_of",
    "configure",
    "decide",
    "emit_event",
    "see_again",
    "use_lambda_credentials",
]

#: The version whose inside the functions below know.
PINNED_VERSION = "1.5.33"


def check_version() -> None:
    """Raise when another version of ministack is installed than the one this module knows."""
    installed = version("ministack")
    if installed != PINNED_VERSION:
        raise RuntimeError(
            f"ministack {installed} is installed, but the rehearsal reaches into {PINNED_VERSION}; run "
            f"'make setup', or raise PINNED_VERSION once tests/rehearsal_core/test_ministack_bridge.py passes"
        )


def configure(*, port: int, account: str, region: str, state: str) -> None:
    """Set the environment that ministack reads when it is imported."""
    check_version()
    os.environ.update(
        GATEWAY_PORT=str(port),
        # Its default is every network interface.
        BIND_HOST="127.0.0.1",
        MINISTACK_HOST="127.0.0.1",
        MINISTACK_ACCOUNT_ID=account,
        MINISTACK_REGION=region,
        # No listeners beside the gateway.
        IOT_MTLS_ENABLED="0",
        SFTP_ENABLED="0",
        PERSIST_STATE="0",
        LOG_LEVEL="WARNING",
        # A dead address: the user's Docker daemon is never touched.
        DOCKER_HOST="tcp://127.0.0.1:1",
        # Functions run as local processes of this machine's Python.
        LAMBDA_EXECUTOR="local",
        AWS_ACCESS_KEY_ID=account,
        AWS_SECRET_ACCESS_KEY="rehearsal",  # noqa: S106 - nothing checks it
        AWS_DEFAULT_REGION=region,
        TMPDIR=state,
    )
    for name in ("AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_REGION"):
        os.environ.pop(name, None)


def application() -> Callable[..., Any]:
    """Return ministack's ASGI application."""
    app = importlib.import_module("ministack.app")
    return app.app  # type: ignore[no-any-return]


def service_names() -> frozenset[str]:
    """Return the names under which ministack serves services."""
    return frozenset(importlib.import_module("ministack.app").SERVICE_HANDLERS)


def account_scope(account: str, region: str) -> AbstractContextManager[None]:
    """Pin the account and region that ministack's stores are read and written under."""
    responses = importlib.import_module("ministack.core.responses")
    return responses.request_scope(account, region)  # type: ignore[no-any-return]


# -- events -------------------------------------------------------------------------------------------------


def emit_event(
    *,
    source: str,
    detail_type: str,
    detail: Mapping[str, Any],
    resources: Sequence[str],
    account: str,
    region: str,
    time: datetime,
) -> None:
    """Put an event on the default bus as an AWS service does (PutEvents refuses sources that begin with
    ``aws.``).
    """
    eventbridge = importlib.import_module("ministack.services.eventbridge")
    record = {
        "EventId": str(uuid.uuid4()),
        "Source": source,
        "DetailType": detail_type,
        "Detail": json.dumps(detail, default=_json_value),
        "EventBusName": "default",
        "Time": int(time.timestamp()),
        "Resources": list(resources),
        "Account": account,
        "Region": region,
    }
    with account_scope(account, region):
        view = eventbridge._pattern_event_view(record)
        eventbridge._events_log_list().append(record)
        eventbridge._dispatch_event(record, view)
        eventbridge._archive_event(record, view)


def _json_value(value: object) -> object:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{value!r} of type {type(value).__name__} cannot be part of an event")


# -- Lambda -------------------------------------------------------------------------------------------------


def use_lambda_credentials(credentials: Callable[[str, str], Mapping[str, str]]) -> None:
    """Give each function the credentials that ``credentials(role_arn, function_name)`` returns.

    Without this a function acts as the account's root.
    """

    def execution_credentials(config: Mapping[str, Any]) -> dict[str, str]:
        return dict(credentials(config["Role"], config["FunctionName"]))

    for name in ("ministack.core.lambda_runtime", "ministack.services.lambda_svc"):
        _replace(importlib.import_module(name), "execution_credentials", execution_credentials)


def register_session(access_key_id: str, *, role_arn: str, session: str, secret: str, token: str) -> None:
    """Let STS know an access key that stands for a role, so that ``GetCallerIdentity`` answers it."""
    sts = importlib.import_module("ministack.services.sts")
    account, name = role_arn.split(":")[4], role_arn.rsplit("/", 1)[-1]
    sts.register_session(
        access_key_id,
        {
            "Arn": f"arn:aws:sts::{account}:assumed-role/{name}/{session}",
            "UserId": f"{name}:{session}",
            "SecretAccessKey": secret,
            "SessionToken": token,
        },
    )


def session_role(access_key_id: str) -> str | None:
    """Return the assumed-role ARN of a session that STS issued, None for a key that is none."""
    sts = importlib.import_module("ministack.services.sts")
    session = sts._sessions.get(access_key_id)
    arn = None if session is None else str(session.get("Arn", ""))
    return arn if arn is not None and ":assumed-role/" in arn else None


# -- IAM ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Check:
    """One permission that a call needs."""

    action: str
    resource: str
    context: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Policy:
    """One policy document of a role: its name and its statements as ministack parsed them."""

    name: str
    statements: tuple[Any, ...]


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What the policies say to a check; ``grants`` are the (policy, statement number) that allowed it."""

    allowed: bool
    explicit_deny: bool
    resource_policy_arn: str
    grants: tuple[tuple[str, int], ...]


def request_service(method: str, path: str, headers: dict[str, str], query: dict[str, list[str]]) -> str:
    """Return which of ministack's services a request is for."""
    router = importlib.import_module("ministack.core.router")
    return str(router.detect_service(method, path, headers, query))


def checks_of(
    method: str,
    path: str,
    headers: dict[str, str],
    query: dict[str, list[str]],
    body: bytes,
    *,
    account: str,
    region: str,
) -> tuple[str, list[Check]]:
    """Return the service of a request and the permissions that it needs.

    Empty when ministack knows no action for it; the caller refuses such a call of a role.
    """
    app = importlib.import_module("ministack.app")
    actions = importlib.import_module("ministack.core.iam_actions")
    with account_scope(account, region):
        params = app._routing_params(method, path, headers, body, query)
        service = request_service(method, path, headers, params)
        action = actions.extract_iam_action(service, method, path, headers, body, params)
        if action is None:
            return service, []
        resource = actions.extract_resource_arn(service, method, path, headers, body, params, region, account)
        context: dict[str, Any] = dict(actions.request_tag_context(service, action, body, params))
        checks: list[Check] = []
        if service == "s3":
            merged = importlib.import_module("ministack.services.s3")._merge_hoisted_amz_headers(
                headers, query
            )
            context.update(actions.s3_service_context(action, query, path, merged))
            checks += [
                Check(action=extra, resource=arn)
                for extra, arn in actions.s3_additional_checks(method, path, merged, body, params)
            ]
        elif service == "dynamodb":
            context.update(actions.dynamodb_service_context(body))
        elif service == "events":
            arns = actions.eventbridge_resource_arns(body, region, account)[1:]
            checks += [Check(action=action, resource=arn) for arn in arns]
        elif service == "monitoring":
            context.update(_cloudwatch_context(action, headers, body, params))
            if action == "cloudwatch:DescribeAlarms":
                # By name each alarm is the resource, else all of them; ministack leaves it open.
                names = _cloudwatch_data(headers, body, params).get("AlarmNames") or ["*"]
                resource, *further = [f"arn:aws:cloudwatch:{region}:{account}:alarm:{name}" for name in names]
                checks += [Check(action=action, resource=arn) for arn in further]
        elif service == "glue" and action in ("glue:GetConnection", "glue:DeleteConnection"):
            # The catalog and the connection (Service Authorization Reference); ministack says a table.
            base = f"arn:aws:glue:{region}:{account}"
            name = _json_value_of(body, "Name") or _json_value_of(body, "ConnectionName")
            resource = f"{base}:connection/{name}"
            checks.append(Check(action=action, resource=f"{base}:catalog"))
        elif service == "scheduler" and ":schedule/default/" in resource:
            # A schedule's ARN holds its group; ministack takes each for one of the default group.
            group = _json_value_of(body, "GroupName") or next(iter(query.get("groupName", ())), "default")
            resource = resource.replace(":schedule/default/", f":schedule/{group}/")
        elif service == "states" and action.startswith("states:SendTask"):
            # AWS names the state machine that waits; ministack leaves the resource open.
            resource = _machine_of_token.get(str(_json_value_of(body, "taskToken")), resource)
        elif service == "logs" and resource.count(":") == 6 and not action.endswith("TagResource"):
            # CloudWatch Logs checks a call for a whole group against the group's ARN with an empty stream.
            resource = f"{resource}:log-stream:"
        return service, [Check(action=action, resource=resource, context=context), *checks]


def _json_value_of(body: bytes, name: str) -> object:
    """A member of a request's JSON body, ``None`` when there is none."""
    try:
        found = json.loads(body)
    except ValueError:
        return None
    return found.get(name) if isinstance(found, dict) else None


def _cloudwatch_context(
    action: str, headers: Mapping[str, str], body: bytes, params: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the condition keys of CloudWatch that ministack does not fill: the namespace of metric data."""
    if action != "cloudwatch:PutMetricData":
        return {}
    data = _cloudwatch_data(headers, body, params)
    return {"cloudwatch:namespace": str(data.get("Namespace", ""))}


def _cloudwatch_data(headers: Mapping[str, str], body: bytes, params: Mapping[str, Any]) -> Mapping[str, Any]:
    """The parameters of a request to CloudWatch in whichever of its protocols it came."""
    if "cbor" in headers.get("smithy-protocol", headers.get("content-type", "")):
        found: Any = importlib.import_module("cbor2").loads(body)
    elif "json" in headers.get("content-type", ""):
        found = json.loads(body)
    else:
        given = params.get("Namespace", "")
        names = [params[key] for key in sorted(params) if key.startswith("AlarmNames.member.")]
        found = {
            "Namespace": given[0] if isinstance(given, list) else given,
            "AlarmNames": [name[0] if isinstance(name, list) else name for name in names],
        }
    return dict(found)


def role_policies(role_arn: str) -> tuple[tuple[Policy, ...], list[list[list[Any]]]] | None:
    """Return the policies of a role and its permissions boundary; None when there is no such role."""
    iam = importlib.import_module("ministack.services.iam")
    evaluator = importlib.import_module("ministack.core.iam_evaluator")
    account, name = role_arn.split(":")[4], role_arn.rsplit("/", 1)[-1]
    role = iam._roles.get_scoped(account, None, name)
    if role is None:
        return None
    policies = [
        Policy(name=policy, statements=tuple(evaluator.parse_policy_document(document)))
        for policy, document in (role.get("InlinePolicies") or {}).items()
    ]
    for arn in role.get("AttachedPolicies", []):
        document = evaluator._resolve_managed_policy_document(arn, account)
        if document:
            policies.append(Policy(name=arn, statements=tuple(evaluator.parse_policy_document(document))))
    return tuple(policies), evaluator._permissions_boundary(iam._roles, name, account)


def role_arns(account: str) -> tuple[str, ...]:
    """Return the ARNs of every role of an account."""
    iam = importlib.import_module("ministack.services.iam")
    with account_scope(account, "us-east-1"):
        return tuple(role["Arn"] for role in iam._roles.values())


def trusts(role_arn: str, service_principal: str, *, tells_source: bool = True) -> bool:
    """Say whether a role's trust policy lets a service assume it.

    A statement with a condition on the source (``aws:SourceAccount``, ``aws:SourceArn``) lets in nobody who
    does not tell it.
    """
    iam = importlib.import_module("ministack.services.iam")
    evaluator = importlib.import_module("ministack.core.iam_evaluator")
    role = iam._roles.get_scoped(role_arn.split(":")[4], None, role_arn.rsplit("/", 1)[-1])
    if role is None:
        return False
    document = role.get("AssumeRolePolicyDocument") or "{}"
    parsed = json.loads(document) if isinstance(document, str) else document
    statements = parsed.get("Statement", [])
    for statement in statements if isinstance(statements, list) else [statements]:
        principal = statement.get("Principal", {})
        if not tells_source and "aws:source" in json.dumps(statement.get("Condition", {})).lower():
            continue
        if statement.get("Effect") == "Allow" and isinstance(principal, dict):
            services = principal.get("Service", [])
            if evaluator._service_principal_matches({"Service": services}, service_principal):
                return True
    return False


def action_matches(action: str, pattern: str) -> bool:
    """Say whether an action is meant by a pattern of a policy."""
    evaluator = importlib.import_module("ministack.core.iam_evaluator")
    return bool(evaluator.fnmatch_iam(action, pattern))


def decide(
    check: Check,
    *,
    service: str,
    principal: str,
    account: str,
    region: str,
    policies: Iterable[Policy],
    boundary: list[list[list[Any]]],
) -> Decision:
    """Evaluate a check against a role's policies and the resource's own, with ministack's evaluator.

    ``principal`` is the assumed-role ARN of the caller.
    """
    evaluator = importlib.import_module("ministack.core.iam_evaluator")
    documents = list(policies)
    layers = [list(policy.statements) for policy in documents]
    context = {key.lower(): value for key, value in check.context.items()}
    context.setdefault("aws:tagkeys", None)
    with account_scope(account, region):
        if evaluator._names_condition_key(layers, "aws:resourcetag/"):
            tagging = importlib.import_module("ministack.services.tagging")
            for key, value in (tagging.resource_tags(check.resource) or {}).items():
                context.setdefault(f"aws:resourcetag/{key}".lower(), value)
        request = evaluator.EvalContext(
            principal_arn=principal,
            principal_type="AssumedRole",
            principal_account=account,
            action=check.action,
            resource_arn=check.resource,
            region=region,
            # The gateway listens on plain HTTP on this machine only; an SDK talks to AWS by TLS.
            secure_transport=True,
            service_context=context,
        )
        result = evaluator.evaluate(request, layers, *boundary)
        own = evaluator._resource_policy(service, check.resource)
        if own is not None:
            result = evaluator.combine_resource_policy(
                result, request, *own, required=service == "kms", limits=tuple(boundary)
            )
        grants = tuple(
            (policy.name, number)
            for policy in documents
            for number, statement in enumerate(policy.statements)
            if statement.effect == "Allow" and evaluator._first_match(request, [statement], "Allow")
        )
    return Decision(
        allowed=result.decision == "Allow",
        explicit_deny=result.decision == "Deny",
        resource_policy_arn=str(result.resource_policy_arn),
        grants=grants,
    )


def add_resource_policies(service: str, lookup: Callable[[str], tuple[str | None, str] | None]) -> None:
    """Hold calls to the policies of a service's resources.

    ``lookup(resource ARN)`` returns the policy of a resource, None without one, and the account that owns
    it; None for a resource that takes no policy.
    """
    evaluator = importlib.import_module("ministack.core.iam_evaluator")
    original = evaluator._resource_policy

    def policy_of(name: str, resource: str) -> Any:
        return lookup(resource) if name == service else original(name, resource)

    _replace(evaluator, "_resource_policy", policy_of)


def access_denied(
    check: Check,
    decision: Decision,
    *,
    service: str,
    principal: str,
    headers: dict[str, str],
    request_id: str,
) -> tuple[int, dict[str, str], bytes]:
    """Return the answer of a refused call in the service's own protocol and words."""
    actions = importlib.import_module("ministack.core.iam_actions")
    named = replace(check, resource=f'"{check.resource}"') if service == "s3" else check
    by_resource = decision.explicit_deny and decision.resource_policy_arn
    status, out, body = actions.access_denied_response(
        service,
        check.action,
        principal,
        request_id,
        # ministack's own text leaves the resource out where AWS names it.
        message="" if by_resource else denial_message(named, decision, principal),
        headers=headers,
        resource_arn=check.resource,
        explicit_deny=decision.explicit_deny,
        resource_policy_arn=decision.resource_policy_arn,
    )
    return int(status), dict(out), bytes(body)


def denial_message(check: Check, decision: Decision, principal: str) -> str:
    """Return AWS's sentence for a refused call."""
    actions = importlib.import_module("ministack.core.iam_actions")
    return str(
        actions.identity_denial_message(check.action, principal, check.resource, decision.explicit_deny)
    )


def bucket_kms_key(bucket: str, account: str, region: str) -> str | None:
    """Return the KMS key id or ARN that a bucket encrypts new objects with by default, None without one."""
    s3 = importlib.import_module("ministack.services.s3")
    with account_scope(account, region):
        raw = s3._bucket_encryption.get(bucket)
    if not raw:
        return None
    root = importlib.import_module("xml.etree.ElementTree").fromstring(raw)
    found = {node.tag.rpartition("}")[2]: node.text for node in root.iter()}
    if not str(found.get("SSEAlgorithm", "")).startswith("aws:kms"):
        return None
    return found.get("KMSMasterKeyID")


# -- time, alarms and schedules -----------------------------------------------------------------------------


def use_clock(now: Callable[[], float]) -> None:
    """Let CloudWatch, EventBridge and EventBridge Scheduler read another clock than the machine's.

    Their own timers are switched off: who brings the clock fires schedules and evaluates alarms too.
    """
    clock = SimpleNamespace(time=now, sleep=_real_time.sleep)
    services = {n: importlib.import_module(f"ministack.services.{n}") for n in ("eventbridge", "scheduler")}
    _replace(importlib.import_module("ministack.services.cloudwatch"), "time", clock)
    _replace(services["scheduler"], "time", clock)
    # Only the times that EventBridge shows: what it puts into a queue is due by the queue's own clock.
    _replace(services["eventbridge"], "_now_ts", now)
    for module in services.values():
        _replace(module, "start_scheduler", lambda: None)


def _replace(module: ModuleType, name: str, value: object) -> None:
    """Put something else under a name of a module of ministack; the name must be there."""
    if name not in vars(module):
        raise RuntimeError(f"{module.__name__} has no {name}; the rehearsal knows ministack {PINNED_VERSION}")
    vars(module)[name] = value


def use_own_alarms() -> None:
    """Stop ministack's evaluation of alarms and let alarms keep their metric math.

    Its evaluation looks at all dimensions of a metric together and knows neither periods nor missing data.
    """
    cloudwatch = importlib.import_module("ministack.services.cloudwatch")
    provisioners = importlib.import_module("ministack.services.cloudformation.provisioners")
    _replace(cloudwatch, "_evaluate_alarm", lambda _alarm: None)
    record, put = provisioners._cw_metric_alarm_record, cloudwatch._put_metric_alarm

    def keep_metrics(alarm: dict[str, Any], metrics: list[Any]) -> None:
        for key in (
            "MetricName",
            "Namespace",
            "Statistic",
            "ExtendedStatistic",
            "Period",
            "Dimensions",
            "Unit",
        ):
            alarm.pop(key, None)
        alarm["Metrics"] = metrics

    def record_with_metrics(name: str, props: dict[str, Any]) -> dict[str, Any]:
        metrics = props.get("Metrics")
        if not metrics:
            return record(name, props)  # type: ignore[no-any-return]
        plain = {**props, "MetricName": "-", "Namespace": "-"}
        del plain["Metrics"]
        alarm: dict[str, Any] = record(name, plain)
        keep_metrics(alarm, [_typed_metric(metric) for metric in metrics])
        return alarm

    def put_with_metrics(params: Any, data: Any, is_cbor: bool, is_json: bool = False) -> Any:
        answer = put(params, data, is_cbor, is_json)
        metrics = data.get("Metrics") if is_cbor or is_json else None
        if metrics and data.get("AlarmName") in cloudwatch._alarms:
            keep_metrics(cloudwatch._alarms[data["AlarmName"]], list(metrics))
        return answer

    _replace(provisioners, "_cw_metric_alarm_record", record_with_metrics)
    _replace(cloudwatch, "_put_metric_alarm", put_with_metrics)


def _typed_metric(metric: Mapping[str, Any]) -> dict[str, Any]:
    """A template's metric data query; a template may write numbers and booleans as text."""
    out = dict(metric)
    if isinstance(out.get("ReturnData"), str):
        out["ReturnData"] = out["ReturnData"].lower() == "true"
    if "Period" in out:
        out["Period"] = int(out["Period"])
    if "MetricStat" in out:
        out["MetricStat"] = {**out["MetricStat"], "Period": int(out["MetricStat"]["Period"])}
    return out


def metric_alarms() -> list[tuple[str, str, dict[str, Any]]]:
    """Return every metric alarm with its account and region. The dictionaries are the live ones."""
    cloudwatch = importlib.import_module("ministack.services.cloudwatch")
    return [
        (account, region, alarm) for (account, region, _), alarm in list(cloudwatch._alarms._data.items())
    ]


def alarm_state(name: str, *, account: str, region: str) -> str | None:
    """Return the state of a metric or composite alarm, None when there is no such alarm."""
    cloudwatch = importlib.import_module("ministack.services.cloudwatch")
    with account_scope(account, region):
        alarm = cloudwatch._alarms.get(name) or cloudwatch._composite_alarms.get(name)
    return None if alarm is None else str(alarm["StateValue"])


def set_alarm_state(
    alarm: dict[str, Any], *, account: str, region: str, state: str, reason: str, reason_data: str
) -> None:
    """Move an alarm to another state as CloudWatch does: history, actions, composite alarms above it."""
    cloudwatch = importlib.import_module("ministack.services.cloudwatch")
    with account_scope(account, region):
        before = alarm["StateValue"]
        alarm.update(
            StateValue=state,
            StateReason=reason,
            StateReasonData=reason_data,
            StateUpdatedTimestamp=int(cloudwatch.time.time()),
        )
        cloudwatch._record_history(alarm["AlarmName"], before, state, reason)
        cloudwatch._dispatch_alarm_actions(alarm, before, state, reason)
        cloudwatch._evaluate_parent_alarms(alarm)


def composite_states(*, account: str, region: str) -> dict[str, str]:
    """Return the states of the composite alarms of a region."""
    cloudwatch = importlib.import_module("ministack.services.cloudwatch")
    with account_scope(account, region):
        return {name: alarm["StateValue"] for name, alarm in cloudwatch._composite_alarms.items()}


def watch_alarm_states(watcher: Callable[[str, str, dict[str, Any], str], None]) -> None:
    """Call ``watcher(account, region, alarm, state before)`` after SetAlarmState changed a state."""
    cloudwatch = importlib.import_module("ministack.services.cloudwatch")
    responses = importlib.import_module("ministack.core.responses")
    original = cloudwatch._set_alarm_state

    def set_state(params: Any, data: Any, is_cbor: bool, is_json: bool = False) -> Any:
        name = data.get("AlarmName", "") if is_cbor or is_json else cloudwatch._p(params, "AlarmName")
        alarm = cloudwatch._alarms.get(name) or cloudwatch._composite_alarms.get(name)
        before = None if alarm is None else alarm["StateValue"]
        answer = original(params, data, is_cbor, is_json)
        if alarm is not None and before is not None and alarm["StateValue"] != before:
            watcher(responses.get_account_id(), responses.get_region(), alarm, before)
        return answer

    _replace(cloudwatch, "_set_alarm_state", set_state)


def put_metric(
    *,
    account: str,
    region: str,
    namespace: str,
    name: str,
    dimensions: Mapping[str, str],
    timestamp: float,
    unit: str,
    values: Sequence[float],
) -> None:
    """Store values of a metric of an AWS service, as the service itself publishes them."""
    cloudwatch = importlib.import_module("ministack.services.cloudwatch")
    with account_scope(account, region):
        cloudwatch._store_datum(
            namespace, name, dict(dimensions), timestamp, unit, None, list(values), None, None
        )


def metric_statistics(
    *,
    account: str,
    region: str,
    namespace: str,
    name: str,
    dimensions: Mapping[str, str],
    statistic: str,
    period: int,
    start: float,
    end: float,
) -> dict[float, float]:
    """Return a statistic of a metric per period in ``[start, end)``; periods without data are absent.

    Only values published under exactly these dimensions count.
    """
    cloudwatch = importlib.import_module("ministack.services.cloudwatch")
    with account_scope(account, region):
        points = list(
            cloudwatch._metrics.get((namespace, name, cloudwatch._dims_key(dict(dimensions)))) or ()
        )
    buckets: dict[float, list[Any]] = {}
    for point in points:
        if start <= point["Timestamp"] < end:
            begin = start + (point["Timestamp"] - start) // period * period
            buckets.setdefault(begin, []).append(point)
    values = {
        begin: cloudwatch._stat_value(cloudwatch._calc_stats(bucket), statistic, bucket)
        for begin, bucket in sorted(buckets.items())
    }
    return {begin: float(value) for begin, value in values.items() if value is not None}


def newest_metric_time() -> float:
    """Return the newest time stamp of any metric, minus infinity without one."""
    cloudwatch = importlib.import_module("ministack.services.cloudwatch")
    newest = [points[-1]["Timestamp"] for points in list(cloudwatch._metrics._data.values()) if points]
    return float(max(newest, default=float("-inf")))


def schedules() -> list[tuple[str, str, dict[str, Any]]]:
    """Return every schedule of EventBridge Scheduler with its account and region."""
    scheduler = importlib.import_module("ministack.services.scheduler")
    found = list(scheduler._schedules._data.items())
    return [(account, region, schedule) for (account, region, _), schedule in found]


def forget_schedule(schedule: Mapping[str, Any], *, account: str, region: str) -> None:
    """Delete a schedule that has completed and asked for it."""
    scheduler = importlib.import_module("ministack.services.scheduler")
    with account_scope(account, region):
        scheduler._schedules.pop(f"{schedule['GroupName']}/{schedule['Name']}", None)


def scheduled_rules() -> list[tuple[str, str, dict[str, Any], list[dict[str, Any]]]]:
    """Return every enabled EventBridge rule that has a schedule: account, region, rule, targets."""
    eventbridge = importlib.import_module("ministack.services.eventbridge")
    return [
        (account, region, rule, list(eventbridge._targets._data.get((account, region, key), [])))
        for (account, region, key), rule in list(eventbridge._rules._data.items())
        if rule.get("ScheduleExpression") and rule.get("State") == "ENABLED"
    ]


def next_cron(expression: str, after: datetime) -> datetime | None:
    """Return the first moment after ``after`` that a ``cron(...)`` expression names.

    Raises ValueError when it is none that AWS takes.
    """
    eventbridge = importlib.import_module("ministack.services.eventbridge")
    fields = eventbridge._parse_cron_fields(expression)
    if fields is None:
        raise ValueError(f"{expression!r} is not a cron expression of AWS's six fields")
    found = eventbridge._cron_next_fire(fields, after)
    return found if isinstance(found, datetime) else None


def fire_rule(
    rule: Mapping[str, Any],
    targets: Sequence[Mapping[str, Any]],
    *,
    account: str,
    region: str,
    time: datetime,
) -> None:
    """Send the event of a scheduled rule to its targets."""
    eventbridge = importlib.import_module("ministack.services.eventbridge")
    event = {
        "EventId": str(uuid.uuid4()),
        "Source": "aws.events",
        "DetailType": "Scheduled Event",
        "Detail": "{}",
        "EventBusName": rule.get("EventBusName", "default"),
        "Time": int(time.timestamp()),
        "Resources": [rule.get("Arn", "")],
        "Account": account,
        "Region": region,
    }
    with account_scope(account, region):
        view = eventbridge._pattern_event_view(event)
        for target in targets:
            eventbridge._invoke_target(target, event, rule, view)


def route_event_target(
    is_ours: Callable[[str], bool],
    deliver: Callable[[dict[str, Any], dict[str, Any], str, str], None],
) -> None:
    """Deliver events to targets that ministack only warns about.

    ``deliver(target, event, account, region)`` gets the events for the targets whose ARN ``is_ours``.
    """
    eventbridge = importlib.import_module("ministack.services.eventbridge")
    responses = importlib.import_module("ministack.core.responses")
    original = eventbridge._invoke_target

    def invoke(target: dict[str, Any], event: Any, rule: Any, view: Any = None) -> None:
        if is_ours(str(target.get("Arn", ""))):
            shown = (view or eventbridge._pattern_event_view(event)).event_with_detail()
            deliver(dict(target), dict(shown), responses.get_account_id(), responses.get_region())
            return
        original(target, event, rule, view)

    _replace(eventbridge, "_invoke_target", invoke)


# -- KMS behind other services ------------------------------------------------------------------------------

#: What a service asks of KMS, as the caller, for an action on something that a key encrypts.
_KMS_NEEDS = {
    "s3:PutObject": ("kms:GenerateDataKey",),
    "s3:GetObject": ("kms:Decrypt",),
    "s3:GetObjectVersion": ("kms:Decrypt",),
    "kinesis:PutRecord": ("kms:GenerateDataKey",),
    "kinesis:PutRecords": ("kms:GenerateDataKey",),
    "kinesis:GetRecords": ("kms:Decrypt",),
    "sqs:SendMessage": ("kms:GenerateDataKey", "kms:Decrypt"),
    "sqs:SendMessageBatch": ("kms:GenerateDataKey", "kms:Decrypt"),
    "sqs:ReceiveMessage": ("kms:Decrypt",),
    "sns:Publish": ("kms:GenerateDataKey", "kms:Decrypt"),
}


def kms_key_arn(key: str, *, account: str, region: str) -> str | None:
    """Return the ARN of a key given by id, ARN or alias; None for AWS's own and unknown ones."""
    kms = importlib.import_module("ministack.services.kms")
    with account_scope(account, region):
        record = kms._resolve_key(key)
    return None if record is None else str(record["Arn"])


def _encrypting_key(check: Check, headers: Mapping[str, str], *, account: str, region: str) -> str | None:
    """Return the KMS key that the resource of a check is encrypted with, as its service names it."""
    service, _, resource = check.action.partition(":")[0], "", check.resource
    if service == "s3":
        asked = headers.get("x-amz-server-side-encryption-aws-kms-key-id")
        writes = check.action == "s3:PutObject"
        return asked if writes and asked else bucket_kms_key(_bucket_of(resource), account, region)
    with account_scope(account, region):
        if service == "kinesis":
            kinesis = importlib.import_module("ministack.services.kinesis")
            _, stream = kinesis._resolve_stream({"StreamARN": resource})
            return None if stream is None else stream.get("KeyId")
        if service == "sqs":
            queue = importlib.import_module("ministack.services.sqs")._queue_by_arn(resource)
            return None if queue is None else queue["attributes"].get("KmsMasterKeyId")
        topic = importlib.import_module("ministack.services.sns")._topic_by_arn_any_scope(resource)
        return None if topic is None else topic.get("attributes", {}).get("KmsMasterKeyId")


def _bucket_of(resource: str) -> str:
    return resource.removeprefix("arn:aws:s3:::").partition("/")[0]


def kms_checks(
    service: str, checks: Sequence[Check], headers: Mapping[str, str], *, account: str, region: str
) -> list[Check]:
    """Return the permissions on KMS keys that follow from a call's own, as AWS asks them of the caller."""
    found = []
    for check in checks:
        needs = _KMS_NEEDS.get(check.action)
        if needs is None:
            continue
        key = _encrypting_key(check, headers, account=account, region=region)
        arn = None if not key else kms_key_arn(key, account=account, region=region)
        if arn is None:
            continue
        context: dict[str, Any] = {
            "kms:ViaService": f"{service}.{region}.amazonaws.com",
            "kms:CallerAccount": account,
        }
        if service == "s3":
            # With a bucket key, which the constructs turn on, the context names the bucket.
            context["kms:EncryptionContext:aws:s3:arn"] = f"arn:aws:s3:::{_bucket_of(check.resource)}"
        found += [Check(action=action, resource=arn, context=context) for action in needs]
    return found


def give_s3_its_key() -> None:
    """Let S3 fall back to the account's own ``aws/s3`` key where a write asks for KMS and names no key."""
    s3 = importlib.import_module("ministack.services.s3")
    responses = importlib.import_module("ministack.core.responses")
    original = s3._resolve_sse_write_headers
    key_header = "x-amz-server-side-encryption-aws-kms-key-id"

    def resolve(headers: Mapping[str, str], bucket: str) -> Any:
        if headers.get("x-amz-server-side-encryption") == "aws:kms" and not headers.get(key_header):
            own = f"arn:aws:kms:{responses.get_region()}:{responses.get_account_id()}:alias/aws/s3"
            default = s3._bucket_default_sse_headers(bucket).get(key_header, own)
            return original({**headers, key_header: default}, bucket)
        return original(headers, bucket)

    _replace(s3, "_resolve_sse_write_headers", resolve)


# -- what AWS's services may do -----------------------------------------------------------------------------

#: The permission by which a service delivers to a resource, from the resource's own policy.
_DELIVERIES = {"lambda": "lambda:InvokeFunction", "sqs": "sqs:SendMessage", "sns": "sns:Publish"}


def _service_is_let(principal: str, check: Check, *, source_arn: str, account: str, region: str) -> bool:
    """Say whether the own policy of a check's resource lets a service act on it."""
    evaluator = importlib.import_module("ministack.core.iam_evaluator")
    own = evaluator._resource_policy(check.action.partition(":")[0], check.resource)
    if own is None:
        return False
    request = evaluator.EvalContext(
        principal_arn=principal,
        principal_type="Service",
        principal_account=account,
        action=check.action,
        resource_arn=check.resource,
        region=region,
        secure_transport=True,
        service_context={
            "aws:sourcearn": source_arn,
            "aws:sourceaccount": account,
            "aws:principalisawsservice": "true",
            **{key.lower(): value for key, value in check.context.items()},
        },
    )
    return bool(evaluator.evaluate_resource_policy(own[0], request, service=principal).decision == "Allow")


def delivery_refusal(
    principal: str, target: str, *, source_arn: str, account: str, region: str
) -> str | None:
    """Return why a service cannot deliver to a function, queue or topic; None when it can.

    The target's own policy must let the service, and so must that of a key that encrypts the target.
    """
    service = target.split(":")[2]
    action = _DELIVERIES.get(service)
    if action is None:
        return None
    with account_scope(account, region):
        needed = Check(action=action, resource=target)
        checks = [needed, *kms_checks(service, [needed], {}, account=account, region=region)]
        for check in checks:
            if not _service_is_let(principal, check, source_arn=source_arn, account=account, region=region):
                return (
                    f"the policy of {check.resource} does not let {principal} {check.action} for {source_arn}"
                )
    return None


def object_refusal(
    principal: str,
    bucket: str,
    key: str,
    *,
    source_arn: str,
    account: str,
    region: str,
    context: Mapping[str, str],
) -> str | None:
    """Return why a service cannot write an object; None when the bucket's policy, and its key's, let it."""
    with account_scope(account, region):
        needed = Check(action="s3:PutObject", resource=f"arn:aws:s3:::{bucket}/{key}", context=dict(context))
        checks = [needed, *kms_checks("s3", [needed], {}, account=account, region=region)]
        for check in checks:
            asked = replace(check, context={**check.context, **context})
            if not _service_is_let(principal, asked, source_arn=source_arn, account=account, region=region):
                what = f"{check.action} for {source_arn}"
                return f"the policy of {check.resource} does not let {principal} {what}"
    return None


def has_trails() -> bool:
    """Say whether somebody has made a trail."""
    return bool(importlib.import_module("ministack.services.cloudtrail")._trails._data)


def guard_event_targets(refused: Callable[[str, str, str], None]) -> None:
    """Drop events for targets that EventBridge may not deliver to, as AWS does.

    ``refused(rule ARN, target ARN, why)`` is told: on AWS only the metric FailedInvocations tells.
    """
    eventbridge = importlib.import_module("ministack.services.eventbridge")
    responses = importlib.import_module("ministack.core.responses")
    original = eventbridge._invoke_target

    def invoke(target: dict[str, Any], event: Any, rule: Any, view: Any = None) -> None:
        arn, source = str(target.get("Arn", "")), str(rule.get("Arn", ""))
        account, region = responses.get_account_id(), responses.get_region()
        why = None
        if arn.startswith("arn:") and not target.get("RoleArn"):
            why = delivery_refusal(
                "events.amazonaws.com", arn, source_arn=source, account=account, region=region
            )
        if why is not None:
            refused(source, arn, why)
            return
        original(target, event, rule, view)

    _replace(eventbridge, "_invoke_target", invoke)


def function_role(name: str) -> str | None:
    """Return the role of a function given by name or ARN, None when there is no such function."""
    functions = importlib.import_module("ministack.services.lambda_svc")
    found = functions._functions.get(functions._resolve_request_scoped_name(name))
    return None if found is None else str(found["config"]["Role"])


# -- other accounts -----------------------------------------------------------------------------------------


def hold_strangers_to_trust(account: str) -> None:
    """Let another account take a role only as the role's trust policy says, external id included.

    ministack looks at trust policies only when it checks signatures too. Who signs with an account's number
    as the access key is that account's root.
    """
    sts = importlib.import_module("ministack.services.sts")
    iam = importlib.import_module("ministack.services.iam")
    evaluator = importlib.import_module("ministack.core.iam_evaluator")
    original = sts.handle_request

    async def handle(method: str, path: str, headers: Any, body: Any, query: Any) -> Any:
        params = {**dict(query), **parse_qs((body or b"").decode("utf-8", errors="replace"))}
        caller = sts._caller_identity(headers, query)
        stranger = isinstance(caller, Mapping) and caller["accountId"] != account
        if sts._p(params, "Action") == "AssumeRole" and stranger:
            arn = sts._p(params, "RoleArn")
            role = iam._roles.get_scoped(arn.split(":")[4], None, arn.rsplit("/", 1)[-1])
            context = evaluator.EvalContext(
                principal_arn=caller["userArn"],
                principal_type=caller["principalType"],
                principal_account=caller["accountId"],
                action="sts:AssumeRole",
                resource_arn=arn,
                region="us-east-1",
                service_context={"sts:externalid": sts._p(params, "ExternalId", None)},
                principal_keys=caller.get("principalKeys", {}),
            )
            trust = "{}" if role is None else role.get("AssumeRolePolicyDocument", "{}")
            if not evaluator.evaluate_trust_policy(trust, caller["userArn"], context):
                who = caller["userArn"]
                message = f"User: {who} is not authorized to perform: sts:AssumeRole on resource: {arn}"
                return sts._error(403, "AccessDenied", message, ns="sts")
        return await original(method, path, headers, body, query)

    _replace(sts, "handle_request", handle)


# -- Step Functions -----------------------------------------------------------------------------------------


#: State machine of each callback token: SendTaskSuccess and its like are checked against it.
_machine_of_token: dict[str, str] = {}


@dataclass(frozen=True, kw_only=True)
class Task:
    """A task that a state machine is about to do: what it calls with what, and as which role."""

    resource: str
    input: Any
    machine: str
    role: str

    @property
    def region(self) -> str:
        """Region of the state machine."""
        return self.machine.split(":")[3]


class TaskError(Exception):
    """A task failed: the error's name and its cause, as a state machine sees them."""

    def __init__(self, error: str, cause: str) -> None:
        super().__init__(f"{error}: {cause}")
        self.error = error
        self.cause = cause


def guard_state_machines(
    *,
    refused: Callable[[Task], str | None],
    wait: Callable[[float], None],
    ended: Callable[[str, str, str], None],
    own: Callable[[Task], Callable[[], Any] | None] = lambda _: None,
) -> None:
    """Hold the tasks of state machines to their role, let them wait by another clock, tell how they end.

    ``own(task)`` is what does a task in the place of ministack, None when that does it; the service that it
    calls says what the role may do. ``refused(task)`` says so of the others: why not, None when it may.
    ``wait(seconds)`` is what a Wait state and the interval of a retry do. ``ended(machine ARN, status,
    cause)`` is told of each execution.
    """
    machines = importlib.import_module("ministack.services.stepfunctions")
    doing = threading.local()
    execute, emit = machines._execute_task, machines._emit_execution_status_event

    def execute_task(state: Any, given: Any, execution: Mapping[str, Any], context: Any) -> Any:
        machine = str(execution["stateMachineArn"]) if execution else ""
        found = machines._state_machines.get(machine)
        doing.machine, doing.role = machine, str(found["roleArn"]) if found else ""
        return execute(state, given, execution, context)

    def guarded(name: str) -> None:
        original = getattr(machines, name)

        def invoke(resource: str, given: Any, *rest: Any) -> Any:
            role = getattr(doing, "role", "")
            if role:
                task = Task(resource=resource, input=given, machine=doing.machine, role=role)
                ours = own(task)
                if ours is not None:
                    try:
                        return ours()
                    except TaskError as error:
                        raise machines._ExecutionError(error.error, error.cause) from error
                why = refused(task)
                if why is not None:
                    raise machines._ExecutionError("States.Permissions", why)
            if "events:putEvents" in resource:
                given = _with_text_details(given)
            if name == "_invoke_with_callback":
                _machine_of_token[str(rest[0])] = doing.machine
            return original(resource, given, *rest)

        _replace(machines, name, invoke)

    def status(execution: Mapping[str, Any]) -> None:
        emit(execution)
        if execution["status"] != "RUNNING":
            cause = f"{execution.get('error') or ''}: {execution.get('cause') or ''}".strip(": ")
            ended(str(execution["stateMachineArn"]), str(execution["status"]), cause)

    for name in ("_invoke_resource", "_invoke_resource_with_timeout", "_invoke_with_callback"):
        guarded(name)
    _replace(machines, "_execute_task", execute_task)
    _replace(machines, "_scaled_sleep", wait)
    _replace(machines, "_emit_execution_status_event", status)


def _with_text_details(given: Any) -> Any:
    """Step Functions takes an event's detail as an object too, and makes it the text that PutEvents takes."""
    entries = [
        {**e, "Detail": e["Detail"] if isinstance(e.get("Detail"), str) else json.dumps(e.get("Detail"))}
        for e in given.get("Entries", ())
    ]
    return {**given, "Entries": entries}


def function_arn(reference: str) -> str:
    """Return the ARN of a function that a state machine names by name or ARN."""
    functions = importlib.import_module("ministack.services.lambda_svc")
    found = functions._functions.get(functions._resolve_request_scoped_name(reference))
    return reference if found is None else str(found["config"]["FunctionArn"])


# -- ECR ----------------------------------------------------------------------------------------------------


def correct_ecr() -> None:
    """Answer ``ImageNotFoundException`` for a missing tag.

    ministack answers an empty list, from which the CDK CLI concludes that the image is there and skips its
    build.
    """
    ecr = importlib.import_module("ministack.services.ecr")
    responses = importlib.import_module("ministack.core.responses")
    original = ecr._describe_images

    def describe(data: Mapping[str, Any]) -> Any:
        repository = data.get("repositoryName", "")
        for wanted in data.get("imageIds") or ():
            if repository in ecr._repositories and not ecr._find_image(repository, wanted):
                return responses.error_response_json(
                    "ImageNotFoundException",
                    f"The image with imageId {wanted} does not exist within the repository with name "
                    f"'{repository}'",
                    400,
                )
        return original(data)

    _replace(ecr, "_describe_images", describe)


# -- functions ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class FunctionCode:
    """A zip function that does what a container-image function would."""

    zip: bytes
    handler: str
    runtime: str = "python3.13"
    environment: Mapping[str, str] = field(default_factory=dict)


def use_image_functions(translate: Callable[[Mapping[str, Any]], FunctionCode]) -> None:
    """Run functions of ``PackageType: Image`` as zip functions, made by ``translate(function
    configuration)``.

    ministack would start a container. ``translate`` is called for each cold start; what it raises fails the
    invocation.
    """
    functions = importlib.import_module("ministack.services.lambda_svc")
    original = functions._execute_function_docker
    code_of: dict[tuple[str, str], FunctionCode] = {}

    def execute(func: Mapping[str, Any], event: Any, request_id: str) -> Any:
        config = func.get("config") or func
        if config.get("PackageType") != "Image":
            return original(func, event, request_id)
        key = (str(config["FunctionArn"]), str(config["ImageUri"]))
        try:
            if key not in code_of:
                code_of[key] = translate(config)
        except Exception as error:  # noqa: BLE001 - AWS reports it as the invocation's error
            text = {"errorType": "Runtime.InvalidEntrypoint", "errorMessage": str(error)}
            return {"body": text, "error": True, "log": f"{type(error).__name__}: {error}"}
        code = code_of[key]
        variables = {**code.environment, **(config.get("Environment") or {}).get("Variables", {})}
        shadow = {
            **config,
            "PackageType": "Zip",
            "Handler": code.handler,
            "Runtime": code.runtime,
            "Environment": {"Variables": variables},
        }
        return functions._execute_function_warm(
            {**func, "config": shadow, "code_zip": code.zip}, event, request_id
        )

    _replace(functions, "_execute_function_docker", execute)


def watch_functions(watcher: Callable[[Mapping[str, Any], str | None], None]) -> None:
    """Call ``watcher(configuration, error)`` after each invocation of a function, whoever invoked it."""
    functions = importlib.import_module("ministack.services.lambda_svc")
    original = functions._execute_function_dispatch

    def dispatch(func: Any, config: Mapping[str, Any], event: Any, request_id: str, started: float) -> Any:
        result = original(func, config, event, request_id, started)
        failed = isinstance(result, Mapping) and result.get("error")
        body = result.get("body") if isinstance(result, Mapping) else None
        text = str(body.get("errorMessage", body)) if isinstance(body, Mapping) else str(body)
        watcher(config, text if failed else None)
        return result

    _replace(functions, "_execute_function_dispatch", dispatch)


def measure_aliases(measure: Callable[[str, str, float, bool], None]) -> None:
    """Call ``measure(function, alias, seconds, failed)`` after an invocation, for aliases of the version."""
    functions = importlib.import_module("ministack.services.lambda_svc")
    original = functions._execute_function_dispatch

    def dispatch(func: Any, config: Mapping[str, Any], event: Any, request_id: str, started: float) -> Any:
        began = _real_time.monotonic()
        result = original(func, config, event, request_id, started)
        name, version = str(config["FunctionName"]), str(config.get("Version", "$LATEST"))
        known = functions._functions.get(name) or {}
        for alias, said in list((known.get("aliases") or {}).items()):
            weighed = said.get("RoutingConfig", {}).get("AdditionalVersionWeights", {})
            if version != "$LATEST" and version in (said["FunctionVersion"], *weighed):
                failed = isinstance(result, Mapping) and bool(result.get("error"))
                measure(name, alias, _real_time.monotonic() - began, failed)
        return result

    _replace(functions, "_execute_function_dispatch", dispatch)


def keep_version_workers() -> None:
    """Let the processes of a function's versions live when the function changes: versions do not.

    ministack's CloudFormation ends them all, and with them what they are answering.
    """
    functions = importlib.import_module("ministack.services.lambda_svc")
    original = functions.invalidate_worker

    def invalidate(name: str, qualifier: str | None = None, **scope: Any) -> Any:
        changed = qualifier is None and name in functions._functions
        return original(name, qualifier="$LATEST" if changed else qualifier, **scope)

    _replace(functions, "invalidate_worker", invalidate)


def weigh_aliases(chance: Callable[[], float]) -> None:
    """Send the requests of an alias to its second version as its weights say; ministack keeps them only."""
    functions = importlib.import_module("ministack.services.lambda_svc")
    original = functions._invoke

    async def invoke(
        name: str, event: Any, headers: Any, qualifier: str | None = None, query: Any = None
    ) -> Any:
        asked = qualifier or functions._qp_first(query or {}, "Qualifier") or None
        alias = (functions._functions.get(name) or {}).get("aliases", {}).get(asked, {})
        drawn = chance()
        for second, weight in alias.get("RoutingConfig", {}).get("AdditionalVersionWeights", {}).items():
            if drawn < float(weight):
                return await original(name, event, headers, second, query)
            drawn -= float(weight)
        return await original(name, event, headers, qualifier, query)

    _replace(functions, "_invoke", invoke)


@dataclass(frozen=True, kw_only=True)
class AliasMove:
    """An alias that CloudFormation moves to another version, by CodeDeploy as its update policy says."""

    application: str
    group: str
    function: str
    alias: str
    old: str
    new: str


def move_aliases(move: Callable[[AliasMove], None]) -> None:
    """Call ``move(alias)`` before an alias with an update policy of CodeDeploy is set to its new version.

    What it raises fails the resource, whose alias then stays as it is.
    """
    provisioners = importlib.import_module(f"{_CFN}.provisioners")
    package = importlib.import_module(_CFN)
    handlers = provisioners._RESOURCE_HANDLERS["AWS::Lambda::Alias"]
    update = handlers["update"]

    def named(stack: Mapping[str, Any], value: Any) -> str:
        reference = value.get("Ref") if isinstance(value, Mapping) else None
        if reference is None:
            return str(value)
        return str(stack.get("_resources", {})[reference]["PhysicalResourceId"])

    def changed(
        physical_id: str, old: Mapping[str, Any], new: Mapping[str, Any], name: str, logical_id: Any = None
    ) -> Any:
        stacks = [stack for stack in package._stacks.values() if stack.get("StackName") == name]
        stack: Mapping[str, Any] = stacks[0] if stacks else {}
        resource = stack.get("_template", {}).get("Resources", {}).get(logical_id, {})
        policy = resource.get("UpdatePolicy", {}).get("CodeDeployLambdaAliasUpdate")
        before, after = str(old.get("FunctionVersion")), str(new.get("FunctionVersion"))
        if policy and before != after:
            move(
                AliasMove(
                    application=named(stack, policy["ApplicationName"]),
                    group=named(stack, policy["DeploymentGroupName"]),
                    function=physical_id.split(":")[6],
                    alias=str(new["Name"]),
                    old=before,
                    new=after,
                )
            )
        return update(physical_id, old, new, name, logical_id)

    provisioners._RESOURCE_HANDLERS["AWS::Lambda::Alias"] = {**handlers, "update": changed}
    _on_a_thread("AWS::Lambda::Alias")


def isolate_functions(hidden: Sequence[str]) -> None:
    """Hide folders from the import path of Python functions, so that code missing from a package is missed.

    A function runs with the Python of this project, in which its sources are installed in editable mode.
    """
    runtime = importlib.import_module("ministack.core.lambda_runtime")
    kept = f"[p for p in _sys.path if p not in {sorted(hidden)!r}]"
    guard = f"import sys as _sys\n_sys.path[:] = {kept}\ndel _sys\n"
    _replace(runtime, "_PYTHON_WORKER_SCRIPT", guard + runtime._PYTHON_WORKER_SCRIPT.lstrip())


def end_function_workers() -> None:
    """End the processes of warm functions."""
    importlib.import_module("ministack.core.lambda_runtime").reset()


# -- streams ------------------------------------------------------------------------------------------------

_STREAM_LISTENERS: list[Callable[[str, str], None]] = []
#: What a record may hold unless its stream was told otherwise.
_RECORD_KIB = 1024


def use_own_stream_polling(heard: Callable[[str, str], None]) -> None:
    """Read streams for event source mappings ourselves; ``heard(region, stream ARN)`` when records came.

    ministack's poller knows neither partial failures nor tries, halves, ages or destinations of Kinesis.
    ``use_own_delivery`` is what hears of records.
    """
    functions = importlib.import_module("ministack.services.lambda_svc")
    _STREAM_LISTENERS[:] = [heard]
    _replace(functions, "_poll_kinesis", lambda: False)
    original = functions._validate_event_source_arn

    def validate(arn: str) -> Any:
        # The ARN of a stream's consumer is as good as the stream's.
        return original(arn.partition("/consumer/")[0] if ":kinesis:" in arn else arn)

    _replace(functions, "_validate_event_source_arn", validate)


def see_again(*, received_before: float) -> int:
    """End the visibility timeout of messages that were received before a time, in every queue; their number.

    :param received_before: by the wall clock, which SQS goes by here; what was received later is perhaps
        being handled
    """
    sqs = importlib.import_module("ministack.services.sqs")
    seen = 0
    with sqs._queues_lock:
        queues = list(sqs._queues._data.values())
    for queue in queues:
        timeout = float(queue["attributes"].get("VisibilityTimeout", 30))
        for message in queue["messages"]:
            hidden_until = message["visible_at"]
            if (
                message.get("receive_count", 0)
                and _real_time.time() < hidden_until <= received_before + timeout
            ):
                message["visible_at"] = received_before
                seen += 1
    return seen


def stream_mappings() -> list[tuple[str, str, dict[str, Any]]]:
    """Return every event source mapping of a stream with its account and region; the live dictionaries."""
    functions = importlib.import_module("ministack.services.lambda_svc")
    return [
        (account, region, mapping)
        for account, region, mapping in functions._iter_all_esms()
        if ":kinesis:" in str(mapping.get("EventSourceArn", ""))
    ]


def stream_mapping(identifier: str) -> dict[str, Any] | None:
    """Return the live event source mapping of that id in the current account and region."""
    functions = importlib.import_module("ministack.services.lambda_svc")
    found = functions._esms.get(identifier)
    return None if found is None else dict_of(found)


def dict_of(value: Any) -> dict[str, Any]:
    """Return ministack's own dictionary, typed."""
    if not isinstance(value, dict):
        raise TypeError(f"ministack keeps a {type(value).__name__} where the rehearsal knows a dictionary")
    return value


def set_largest_record(stream: str, kib: int) -> None:
    """Let a stream of the current account and region take records of ``kib`` KiB."""
    kinesis = importlib.import_module("ministack.services.kinesis")
    kinesis._streams[stream]["MaxRecordSizeInKiB"] = kib


def largest_record(stream_arn: str) -> int | None:
    """Return how many KiB a record of a stream may hold; None when there is no such stream."""
    kinesis = importlib.import_module("ministack.services.kinesis")
    stream = kinesis._resolve_stream_by_arn(stream_arn)
    return None if stream is None else int(stream.get("MaxRecordSizeInKiB", _RECORD_KIB))


def take_large_records() -> None:
    """Let PutRecord and PutRecords take what the stream takes.

    ministack refuses everything above a MiB. The new bounds are those of the Kinesis API reference: a
    stream's ``MaxRecordSizeInKiB`` a record, 10 MiB a request.
    """
    kinesis = importlib.import_module("ministack.services.kinesis")
    put_one, put_many = kinesis._put_record, kinesis._put_records
    refuse = kinesis.error_response_json

    def size(record: Mapping[str, Any]) -> int:
        data = record.get("Data") or ""
        return len(data) * 3 // 4 - data[-2:].count("=") if isinstance(data, str) else len(data)

    def store(stream: dict[str, Any], record: Mapping[str, Any]) -> dict[str, str]:
        given = record.get("ExplicitHashKey")
        number = int(given) if given else kinesis._partition_key_to_hash(record["PartitionKey"])
        shard = kinesis._route_to_shard(number, stream)
        sequence = kinesis._next_sequence_number()
        stream["shards"][shard]["records"].append(
            {
                "SequenceNumber": sequence,
                "ApproximateArrivalTimestamp": round(_real_time.time(), 3),
                "Data": record.get("Data", ""),
                "PartitionKey": record["PartitionKey"],
            }
        )
        return {"ShardId": shard, "SequenceNumber": sequence}

    def put(
        data: Mapping[str, Any], records: Sequence[Mapping[str, Any]]
    ) -> tuple[Any, list[dict[str, str]]]:
        """Store the records; returns a refusal or what stands for each."""
        name, stream = kinesis._resolve_stream(data)
        most = int(stream.get("MaxRecordSizeInKiB", _RECORD_KIB)) * 1024
        for record in records:
            held = size(record) + len(str(record.get("PartitionKey", "")).encode())
            if held > most:
                text = f"a record of {held} bytes is above the largest that stream {name} takes, {most}"
                return refuse("InvalidArgumentException", text, 400), []
        if sum(size(record) for record in records) > 10 * 1024 * 1024 + 256 * len(records):
            return refuse("InvalidArgumentException", "Records total payload size exceeds 10 MiB", 400), []
        stored = [store(stream, record) for record in records]
        firehose = importlib.import_module("ministack.services.firehose")
        firehose.ingest_from_kinesis_source(stream["StreamARN"], stored)
        encryption = {"EncryptionType": stream.get("EncryptionType", "NONE")}
        return None, [{**one, **encryption} for one in stored]

    def ours(data: Mapping[str, Any], records: Sequence[Mapping[str, Any]]) -> bool:
        """Say whether ministack would refuse records of a stream that is there for their size."""
        _, stream = kinesis._resolve_stream(data)
        sizes = [size(record) for record in records]
        large = any(one > _RECORD_KIB * 1024 for one in sizes) or sum(sizes) > 5 * 1024 * 1024
        return large and len(records) <= 500 and bool(stream) and stream["StreamStatus"] == "ACTIVE"

    def put_record(data: Mapping[str, Any]) -> Any:
        if not ours(data, [data]):
            return put_one(data)
        refusal, stored = put(data, [data])
        return refusal or kinesis.json_response(stored[0])

    def put_records(data: Mapping[str, Any]) -> Any:
        records = data.get("Records", [])
        if not ours(data, records):
            return put_many(data)
        refusal, stored = put(data, records)
        return refusal or kinesis.json_response({"FailedRecordCount": 0, "Records": stored})

    _replace(kinesis, "_put_record", put_record)
    _replace(kinesis, "_put_records", put_records)


# -- delivery streams ---------------------------------------------------------------------------------------


def use_own_delivery(
    kinesis: Callable[[str, str], None],
    direct: Callable[[str, str, list[tuple[str, bytes]]], None],
) -> None:
    """Hand the records of delivery streams over instead of writing each one as an object of its own.

    ``kinesis(region, stream ARN)`` hears that a stream has new records; ``direct(region, delivery stream,
    [(record id, data)])`` gets those of PutRecord and PutRecordBatch.
    """
    firehose = importlib.import_module("ministack.services.firehose")
    responses = importlib.import_module("ministack.core.responses")

    def from_kinesis(stream_arn: str, records: Sequence[object]) -> None:
        if stream_arn and records:
            kinesis(responses.get_region(), stream_arn)
            for listener in _STREAM_LISTENERS:
                listener(responses.get_region(), stream_arn)

    def to_s3(stream: Mapping[str, Any], dest: dict[str, Any], records: list[tuple[str, bytes]]) -> None:
        # ministack keeps a copy of every record for its tests.
        dest["records"].clear()
        direct(responses.get_region(), str(stream["name"]), list(records))

    create = firehose._create_delivery_stream

    def create_delivery_stream(data: Mapping[str, Any]) -> Any:
        iceberg = data.get("IcebergDestinationConfiguration")
        if iceberg is not None and "S3Configuration" in iceberg:
            # ministack describes a destination by the names it was made with; this one has another then.
            described = {**iceberg, "S3DestinationDescription": iceberg["S3Configuration"]}
            data = {**data, "IcebergDestinationConfiguration": described}
        return create(data)

    _replace(firehose, "_create_delivery_stream", create_delivery_stream)
    firehose._HANDLERS["CreateDeliveryStream"] = create_delivery_stream
    _replace(firehose, "ingest_from_kinesis_source", from_kinesis)
    _replace(firehose, "_deliver_records_to_s3", to_s3)


# -- CloudFormation -----------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class StackEvent:
    """A change of status of a stack (``resource`` is None) or of one of its resources."""

    stack_id: str
    stack_name: str
    resource: str | None
    resource_type: str
    status: str
    reason: str
    token: str
    region: str


_CFN = "ministack.services.cloudformation"
#: The deployment role of each stack, by region and name: ministack forgets it.
_STACK_ROLES: dict[tuple[str, str], str] = {}
_THREADED_TYPES: set[str] = set()


def current_region() -> str:
    """Return the region of the call or stack operation that runs on this thread."""
    return str(importlib.import_module("ministack.core.responses").get_region())


def resource_types() -> frozenset[str]:
    """Return the CloudFormation types that can be made."""
    return frozenset(importlib.import_module(f"{_CFN}.provisioners")._RESOURCE_HANDLERS)


def _on_a_thread(resource_type: str) -> None:
    """Run a type's handlers on a thread of their own: they call back into this server."""
    stacks = importlib.import_module(f"{_CFN}.stacks")
    if not _THREADED_TYPES:
        original = stacks._runs_on_worker_thread
        _replace(stacks, "_runs_on_worker_thread", lambda name: name in _THREADED_TYPES or original(name))
    _THREADED_TYPES.add(resource_type)


def register_type(resource_type: str, handlers: Mapping[str, Any]) -> None:
    """Make a CloudFormation type known: ``create(logical id, properties, stack)``, ``update``, ``delete``."""
    provisioners = importlib.import_module(f"{_CFN}.provisioners")
    provisioners._RESOURCE_HANDLERS[resource_type] = dict(handlers)
    # What a change replaces is the handlers' own business.
    provisioners._REPLACING_PROPERTIES.pop(resource_type, None)
    _on_a_thread(resource_type)


def extend_type(resource_type: str, *, after: Callable[[str, Mapping[str, Any]], None]) -> None:
    """Call ``after(physical id, properties)`` when ministack made or changed a resource of its own type."""
    provisioners = importlib.import_module(f"{_CFN}.provisioners")
    handlers = provisioners._RESOURCE_HANDLERS[resource_type]
    create, update, delete = handlers["create"], handlers["update"], handlers["delete"]

    def made(logical_id: str, props: Mapping[str, Any], stack: str) -> Any:
        result = create(logical_id, props, stack)
        try:
            after(result[0], props)
        except Exception:
            delete(result[0], props)
            raise
        return result

    def changed(
        physical_id: str, old: Mapping[str, Any], new: Mapping[str, Any], stack: str, *rest: Any
    ) -> Any:
        result = update(physical_id, old, new, stack, *rest)
        after(result[0], new)
        return result

    provisioners._RESOURCE_HANDLERS[resource_type] = {**handlers, "create": made, "update": changed}
    _on_a_thread(resource_type)


def let_dashboards_be_of_collections() -> None:
    """Let rules on dashboards name collections, as the service has it; ministack wants ``dashboard/``.

    Source: OpenSearch Serverless Developer Guide, "Network access", "Policy format".
    """
    search = importlib.import_module("ministack.services.opensearchserverless")
    original = search._validate_network_policy

    def kind(rule: Any) -> Any:
        of_dashboard = isinstance(rule, Mapping) and rule.get("ResourceType") == "dashboard"
        return {**rule, "ResourceType": "collection"} if of_dashboard else rule

    def validate(document: Any) -> None:
        statements = document if isinstance(document, list) else []
        for statement in statements:
            rules = statement.get("Rules") if isinstance(statement, Mapping) else None
            if isinstance(rules, list):
                original([{**statement, "Rules": [kind(rule) for rule in rules]}])
            else:
                original([statement])
        if not statements:
            original(document)

    _replace(search, "_validate_network_policy", validate)


def refer_to_secrets_by_arn() -> None:
    """Let ``Ref`` of a secret be its ARN, as CloudFormation has it; ministack gives its name.

    The ARN ends in a hyphen and six characters after the name.
    """
    provisioners = importlib.import_module(f"{_CFN}.provisioners")
    handlers = provisioners._RESOURCE_HANDLERS["AWS::SecretsManager::Secret"]

    def name_in(physical_id: str) -> str:
        return physical_id.rsplit(":", 1)[-1][:-7] if physical_id.startswith("arn:") else physical_id

    def create(*args: Any) -> Any:
        _, attributes = handlers["create"](*args)
        return attributes["Arn"], attributes

    def update(physical_id: str, *args: Any) -> Any:
        _, attributes = handlers["update"](name_in(physical_id), *args)
        return attributes["Arn"], attributes

    def delete(physical_id: str, *args: Any) -> Any:
        return handlers["delete"](name_in(physical_id), *args)

    provisioners._RESOURCE_HANDLERS["AWS::SecretsManager::Secret"] = {
        **handlers,
        "create": create,
        "update": update,
        "delete": delete,
    }


def add_attributes(
    resource_type: str, attributes: Mapping[str, Callable[[str, Mapping[str, Any]], Any]]
) -> None:
    """Give ``Fn::GetAtt`` values that ministack's own type lacks, each from physical id and properties."""
    provisioners = importlib.import_module(f"{_CFN}.provisioners")
    handlers = provisioners._RESOURCE_HANDLERS[resource_type]

    def completed(handler: Callable[..., Any], at: int) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            physical_id, given = handler(*args)
            known = dict(given or {})
            for name, value in attributes.items():
                found = value(physical_id, args[at])
                if found is not None:
                    known.setdefault(name, found)
            return physical_id, known

        return call

    extended = {**handlers, "create": completed(handlers["create"], 1)}
    if "update" in handlers:
        extended["update"] = completed(handlers["update"], 2)
    provisioners._RESOURCE_HANDLERS[resource_type] = extended


def delete_predecessor(
    delete: Callable[[str, Mapping[str, Any]], None], physical_id: str, props: Mapping[str, Any]
) -> None:
    """Delete a replaced resource when its stack cleans up, unless its UpdateReplacePolicy keeps it.

    The engine deletes a predecessor whose physical id differs by itself; this is for ids that stay.
    """
    provisioners = importlib.import_module(f"{_CFN}.provisioners")
    if provisioners._DEFERRED_PREDECESSOR_DELETES.get() is None:
        provisioners._delete_predecessor(delete, physical_id, props)


def replace_by_schema(create_only: Callable[[str], tuple[str, ...] | None]) -> None:
    """Replace resources of ministack's own types by the registry's create-only properties.

    Only types that ministack cannot change in place and has no such list for: it would make them anew under
    the same name.
    """
    provisioners = importlib.import_module(f"{_CFN}.provisioners")
    for resource_type, handlers in provisioners._RESOURCE_HANDLERS.items():
        if "update" not in handlers and resource_type not in provisioners._REPLACING_PROPERTIES:
            properties = create_only(resource_type)
            if properties is not None:
                provisioners._REPLACING_PROPERTIES[resource_type] = properties


def judge_resources(
    judge: Callable[[str, Mapping[str, Any]], list[str]],
    judge_resolved: Callable[[str, Mapping[str, Any]], list[str]],
) -> None:
    """Fail a stack operation before anything is made when ``judge(type, properties)`` finds fault.

    Both functions see each resource again with every value resolved, right before it is made or changed.
    """
    stacks = importlib.import_module(f"{_CFN}.stacks")
    validate, fail = stacks._validation_errors, stacks._fail_property_validation

    def errors_of(
        resources: Mapping[str, Any], ordered: Sequence[str], conditions: Mapping[str, bool]
    ) -> list[Any]:
        found = []
        for logical_id in ordered:
            definition = resources[logical_id]
            condition = definition.get("Condition")
            if condition and not conditions.get(condition, True):
                continue
            resource_type = definition.get("Type", "")
            for reason in judge(resource_type, definition.get("Properties") or {}):
                place = f"/Resources/{logical_id}/Properties"
                found.append((logical_id, resource_type, "PROPERTY_VALIDATION", place, reason))
        return found

    def validation_errors(
        resources: Any, ordered: Any, params: Any, conditions: Any, *rest: Any, **named: Any
    ) -> Any:
        return [
            *validate(resources, ordered, params, conditions, *rest, **named),
            *errors_of(resources, ordered, conditions),
        ]

    def fail_property_validation(  # noqa: PLR0917 - ministack's own signature
        stack: Any,
        stack_id: Any,
        name: Any,
        resources: Any,
        ordered: Any,
        params: Any,
        conditions: Any,
        *rest: Any,
        **named: Any,
    ) -> Any:
        # The stack's own event only counts the errors; who deploys reads the events of the resources.
        verb = "UPDATE" if named.get("previous_stack") is not None else "CREATE"
        for logical_id, resource_type, _, _, reason in errors_of(resources, ordered, conditions):
            stacks._add_event(stack_id, name, logical_id, resource_type, f"{verb}_FAILED", reason)
        return fail(stack, stack_id, name, resources, ordered, params, conditions, *rest, **named)

    def judged(resource_type: str, props: Mapping[str, Any]) -> None:
        faults = [*judge(resource_type, props), *judge_resolved(resource_type, props)]
        if faults:
            raise ValueError("; ".join(faults))

    provision, change = stacks._provision_resource, stacks._update_resource

    def provision_resource(resource_type: str, logical_id: str, props: Any, *rest: Any) -> Any:
        judged(resource_type, props)
        return provision(resource_type, logical_id, props, *rest)

    def update_resource(resource_type: str, physical_id: str, old: Any, new: Any, *rest: Any) -> Any:
        if old != new:
            judged(resource_type, new)
        return change(resource_type, physical_id, old, new, *rest)

    _replace(stacks, "_validation_errors", validation_errors)
    _replace(stacks, "_fail_property_validation", fail_property_validation)
    _replace(stacks, "_provision_resource", provision_resource)
    _replace(stacks, "_update_resource", update_resource)


def watch_stacks(watcher: Callable[[StackEvent], None]) -> None:
    """Call ``watcher`` for every event of every stack, and remember the role that each is deployed with."""
    stacks = importlib.import_module(f"{_CFN}.stacks")
    handlers = importlib.import_module(f"{_CFN}.handlers")
    package = importlib.import_module(_CFN)
    original = stacks._add_event

    def add_event(  # noqa: PLR0917 - ministack's own signature
        stack_id: str,
        stack: str,
        logical_id: str,
        resource_type: str,
        status: str,
        reason: str = "",
        *rest: Any,
        **named: Any,
    ) -> None:
        original(stack_id, stack, logical_id, resource_type, status, reason, *rest, **named)
        own = resource_type == "AWS::CloudFormation::Stack" and logical_id == stack
        watcher(
            StackEvent(
                stack_id=stack_id,
                stack_name=stack,
                resource=None if own else logical_id,
                resource_type=resource_type,
                status=status,
                reason=reason,
                token=str(stacks.CLIENT_REQUEST_TOKEN.get()),
                region=stack_id.split(":")[3],
            )
        )

    for module in (stacks, handlers, importlib.import_module(f"{_CFN}.changesets")):
        if hasattr(module, "_add_event"):
            _replace(module, "_add_event", add_event)

    def remembering(action: Callable[[Mapping[str, Any]], Any]) -> Callable[[Mapping[str, Any]], Any]:
        def call(params: Mapping[str, Any]) -> Any:
            role, stack = params.get("RoleARN", [""])[0], params.get("StackName", [""])[0]
            if role and stack:
                name = stack.split("/")[1] if stack.startswith("arn:") else stack
                _STACK_ROLES[current_region(), name] = role
            return action(params)

        return call

    for name in ("CreateStack", "UpdateStack", "CreateChangeSet"):
        package._ACTION_HANDLERS[name] = remembering(package._ACTION_HANDLERS[name])


def stack_role(stack: str) -> str | None:
    """Return the role that a stack is deployed with, None when it was given none."""
    return _STACK_ROLES.get((current_region(), stack))


def deployers_of(resource_type: str, name: str) -> set[str]:
    """Return the deployment roles of the stacks that made a resource of that type and name."""
    stacks = importlib.import_module(_CFN)._stacks
    found = set()
    for stack in stacks.values():
        made = [
            resource
            for resource in stack.get("_resources", {}).values()
            if resource.get("ResourceType") == resource_type
            and name in str(resource.get("PhysicalResourceId", "")).split("|")
        ]
        role = stack_role(str(stack.get("StackName", "")))
        if made and role is not None:
            found.add(role)
    return found


def answer_resolved_parameters() -> None:
    """Let DescribeStacks tell the name and the value of a parameter that is read from Parameter Store.

    ministack answers the value alone, so that nobody could tell what a stack runs from what it is told to
    read.
    """
    package = importlib.import_module(_CFN)
    tree = importlib.import_module("xml.etree.ElementTree")
    original = package._ACTION_HANDLERS["DescribeStacks"]

    def describe(params: Mapping[str, Any]) -> Any:
        status, headers, body = original(params)
        records = {
            stack.get("StackId"): stack.get("_resolved_params") or {} for stack in package._stacks.values()
        }
        if not any("SsmName" in value for record in records.values() for value in record.values()):
            return status, headers, body
        root = tree.fromstring(body)
        namespace = root.tag.partition("}")[0].lstrip("{")
        tree.register_namespace("", namespace)
        prefix = f"{{{namespace}}}"
        for stack in root.iter(f"{prefix}member"):
            record = records.get(stack.findtext(f"{prefix}StackId"), {})
            for parameter in stack.findall(f"{prefix}Parameters/{prefix}member"):
                known = record.get(parameter.findtext(f"{prefix}ParameterKey"), {})
                value = parameter.find(f"{prefix}ParameterValue")
                if "SsmName" in known and value is not None:
                    value.text = str(known["SsmName"])
                    tree.SubElement(parameter, f"{prefix}ResolvedValue").text = str(known["Value"])
        return status, headers, tree.tostring(root)

    package._ACTION_HANDLERS["DescribeStacks"] = describe


def correct_conditions() -> None:
    """Let conditions use every function that they may.

    ministack's take ``Fn::Join`` and others for a text, so the bootstrap template's deployment role gets no
    policy.
    """
    engine = importlib.import_module(f"{_CFN}.engine")

    def evaluate(template: Mapping[str, Any], params: Mapping[str, Any]) -> dict[str, bool]:
        definitions = template.get("Conditions", {})
        mappings = template.get("Mappings", {})
        known: dict[str, bool] = {}

        def truth(expression: Any) -> bool:
            if isinstance(expression, str):
                return named(expression)
            (function, argument), *_ = expression.items()
            if function == "Fn::Equals":
                left, right = (value(part) for part in argument)
                return str(left) == str(right)
            if function in ("Fn::And", "Fn::Or"):
                parts = [truth(part) for part in argument]
                return all(parts) if function == "Fn::And" else any(parts)
            if function == "Fn::Not":
                return not truth(argument[0])
            if function == "Condition":
                return named(argument)
            raise ValueError(f"Template validation error: {function} is no condition function")

        def named(name: str) -> bool:
            if name not in known:
                if name not in definitions:
                    raise ValueError(f"Template validation error: Unresolved condition dependency {name}")
                known[name] = truth(definitions[name])
            return known[name]

        def value(part: Any) -> Any:
            return engine._resolve_refs(part, {}, params, known, mappings, "", "")

        for name in definitions:
            named(name)
        return known

    for module in ("engine", "stacks", "changesets", "handlers", "drift", "provisioners"):
        found = importlib.import_module(f"{_CFN}.{module}")
        if hasattr(found, "_evaluate_conditions"):
            _replace(found, "_evaluate_conditions", evaluate)


def role_exists(role_arn: str) -> bool:
    """Say whether there is a role of that ARN."""
    return role_policies(role_arn) is not None


# -- tasks of ECS -----------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class TaskFacts:
    """What an ECS task's containers need to know of its definition and its service."""

    family: str
    role: str | None
    execution_role: str | None
    #: Port and path at which the service's load balancer looks for health, None without one.
    health: tuple[int, str] | None


def use_task_containers(engine: object) -> None:
    """Start the containers of ECS tasks by ``engine``, which has what ministack uses of a Docker client."""
    ecs = importlib.import_module("ministack.services.ecs")
    _replace(ecs, "_docker", engine)


def task_facts(task_arn: str) -> TaskFacts:
    """Return what is known of a task, by its ARN.

    :raises KeyError: there is no such task
    """
    ecs = importlib.import_module("ministack.services.ecs")
    alb = importlib.import_module("ministack.services.alb")
    account, region = task_arn.split(":")[4], task_arn.split(":")[3]
    with account_scope(account, region):
        task = ecs._tasks[task_arn]
        definition = ecs._task_defs[ecs._resolve_td_key(task["taskDefinitionArn"])]
        name = str(task.get("group", "")).removeprefix("service:")
        service = ecs._services.get(f"{task['clusterArn'].rsplit('/', 1)[-1]}/{name}") or {}
        health = None
        for balancer in service.get("loadBalancers") or ():
            group = alb._tgs.get(balancer.get("targetGroupArn"))
            if group is not None:
                health = (int(balancer["containerPort"]), str(group.get("HealthCheckPath") or "/"))
    return TaskFacts(
        family=str(definition["family"]),
        role=definition.get("taskRoleArn"),
        execution_role=definition.get("executionRoleArn"),
        health=health,
    )


def service_deployment(service_arn: str) -> dict[str, Any]:
    """Return the newest deployment that a service of ECS means, with its count of running tasks."""
    ecs = importlib.import_module("ministack.services.ecs")
    account, region = service_arn.split(":")[4], service_arn.split(":")[3]
    with account_scope(account, region):
        service = ecs._services["/".join(service_arn.split("/")[-2:])]
        primary = ecs._primary_deployment(service) or {}
        failed = [d for d in service.get("deployments", ()) if d.get("rolloutState") == "FAILED"]
        return {
            "definition": service["taskDefinition"],
            "state": primary.get("rolloutState", "COMPLETED"),
            "desired": int(service.get("desiredCount", 0)),
            "running": int(service.get("runningCount", 0)),
            "failed": {d["taskDefinition"]: d.get("rolloutStateReason", "") for d in failed},
        }


@dataclass(frozen=True, kw_only=True)
class BalancedRequest:
    """A request that a load balancer has answered; it and its target group as their metrics name them."""

    balancer: str
    group: str | None
    targets: int
    status: int
    seconds: float


def watch_load_balancers(watcher: Callable[[BalancedRequest], None]) -> None:
    """Call ``watcher(request)`` after each request to an application load balancer."""
    alb = importlib.import_module("ministack.services.alb")
    original = alb.dispatch_request

    async def dispatch(lb: Mapping[str, Any], *args: Any, **given: Any) -> Any:
        began = _real_time.monotonic()
        answer = await original(lb, *args, **given)
        group, targets = None, 0
        for listener in list(alb._listeners.values()):
            for action in listener.get("DefaultActions", ()):
                if listener["LoadBalancerArn"] == lb["LoadBalancerArn"] and action.get("TargetGroupArn"):
                    group = action["TargetGroupArn"].rsplit(":", 1)[-1]
                    targets = len(alb._targets.get(action["TargetGroupArn"]) or ())
        name = lb["LoadBalancerArn"].partition(":loadbalancer/")[2]
        watcher(
            BalancedRequest(
                balancer=name,
                group=group,
                targets=targets,
                status=int(answer[0]),
                seconds=_real_time.monotonic() - began,
            )
        )
        return answer

    _replace(alb, "dispatch_request", dispatch)
