"""The front door of the embedded AWS: one ASGI application around ministack's.

A request goes to the rehearsal's control functions, to one of our own services, or to ministack. Before it
gets to either kind of AWS service, the permissions of the role it is signed as are checked.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import json
import re
import sys
import traceback
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from email.utils import formatdate
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import parse_qs, unquote

from rehearsal import ministack_bridge as bridge
from rehearsal.calls import CALLS, Made, who_of
from rehearsal.control import ControlError, handlers
from rehearsal.executors.trails import identity
from rehearsal.faults import FAULT_MESSAGE, FAULTS, KILL_AFTER, KILL_BEFORE, as_said_by, delay_of, hit, met
from rehearsal.iam import AccessDeniedError
from rehearsal.ministack_bridge import Check
from rehearsal.services.engine import ApiError, Call, hooked_operations
from rehearsal.services.permissions import checks_of_call
from rehearsal.services.wire import Request, Response, Wire, wire

if TYPE_CHECKING:
    from rehearsal.iam import Principal
    from rehearsal.runtime import Runtime

__all__ = ["FORWARD_HEADER", "OWN_SERVICES", "Gateway"]

#: The services that ministack lacks and the engine serves.
OWN_SERVICES = (
    "sagemaker",
    "sagemaker-runtime",
    "sagemaker-featurestore-runtime",
    "sagemaker-metrics",
    "lakeformation",
    "codepipeline",
    "application-autoscaling",
    "codestar-connections",
    "codeconnections",
    "dms",
    "datasync",
    "emr-serverless",
    "greengrassv2",
    "databrew",
    "comprehend",
    "kafka",
    "kinesisvideo",
    "kinesis-video-archived-media",
    "redshift-serverless",
    "quicksight",
    "fsx",
    # Ministack would start Airflow in Docker.
    "mwaa",
    "codedeploy",
    "securityhub",
    "guardduty",
    "servicecatalog",
)
#: Set on our own calls that must reach ministack although the engine answers the operation.
FORWARD_HEADER = "x-rehearsal-forward"

_CREDENTIAL = re.compile(r"Credential=([^/]+)/[^/]+/([^/]+)/([^/]+)/")
_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True)
class _Signed:
    """What a request's signature says: who, for which region, to which service."""

    access_key_id: str
    region: str
    scope: str


@dataclass(frozen=True)
class _Asked:
    """What a call asks ministack for: the service, and the permissions that it needs, its own first."""

    service: str
    checks: tuple[Check, ...]

    @property
    def action(self) -> str:
        return self.checks[0].action

    @property
    def resource(self) -> str:
        return self.checks[0].resource


