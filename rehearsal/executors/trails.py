"""CloudTrail: the calls that the gateway sees, written as log files to the buckets of the trails that ask.

An event is what CloudTrail would write of the call (CloudTrail User Guide, "CloudTrail record contents"):
who, when, what, whether it was refused; of a management event without its parameters. S3 object calls are
data events. Files appear five minutes of the rehearsal's clock after a call, or when they are asked for
(``POST /_rehearsal/trails/flush``), as CloudTrail: the bucket's and the key's policy must let it. There are
no digest files.
"""

from __future__ import annotations

import gzip
import json
import secrets
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from rehearsal import ministack_bridge as bridge
from rehearsal.control import control

if TYPE_CHECKING:
    from rehearsal.iam import Principal
    from rehearsal.runtime import Runtime
    from rehearsal.services.engine import Service

__all__ = ["Trails", "install", "note_table_reads"]

_DELAY = timedelta(minutes=5)
#: What is no management event and no object of S3 either: data planes that no trail here can select.
_DATA_PLANES = frozenset(
    {
        "firehose",
        "monitoring",
        "logs",
        "sqs",
        "sagemaker-runtime",
        "sagemaker-featurestore-runtime",
        "sagemaker-metrics",
    }
)
_DATA_CALLS = frozenset(
    {
        "PutRecord",
        "PutRecords",
        "GetRecords",
        "GetShardIterator",
        "SubscribeToShard",
        "GetItem",
        "PutItem",
        "UpdateItem",
        "DeleteItem",
        "Query",
        "Scan",
        "BatchGetItem",
        "BatchWriteItem",
        "Publish",
        "InvokeEndpoint",
    }
)
_READING = ("Get", "Head", "List", "Describe", "BatchGet", "Lookup", "Search")


