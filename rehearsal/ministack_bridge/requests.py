"""What a request asks for: its service and the permissions that it needs."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from typing import Any

from rehearsal.ministack_bridge._inside import account_scope
from rehearsal.ministack_bridge.permissions import Check
from rehearsal.ministack_bridge.state_machines import machine_of_token

#: Actions whose resources are the alarms named in the request.
_OF_ALARMS = (
    "cloudwatch:DescribeAlarms",
    "cloudwatch:DisableAlarmActions",
    "cloudwatch:EnableAlarmActions",
)


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
        elif service == "kms":
            context["kms:CallerAccount"] = account
        elif service == "events":
            arns = actions.eventbridge_resource_arns(body, region, account)[1:]
            checks += [Check(action=action, resource=arn) for arn in arns]
        elif service == "monitoring":
            context.update(_cloudwatch_context(action, headers, body, params))
            if action in _OF_ALARMS:
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
            resource = machine_of_token.get(str(_json_value_of(body, "taskToken")), resource)
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