class Gateway:
    """The ASGI application."""

    def __init__(self, runtime: Runtime, application: Callable[..., Any]) -> None:
        self._runtime = runtime
        self._ministack = application
        # Calls nest (a function invokes an endpoint that reads S3), so the pool is far wider than any
        # nesting.
        self._threads = ThreadPoolExecutor(max_workers=256, thread_name_prefix="gateway")
        self._own: dict[str, list[str]] = {}
        for service in OWN_SERVICES:
            self._own.setdefault(_signing_name(service), []).append(service)
        self._hooked: dict[str, list[str]] = {}
        for service in hooked_operations():
            if service not in OWN_SERVICES:
                self._hooked.setdefault(_signing_name(service), []).append(service)

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Serve one ASGI connection."""
        if scope["type"] != "http":
            await self._ministack(scope, receive, send)
            return
        headers = {k.decode("latin-1").lower(): v.decode("latin-1") for k, v in scope["headers"]}
        path = scope["path"]
        if path.startswith("/_rehearsal/"):
            await _send(send, await self._control(scope, await _body(receive)))
            return
        query = parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        signed = self._signed(headers, query)
        principal = await self._threaded(self._runtime.identities.principal, signed.access_key_id)
        trails = self._runtime.trails
        if trails is not None and signed.scope:
            send = trails.watching(
                send,
                scope=signed.scope,
                method=scope["method"],
                path=path,
                query=query,
                headers=headers,
                region=signed.region,
                who=lambda: identity(principal, signed.access_key_id, self._runtime.account),
            )
        candidates = [] if FORWARD_HEADER in headers else self._candidates(signed, headers)
        if not candidates and principal is None:
            await self._ministack(scope, receive, send)
            return
        body = await _body(receive)
        request = Request(
            method=scope["method"],
            path=scope.get("raw_path", path.encode()).decode("latin-1").partition("?")[0],
            query=query,
            headers=headers,
            body=body,
        )
        for service in candidates:
            spoken = wire(service)
            operation = spoken.operation_of(request)
            if operation is None or (
                service not in OWN_SERVICES and operation not in hooked_operations().get(service, frozenset())
            ):
                continue
            answer = self._threaded(self._own_service, service, spoken, operation, request, signed, principal)
            await _send(send, await answer)
            return
        if candidates and all(service in OWN_SERVICES for service in candidates):
            unknown = ApiError(
                "UnknownOperationException", f"{request.method} {path} is no operation of {signed.scope}"
            )
            await _send(send, wire(candidates[0]).render_error(unknown, str(uuid.uuid4())))
            return
        if principal is None:
            await self._ministack(scope, _replay(body), send)
            return
        await self._role_at_ministack(scope, send, request, path, signed, principal)

    async def _role_at_ministack(  # noqa: PLR0917
        self,
        scope: dict[str, Any],
        send: Any,
        request: Request,
        path: str,
        signed: _Signed,
        principal: Principal,
    ) -> None:
        """Serve a role's call of one of ministack's services, if its policies allow it."""
        asked = await self._threaded(self._asked, principal, signed, request, path)
        refusal = await self._threaded(self._refusal, principal, signed, request, asked)
        if refusal is not None:
            await _send(send, refusal)
            return
        if signed.scope == "s3" and request.method in ("GET", "HEAD"):
            send = self._hiding_absence(send, principal, signed, request, path)
        made = CALLS.begin(asked.action, asked.resource, who_of(principal))
        step = FAULTS.take(asked.action, who_of(principal)) if FAULTS.planned else None
        if step is None:
            await self._ministack(scope, _replay(request.body), _noting(send, made))
            return
        made.outcome = step
        await self._under_fault(scope, send, request, asked, step, principal)

    async def _under_fault(  # noqa: PLR0917
        self,
        scope: dict[str, Any],
        send: Any,
        request: Request,
        asked: _Asked,
        step: str,
        principal: Principal,
    ) -> None:
        """Let ministack carry out a call as planned: refused, late, or the last thing its function does."""
        seconds = delay_of(step)
        if seconds is None and step != KILL_AFTER:
            await self._threaded(hit, self._runtime, asked.action, step, principal)
            code = "InternalFailure" if step == KILL_BEFORE else step
            await _send(send, _fault_answer(asked.service, code, request))
            return
        kept: list[dict[str, Any]] = []

        async def keep(message: dict[str, Any]) -> None:
            kept.append(message)

        await self._ministack(scope, _replay(request.body), keep)
        await self._threaded(hit, self._runtime, asked.action, step, principal)
        await asyncio.sleep(seconds or 0)
        for message in kept:
            await send(message)

    # -- who and what -----------------------------------------------------------------------------------

    def _signed(self, headers: Mapping[str, str], query: Mapping[str, list[str]]) -> _Signed:
        text = headers.get("authorization", "")
        if not text and "X-Amz-Credential" in query:
            text = f"Credential={query['X-Amz-Credential'][0]}/"
        match = _CREDENTIAL.search(text)
        if match is None:
            return _Signed(access_key_id="", region=self._runtime.region, scope="")
        return _Signed(access_key_id=match.group(1), region=match.group(2), scope=match.group(3))

    def _candidates(self, signed: _Signed, headers: Mapping[str, str]) -> list[str]:
        """Return our services that a request may be for."""
        del headers
        return [*self._own.get(signed.scope, ()), *self._hooked.get(signed.scope, ())]

    async def _threaded(self, function: Callable[..., _T], *args: Any) -> _T:
        context = contextvars.copy_context()
        call = functools.partial(context.run, function, *args)
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)

    # -- our own services -------------------------------------------------------------------------------

    def _own_service(  # noqa: PLR0917
        self,
        name: str,
        spoken: Wire,
        operation: str,
        request: Request,
        signed: _Signed,
        principal: Principal | None,
    ) -> Response:
        request_id = str(uuid.uuid4())
        what = f"{name}:{operation}"

        def called() -> Response:
            service = self._runtime.service(name, signed.region)
            call = Call(
                operation=service.operation(operation).name,
                params=spoken.parse(request, operation),
                principal=None if principal is None else principal.role_arn,
                region=signed.region,
            )

            def served() -> Response:
                return spoken.render(operation, service.dispatch(call), request_id)

            if principal is None:
                return served()
            checks = checks_of_call(service, call)
            self._runtime.authorizer.require(principal, name, checks, signed.region)
            first = checks[0] if checks else Check(action=what, resource="*")
            made = CALLS.begin(first.action, first.resource, who_of(principal))
            step = FAULTS.take(first.action, who_of(principal)) if FAULTS.planned else None
            answer = met(
                self._runtime,
                first.action,
                step,
                principal,
                carry_out=lambda: self._answered(spoken, what, request_id, served),
                refused=lambda code: _refused(spoken, code, request_id),
            )
            made.outcome = step or str(answer.status)
            return answer

        return self._answered(spoken, what, request_id, called)

    def _answered(
        self, spoken: Wire, what: str, request_id: str, carry_out: Callable[[], Response]
    ) -> Response:
        """Carry a call out; what it raises becomes its answer."""
        try:
            return carry_out()
        except AccessDeniedError as denied:
            return spoken.render_error(ApiError("AccessDeniedException", str(denied), 400), request_id)
        except ApiError as error:
            return spoken.render_error(error, request_id)
        except Exception as error:  # noqa: BLE001 - a defect of ours, answered as AWS answers one of its own
            print(f"rehearsal: {what} failed\n{traceback.format_exc()}", file=sys.stderr, flush=True)
            self._runtime.ledger.failed("gateway", what, f"{type(error).__name__}: {error}")
            text = f"defect in the rehearsal: {type(error).__name__}: {error}"
            return spoken.render_error(ApiError("InternalFailure", text, 500), request_id)

    # -- ministack's services ---------------------------------------------------------------------------

    @staticmethod
    def _asked(principal: Principal, signed: _Signed, request: Request, path: str) -> _Asked:
        """Return what a role's call asks ministack for."""
        headers = dict(request.headers)
        query = {key: list(values) for key, values in request.query.items()}
        service, checks = bridge.checks_of(
            request.method,
            path,
            headers,
            query,
            request.body,
            account=principal.account,
            region=signed.region,
        )
        # An action that nobody can name cannot have been granted.
        return _Asked(service, tuple(checks) or (Check(action=f"{service}:{request.method}", resource="*"),))

    def _refusal(
        self, principal: Principal, signed: _Signed, request: Request, asked: _Asked
    ) -> Response | None:
        """Return the refusal of a role's call, None when it is allowed."""
        if asked.action in ("sts:GetCallerIdentity", "sts:GetSessionToken"):
            return None
        headers, service = dict(request.headers), asked.service
        account, region = principal.account, signed.region
        checks = [
            *asked.checks,
            *bridge.kms_checks(service, asked.checks, headers, account=account, region=region),
        ]
        try:
            self._runtime.authorizer.require(principal, service, checks, region)
        except AccessDeniedError as denied:
            status, out, body = bridge.access_denied(
                denied.check,
                denied.decision,
                service=service,
                principal=principal.session_arn,
                headers=headers,
                request_id=str(uuid.uuid4()),
            )
            return Response(status=status, body=body, headers=out)
        return None

    def _hiding_absence(
        self,
        send: Callable[..., Any],
        principal: Principal,
        signed: _Signed,
        request: Request,
        path: str,
    ) -> Callable[..., Any]:
        """Wrap ``send``: what does not exist is 403 to who may not list the bucket (S3, GetObject,
        "Permissions").

        The request names a key and no prefix, so permission to list a prefix only does not count.
        """
        hidden = False

        async def wrapped(message: dict[str, Any]) -> None:
            nonlocal hidden
            if message["type"] == "http.response.start" and message["status"] == 404:
                refusal = await self._threaded(self._absence, principal, signed, request, path)
                if refusal is not None:
                    hidden = True
                    await _send(send, refusal)
            if not hidden:
                await send(message)

        return wrapped

    def _absence(self, principal: Principal, signed: _Signed, request: Request, path: str) -> Response | None:
        """Return the refusal that stands for "not found"; None when the caller may know."""
        headers = dict(request.headers)
        query = {key: list(values) for key, values in request.query.items()}
        account, region = principal.account, signed.region
        service, checks = bridge.checks_of(
            request.method, path, headers, query, request.body, account=account, region=region
        )
        if not checks or checks[0].action != "s3:GetObject":
            return None
        bucket = checks[0].resource.partition("/")[0]
        listing = Check(action="s3:ListBucket", resource=bucket)
        known = bridge.role_policies(principal.role_arn)
        policies, boundary = ((), []) if known is None else known
        decision = bridge.decide(
            listing,
            service=service,
            principal=principal.session_arn,
            policies=policies,
            boundary=boundary,
            principal_tags=bridge.role_tags(principal.role_arn),
            account=account,
            region=region,
        )
        if decision.allowed:
            return None
        status, out, body = bridge.access_denied(
            listing,
            decision,
            service=service,
            principal=principal.session_arn,
            headers=headers,
            request_id=str(uuid.uuid4()),
        )
        return Response(status=status, body=b"" if request.method == "HEAD" else body, headers=out)

    # -- the control plane ------------------------------------------------------------------------------

    async def _control(self, scope: Mapping[str, Any], raw: bytes) -> Response:
        path = "/" + scope["path"].removeprefix("/_rehearsal/").strip("/")
        handler = handlers().get((scope["method"], path))
        if handler is None:
            known = ", ".join(sorted(f"{method} /_rehearsal{where}" for method, where in handlers()))
            return _json(404, {"error": f"no {scope['method']} /_rehearsal{path}; there are: {known}"})
        try:
            if scope["method"] == "GET":
                query = parse_qs(scope["query_string"].decode("latin-1"))
                body: Any = {key: unquote(values[0]) for key, values in query.items()}
            else:
                body = json.loads(raw or b"{}")
            if not isinstance(body, dict):
                return _json(400, {"error": "the body must be a JSON object"})
            return _json(200, await self._threaded(handler, self._runtime, body))
        except json.JSONDecodeError as error:
            return _json(400, {"error": f"the body is not JSON: {error}"})
        except ControlError as error:
            return _json(400, {"error": str(error)})
        except Exception as error:  # noqa: BLE001 - a defect of ours must reach who asked
            print(f"rehearsal: {path} failed\n{traceback.format_exc()}", file=sys.stderr, flush=True)
            return _json(500, {"error": f"{type(error).__name__}: {error}"})