class Trails:
    """Notes calls, and delivers them to the trails."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._events: list[dict[str, Any]] = []
        self._due: datetime | None = None
        self._lock = threading.Lock()

    # -- noting ---------------------------------------------------------------------------------------------

    def watching(
        self,
        send: Callable[..., Any],
        *,
        scope: str,
        method: str,
        path: str,
        query: Mapping[str, Sequence[str]],
        headers: Mapping[str, str],
        region: str,
        who: Callable[[], dict[str, Any]],
    ) -> Callable[..., Any]:
        """Wrap ``send`` of a call that a trail may record: it is noted once its status is known."""
        if not bridge.has_trails() or "x-rehearsal-forward" in headers or scope in _DATA_PLANES:
            return send
        event = _object_event(method, path, query, headers, self._runtime.account) if scope == "s3" else None
        if event is None:
            name = headers.get("x-amz-target", "").rpartition(".")[2]
            if not name or name in _DATA_CALLS:
                return send
            event = {"eventName": name, "eventCategory": "Management", "managementEvent": True}
        noted: dict[str, Any] = event

        async def wrapped(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                status = message["status"]
                # Absence is no event of its own: whoever lists has asked, whoever reads was answered.
                if status != 404:
                    refused = {"errorCode": "AccessDenied" if status == 403 else str(status)}
                    self.note(
                        {
                            **noted,
                            "eventSource": f"{scope}.amazonaws.com",
                            "awsRegion": region,
                            "userAgent": headers.get("user-agent", ""),
                            "userIdentity": who(),
                            **(refused if status >= 400 else {}),
                        }
                    )
            await send(message)

        return wrapped

    def note(self, event: Mapping[str, Any]) -> None:
        """Keep an event until it is delivered."""
        now = self._runtime.clock.now()
        full = {
            "eventVersion": "1.11",
            "eventTime": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "sourceIPAddress": "127.0.0.1",
            "requestParameters": None,
            "responseElements": None,
            "requestID": str(uuid.uuid4()),
            "eventID": str(uuid.uuid4()),
            "readOnly": str(event["eventName"]).startswith(_READING),
            "eventType": "AwsApiCall",
            "recipientAccountId": self._runtime.account,
            **event,
        }
        with self._lock:
            self._events.append(full)
            # A clock that jumped over the delivery has dropped it.
            if self._due is not None and now <= self._due + _DELAY:
                return
            self._due = now + _DELAY
        self._runtime.clock.at(now + _DELAY, "CloudTrail delivers", self.flush)

    # -- delivering -----------------------------------------------------------------------------------------

    def flush(self) -> list[str]:
        """Deliver what was noted; return the URIs of the files."""
        with self._lock:
            events, self._events, self._due = self._events, [], None
        written = []
        for trail, selectors in self._trails():
            region = trail["HomeRegion"]
            chosen = [
                event
                for event in events
                if (trail.get("IsMultiRegionTrail") or event["awsRegion"] == region)
                and any(_selected(event, selector) for selector in selectors)
            ]
            if chosen:
                uri = self._write(trail, chosen)
                written += [] if uri is None else [uri]
        return written

    def _trails(self) -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
        client = self._runtime.forwarding_client("cloudtrail")
        found = []
        for trail in client.describe_trails()["trailList"]:
            if client.get_trail_status(Name=trail["TrailARN"])["IsLogging"]:
                answer = client.get_event_selectors(TrailName=trail["TrailARN"])
                selectors = answer.get("AdvancedEventSelectors") or answer.get("EventSelectors") or []
                found.append((trail, selectors))
        return found

    def _write(self, trail: Mapping[str, Any], events: Sequence[Mapping[str, Any]]) -> str | None:
        account, region = self._runtime.account, trail["HomeRegion"]
        now = self._runtime.clock.now()
        prefix = f"{trail['S3KeyPrefix']}/" if trail.get("S3KeyPrefix") else ""
        name = f"{account}_CloudTrail_{region}_{now:%Y%m%dT%H%MZ}_{secrets.token_hex(8)}.json.gz"
        key = f"{prefix}AWSLogs/{account}/CloudTrail/{region}/{now:%Y/%m/%d}/{name}"
        bucket = trail["S3BucketName"]
        why = bridge.object_refusal(
            "cloudtrail.amazonaws.com",
            bucket,
            key,
            source_arn=trail["TrailARN"],
            account=account,
            region=region,
            context={
                "s3:x-amz-acl": "bucket-owner-full-control",
                "kms:EncryptionContext:aws:cloudtrail:arn": trail["TrailARN"],
            },
        )
        if why is not None:
            self._runtime.ledger.failed("cloudtrail", trail["Name"], why)
            return None
        body = gzip.compress(json.dumps({"Records": events}, default=str).encode())
        s3 = self._runtime.forwarding_client("s3", region=region)
        s3.put_object(
            Bucket=bucket, Key=key, Body=body, ContentType="application/json", ContentEncoding="gzip"
        )
        self._runtime.ledger.ran("cloudtrail", trail["Name"], events=len(events), file=f"s3://{bucket}/{key}")
        return f"s3://{bucket}/{key}"


def install(runtime: Runtime) -> None:
    """Let the gateway tell of its calls."""
    runtime.trails = Trails(runtime)


@control("POST", "/trails/flush")
def _flush(runtime: Runtime, body: dict[str, Any]) -> dict[str, Any]:
    """Deliver what the trails noted so far."""
    del body
    trails = runtime.trails
    return {"files": [] if trails is None else trails.flush()}


def note_table_reads(service: Service, query_id: str, accesses: Sequence[Mapping[str, Any]]) -> None:
    """Note for whom Lake Formation handed out the credentials of a location, or refused to.

    The reads of the objects themselves show the role of the registration (Lake Formation, "Auditing Lake
    Formation using CloudTrail").
    """
    trails = service.runtime.trails
    if trails is None or not bridge.has_trails():
        return
    for access in accesses:
        trails.note(
            {
                "eventName": "GetDataAccess",
                "eventSource": "lakeformation.amazonaws.com",
                "eventCategory": "Management",
                "managementEvent": True,
                "awsRegion": service.region,
                "userAgent": "athena.amazonaws.com",
                "userIdentity": {"type": "AWSService", "invokedBy": "athena.amazonaws.com"},
                "requestParameters": {"tableArn": access["table"], "columns": access["columns"]},
                "additionalEventData": {
                    "requesterService": "ATHENA",
                    "lakeFormationPrincipal": access["principal"],
                    "queryId": query_id,
                },
                **(
                    {"errorCode": "AccessDenied", "errorMessage": access["error"]}
                    if access["error"] is not None
                    else {}
                ),
            }
        )


def identity(principal: Principal | None, access_key_id: str, account: str) -> dict[str, Any]:
    """Return who called, as CloudTrail names a role's session or, for the operator, a user."""
    session = principal.session_arn if principal is not None else bridge.session_role(access_key_id)
    if session is None:
        return {
            "type": "IAMUser",
            "principalId": access_key_id,
            "arn": f"arn:aws:iam::{account}:user/operator",
            "accountId": account,
            "userName": "operator",
        }
    name = session.split("/")[1]
    role = principal.role_arn if principal is not None else f"arn:aws:iam::{account}:role/{name}"
    return {
        "type": "AssumedRole",
        "principalId": f"{access_key_id}:{session.rsplit('/', 1)[-1]}",
        "arn": session,
        "accountId": account,
        "accessKeyId": access_key_id,
        "sessionContext": {
            "sessionIssuer": {"type": "Role", "arn": role, "accountId": account, "userName": name},
            "attributes": {"mfaAuthenticated": "false"},
        },
    }


def _object_event(
    method: str,
    path: str,
    query: Mapping[str, Sequence[str]],
    headers: Mapping[str, str],
    account: str,
) -> dict[str, Any] | None:
    """Return the data event of a call on an object of S3; None for calls on buckets."""
    bucket, _, key = path.lstrip("/").partition("/")
    if not bucket or not key:
        return None
    name = {"GET": "GetObject", "HEAD": "HeadObject", "DELETE": "DeleteObject"}.get(method)
    if method == "PUT":
        name = "UploadPart" if "partNumber" in query else "PutObject"
        if "x-amz-copy-source" in headers:
            name = "CopyObject" if name == "PutObject" else "UploadPartCopy"
    elif method == "POST":
        name = "CreateMultipartUpload" if "uploads" in query else "CompleteMultipartUpload"
    if name is None or ("tagging" in query or "acl" in query):
        return None
    return {
        "eventName": name,
        "eventCategory": "Data",
        "managementEvent": False,
        "requestParameters": {"bucketName": bucket, "key": key},
        "resources": [
            {"type": "AWS::S3::Object", "ARN": f"arn:aws:s3:::{bucket}/{key}"},
            {"type": "AWS::S3::Bucket", "accountId": account, "ARN": f"arn:aws:s3:::{bucket}"},
        ],
    }


def _selected(event: Mapping[str, Any], selector: Mapping[str, Any]) -> bool:
    """Say whether a trail's selector takes an event."""
    if "FieldSelectors" not in selector:
        # Basic selectors: data events of the resources that they name.
        if event["eventCategory"] == "Management":
            return bool(selector.get("IncludeManagementEvents", True))
        values = [v for r in selector.get("DataResources", ()) for v in r.get("Values", ())]
        return any(event["resources"][0]["ARN"].startswith(value) for value in values)
    return all(_field_selected(event, field) for field in selector["FieldSelectors"])


def _field_selected(event: Mapping[str, Any], field: Mapping[str, Any]) -> bool:
    first = (event.get("resources") or [{}])[0]
    value = {
        "eventCategory": event["eventCategory"],
        "eventName": event["eventName"],
        "eventSource": event["eventSource"],
        "readOnly": str(event["readOnly"]).lower(),
        "resources.type": first.get("type", ""),
        "resources.ARN": first.get("ARN", ""),
        "userIdentity.arn": event["userIdentity"].get("arn", ""),
    }.get(field["Field"])
    if value is None:
        raise ValueError(f"a trail selects by {field['Field']}, which the rehearsal does not know")
    tests: dict[str, Callable[[str], bool]] = {
        "Equals": lambda wanted: value == wanted,
        "StartsWith": value.startswith,
        "EndsWith": value.endswith,
        "NotEquals": lambda wanted: value != wanted,
        "NotStartsWith": lambda wanted: not value.startswith(wanted),
        "NotEndsWith": lambda wanted: not value.endswith(wanted),
    }
    return all(
        (all if operator.startswith("Not") else any)(tests[operator](wanted) for wanted in values)
        for operator, values in field.items()
        if operator in tests
    )