@functools.cache
def _signing_name(service: str) -> str:
    metadata = wire_metadata(service)
    return str(metadata.get("signingName", metadata["endpointPrefix"]))


def wire_metadata(service: str) -> Mapping[str, Any]:
    """Return the metadata of a service's model."""
    from rehearsal.services.engine import service_model

    return service_model(service).metadata


def _json(status: int, value: Mapping[str, Any]) -> Response:
    body = json.dumps(value, default=str).encode()
    return Response(status=status, body=body, headers={"Content-Type": "application/json"})


def _refused(spoken: Wire, code: str, request_id: str) -> Response:
    """The answer of one of our own services to a call that meets a fault."""
    said, status = as_said_by(spoken.protocol, code)
    return spoken.render_error(ApiError(said, FAULT_MESSAGE, status), request_id)


def _fault_answer(service: str, code: str, request: Request) -> Response:
    """The answer of one of ministack's services to a call that meets a fault, in the caller's protocol."""
    headers = dict(request.headers)
    if service == "s3":
        protocol = "rest-xml"
    elif "x-amz-target" in headers or "smithy-protocol" in headers:
        protocol = "json"
    elif headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        protocol = "query"
    else:
        protocol = "rest-json"
    said, status = as_said_by(protocol, code)
    out, body = bridge.error_answer(
        service, said, FAULT_MESSAGE, headers=headers, request_id=str(uuid.uuid4())
    )
    return Response(status=status, body=b"" if request.method == "HEAD" else body, headers=out)


def _noting(send: Any, made: Made) -> Any:
    """Wrap ``send``: the status of the answer is the call's outcome."""

    async def wrapped(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            made.outcome = str(message["status"])
        await send(message)

    return wrapped


async def _body(receive: Any) -> bytes:
    parts = []
    while True:
        message = await receive()
        if message["type"] != "http.request":
            break
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            break
    return b"".join(parts)


def _replay(body: bytes) -> Callable[[], Any]:
    sent = False
    gone = asyncio.Event()

    async def receive() -> dict[str, Any]:
        nonlocal sent
        if sent:
            # What follows a whole body is the client's leaving, which nobody here has to know.
            await gone.wait()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive


async def _send(send: Any, response: Response) -> None:
    headers = {
        "Date": formatdate(usegmt=True),
        **response.headers,
        "Content-Length": str(len(response.body)),
    }
    await send(
        {
            "type": "http.response.start",
            "status": response.status,
            "headers": [(k.encode("latin-1"), str(v).encode("latin-1")) for k, v in headers.items()],
        }
    )
    await send({"type": "http.response.body", "body": response.body})
