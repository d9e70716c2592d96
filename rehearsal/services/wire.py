"""Reads requests and writes answers of any AWS service by botocore's model of it: the server's side of a
client.

Spoken are the protocols ``json``, ``rest-json`` and ``query``. Event streams are not; an operation that
answers one is refused.
"""

from __future__ import annotations

import base64
import binascii
import functools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import parse_qs, unquote
from xml.etree import ElementTree as ET

from botocore.utils import parse_timestamp

from rehearsal.services.engine import ApiError, service_model

if TYPE_CHECKING:
    from botocore.model import OperationModel

__all__ = ["Request", "Response", "Wire", "wire"]

#: A shape of botocore's models. Its members depend on its ``type_name``, which types cannot follow.
Shape: TypeAlias = Any


@dataclass(frozen=True, kw_only=True)
class Request:
    """One HTTP request; header names are in lower case, ``path`` is as sent (still quoted)."""

    method: str
    path: str
    query: Mapping[str, Sequence[str]]
    headers: Mapping[str, str]
    body: bytes = b""


@dataclass(frozen=True, kw_only=True)
class Response:
    """One HTTP answer."""

    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class _Route:
    method: str
    pattern: re.Pattern[str]
    required_query: frozenset[str]
    operation: str
    literal: int


class Wire:
    """One service on the wire."""

    def __init__(self, service: str) -> None:
        self.model = service_model(service)
        self.protocol = str(self.model.metadata["protocol"])
        if self.protocol not in ("json", "rest-json", "query"):
            raise ValueError(
                f"{service} speaks {self.protocol}; the rehearsal serves json, rest-json and query"
            )
        self._routes = self._build_routes() if self.protocol.startswith("rest") else ()

    # -- requests ---------------------------------------------------------------------------------------

    def _build_routes(self) -> tuple[_Route, ...]:
        routes = []
        for name in self.model.operation_names:
            http = self.model.operation_model(name).http
            path, _, query = http["requestUri"].partition("?")
            escaped = re.escape(path)
            pattern = re.sub(r"\\\{(\w+)\\\+\\\}", r"(?P<\1>.+)", escaped)
            pattern = re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>[^/]+)", pattern)
            routes.append(
                _Route(
                    method=http["method"],
                    pattern=re.compile(pattern + "/?"),
                    required_query=frozenset(parse_qs(query, keep_blank_values=True)),
                    operation=name,
                    literal=len(re.sub(r"\{[^}]*\}", "", path)) + 1000 * bool(query),
                )
            )
        # The route with most literal text is the most particular one.
        return tuple(sorted(routes, key=lambda route: -route.literal))

    def operation_of(self, request: Request) -> str | None:
        """Return the operation that a request means, None when it is none of this service's."""
        if self.protocol == "json":
            prefix, _, name = request.headers.get("x-amz-target", "").rpartition(".")
            return name if prefix == self.model.metadata.get("targetPrefix") else None
        if self.protocol == "query":
            values = self._form(request).get("Action")
            return values[0] if values else None
        found = self._route(request)
        return None if found is None else found[0].operation

    def _route(self, request: Request) -> tuple[_Route, re.Match[str]] | None:
        for route in self._routes:
            if route.method == request.method and route.required_query <= set(request.query):
                match = route.pattern.fullmatch(request.path)
                if match is not None:
                    return route, match
        return None

    def parse(self, request: Request, operation: str) -> dict[str, Any]:
        """Return the parameters of a request, typed as the model says."""
        shape = self._operation(operation).input_shape
        if self.protocol == "query":
            return {} if shape is None else _from_form(shape, "", self._form(request)) or {}
        if self.protocol == "json":
            body = _json_object(request.body)
            return body if shape is None else _from_json_members(shape, body)
        return {} if shape is None else self._parse_rest(request, shape)

    def _parse_rest(self, request: Request, shape: Shape) -> dict[str, Any]:  # noqa: PLR0912 - one per place
        found = self._route(request)
        uri = {} if found is None else found[1].groupdict()
        params: dict[str, Any] = {}
        members: Mapping[str, Shape] = shape.members
        in_body: dict[str, Shape] = {}
        payload = shape.serialization.get("payload")
        for name, member in members.items():
            location = member.serialization.get("location")
            key = member.serialization.get("name", name)
            if location == "uri":
                params[name] = _from_text(member, unquote(uri[key]))
            elif location == "querystring":
                if key in request.query:
                    params[name] = _from_query(member, request.query[key])
            elif location == "header":
                if key.lower() in request.headers:
                    params[name] = _from_text(member, request.headers[key.lower()])
            elif location == "headers":
                start = key.lower()
                params[name] = {k[len(start) :]: v for k, v in request.headers.items() if k.startswith(start)}
            elif name != payload:
                in_body[name] = member
        if payload is not None:
            member = members[payload]
            if member.type_name in ("blob", "string"):
                if request.body or member.type_name == "blob":
                    blob = member.type_name == "blob"
                    params[payload] = request.body if blob else request.body.decode()
            elif request.body:
                params[payload] = _from_json(member, _json_object(request.body))
        elif in_body:
            known = {member.serialization.get("name", name): name for name, member in in_body.items()}
            for key, value in _json_object(request.body).items():
                if key in known and value is not None:
                    params[known[key]] = _from_json(in_body[known[key]], value)
                elif value is not None:
                    # Kept, so that validation refuses it by name.
                    params[key] = value
        return params

    @staticmethod
    def _form(request: Request) -> dict[str, list[str]]:
        return {
            **{key: list(values) for key, values in request.query.items()},
            **parse_qs(request.body.decode("utf-8", "replace"), keep_blank_values=True),
        }

    def _operation(self, name: str) -> OperationModel:
        if name not in self.model.operation_names:
            raise ApiError("UnknownOperationException", f"{self.model.service_name} has no operation {name}")
        return self.model.operation_model(name)

    # -- answers ----------------------------------------------------------------------------------------

    def render(  # noqa: PLR0911 - one per protocol and kind of body
        self, operation: str, output: Mapping[str, Any], request_id: str
    ) -> Response:
        """Return the answer of an operation."""
        model = self._operation(operation)
        shape = model.output_shape
        headers = {"x-amzn-RequestId": request_id}
        status = int(model.http.get("responseCode", 200))
        if self.protocol == "query":
            return Response(
                status=status,
                body=self._xml(operation, shape, output, request_id),
                headers={**headers, "Content-Type": "text/xml"},
            )
        if self.protocol == "json":
            headers["Content-Type"] = (
                f"application/x-amz-json-{self.model.metadata.get('jsonVersion', '1.1')}"
            )
            body = {} if shape is None else _to_json(shape, output)
            return Response(status=status, body=json.dumps(body).encode(), headers=headers)
        headers["Content-Type"] = "application/json"
        if shape is None:
            return Response(status=status, body=b"{}", headers=headers)
        members: Mapping[str, Shape] = shape.members
        payload = shape.serialization.get("payload")
        body_members: dict[str, Any] = {}
        for name, value in output.items():
            member = members[name]
            location = member.serialization.get("location")
            if location == "header":
                headers[member.serialization.get("name", name)] = _to_text(member, value)
            elif location == "statusCode":
                status = int(value)
            elif location is None and name != payload:
                body_members[member.serialization.get("name", name)] = _to_json(member, value)
        if payload is None:
            return Response(status=status, body=json.dumps(body_members).encode(), headers=headers)
        member = members[payload]
        value = output.get(payload)
        if getattr(member, "is_eventstream", member.serialization.get("eventstream", False)):
            raise ApiError("NotImplemented", f"the rehearsal does not stream the answer of {operation}", 501)
        if member.type_name == "blob":
            headers["Content-Type"] = headers.get("Content-Type", "application/octet-stream")
            return Response(status=status, body=value or b"", headers=headers)
        if member.type_name == "string":
            return Response(status=status, body=str(value or "").encode(), headers=headers)
        return Response(
            status=status, body=json.dumps(_to_json(member, value or {})).encode(), headers=headers
        )

    def render_error(self, error: ApiError, request_id: str) -> Response:
        """Return the answer that carries an error."""
        headers = {"x-amzn-RequestId": request_id, "x-amzn-ErrorType": error.code}
        if self.protocol == "query":
            root = ET.Element("ErrorResponse")
            node = ET.SubElement(root, "Error")
            for key, value in (
                ("Type", "Sender" if error.status < 500 else "Receiver"),
                ("Code", error.code),
                ("Message", error.message),
            ):
                ET.SubElement(node, key).text = value
            ET.SubElement(root, "RequestId").text = request_id
            headers["Content-Type"] = "text/xml"
            return Response(status=error.status, body=ET.tostring(root), headers=headers)
        body = {"__type": error.code, "message": error.message, "Message": error.message, **error.members}
        version = self.model.metadata.get("jsonVersion", "1.1")
        json_type = f"application/x-amz-json-{version}" if self.protocol == "json" else "application/json"
        headers["Content-Type"] = json_type
        return Response(status=error.status, body=json.dumps(body).encode(), headers=headers)

    def _xml(self, operation: str, shape: Shape | None, output: Mapping[str, Any], request_id: str) -> bytes:
        root = ET.Element(f"{operation}Response", xmlns=str(self.model.metadata.get("xmlNamespace", "")))
        if shape is not None:
            wrapper = shape.serialization.get("resultWrapper")
            _to_xml(shape, output, ET.SubElement(root, wrapper) if wrapper else root)
        ET.SubElement(ET.SubElement(root, "ResponseMetadata"), "RequestId").text = request_id
        return ET.tostring(root)


@functools.cache
def wire(service: str) -> Wire:
    """Return the wire of a service."""
    return Wire(service)


# -- values -------------------------------------------------------------------------------------------------


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body or b"{}")
    except (ValueError, UnicodeDecodeError) as error:
        raise ApiError("SerializationException", f"the request body is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise ApiError("SerializationException", "the request body must be a JSON object")
    return value


def _from_json_members(shape: Shape, value: Mapping[str, Any]) -> dict[str, Any]:
    names: Mapping[str, Shape] = shape.members
    known = {member.serialization.get("name", name): name for name, member in names.items()}
    return {
        known.get(key, key): _from_json(names[known[key]], part) if key in known else part
        for key, part in value.items()
        if part is not None
    }


def _from_json(shape: Shape, value: Any) -> Any:
    """Type a JSON value by its shape; one that does not fit stays as it is for validation to refuse."""
    kind = shape.type_name
    if kind == "structure" and isinstance(value, Mapping):
        return _from_json_members(shape, value)
    if kind == "list" and isinstance(value, list):
        return [_from_json(shape.member, part) for part in value]
    if kind == "map" and isinstance(value, Mapping):
        return {key: _from_json(shape.value, part) for key, part in value.items()}
    if kind in ("timestamp", "blob") and isinstance(value, str | int | float):
        return _from_text(shape, value)
    return value


def _from_text(shape: Shape, value: Any) -> Any:
    kind = shape.type_name
    try:
        if kind == "timestamp":
            return _aware(parse_timestamp(value))
        if kind == "blob":
            return base64.b64decode(value, validate=True)
        if kind in ("integer", "long"):
            return int(value)
        if kind in ("float", "double"):
            return float(value)
    except (ValueError, TypeError, binascii.Error):
        raise ApiError("SerializationException", f"{value!r} is not a {kind}") from None
    if kind == "boolean":
        return value if isinstance(value, bool) else str(value).lower() == "true"
    return value


def _aware(value: datetime) -> datetime:
    return value if value.tzinfo is not None else value.replace(tzinfo=UTC)


def _from_query(shape: Shape, values: Sequence[str]) -> Any:
    if shape.type_name == "list":
        return [_from_text(shape.member, value) for value in values]
    return _from_text(shape, values[0])


def _from_form(shape: Shape, prefix: str, form: Mapping[str, Sequence[str]]) -> Any:
    """Type the fields of a query-protocol form below ``prefix``; None when there are none."""
    kind = shape.type_name
    if kind == "structure":
        out = {}
        for name, member in shape.members.items():
            key = member.serialization.get("name", name)
            value = _from_form(member, f"{prefix}.{key}" if prefix else key, form)
            if value is not None:
                out[name] = value
        return out or None
    if kind in ("list", "map"):
        flat = shape.serialization.get("flattened", False)
        item = "" if flat else ".member" if kind == "list" else ".entry"
        found = [_indexed(f"{prefix}{item}", key) for key in form]
        numbers = sorted({number for number in found if number is not None})
        if not numbers:
            return None
        if kind == "list":
            member = shape.member
            return [_from_form(member, f"{prefix}{item}.{n}", form) for n in numbers]
        return {
            _from_form(shape.key, f"{prefix}{item}.{n}.key", form): _from_form(
                shape.value,
                f"{prefix}{item}.{n}.value",
                form,
            )
            for n in numbers
        }
    return _from_text(shape, form[prefix][0]) if prefix in form else None


def _indexed(prefix: str, key: str) -> int | None:
    match = re.match(re.escape(prefix) + r"\.(\d+)(?:\.|$)", key)
    return int(match.group(1)) if match else None


def _to_json(shape: Shape, value: Any) -> Any:  # noqa: PLR0911 - one per kind of shape
    kind = shape.type_name
    if kind == "structure":
        members: Mapping[str, Shape] = shape.members
        return {
            members[key].serialization.get("name", key): _to_json(members[key], part)
            for key, part in value.items()
            if part is not None and key in members
        }
    if kind == "list":
        return [_to_json(shape.member, part) for part in value]
    if kind == "map":
        return {str(key): _to_json(shape.value, part) for key, part in value.items()}
    if kind == "timestamp":
        if shape.serialization.get("timestampFormat") == "iso8601":
            return _iso(value)
        return value.timestamp() if isinstance(value, datetime) else value
    if kind == "blob":
        return base64.b64encode(value).decode()
    return value


def _to_text(shape: Shape, value: Any) -> str:
    if shape.type_name == "timestamp":
        if shape.serialization.get("timestampFormat") == "iso8601":
            return _iso(value)
        return format_datetime(value.astimezone(UTC), usegmt=True)
    if shape.type_name == "boolean":
        return "true" if value else "false"
    return str(value)


def _iso(value: datetime) -> str:
    return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _to_xml(shape: Shape, value: Any, node: ET.Element) -> None:
    kind = shape.type_name
    if kind == "structure":
        members: Mapping[str, Shape] = shape.members
        for key, part in value.items():
            if part is not None and key in members:
                _to_xml_member(members[key], members[key].serialization.get("name", key), part, node)
    elif kind == "timestamp":
        node.text = _iso(value)
    elif kind == "blob":
        node.text = base64.b64encode(value).decode()
    elif kind == "boolean":
        node.text = "true" if value else "false"
    else:
        node.text = str(value)


def _to_xml_member(shape: Shape, name: str, value: Any, node: ET.Element) -> None:
    if shape.type_name == "list":
        flat = shape.serialization.get("flattened", False)
        parent = node if flat else ET.SubElement(node, name)
        member: Shape = shape.member
        for part in value:
            item = name if flat else member.serialization.get("name", "member")
            _to_xml_member(member, item, part, parent)
    elif shape.type_name == "map":
        parent = ET.SubElement(node, name)
        for key, part in value.items():
            entry = ET.SubElement(parent, "entry")
            ET.SubElement(entry, "key").text = str(key)
            _to_xml_member(shape.value, "value", part, entry)
    else:
        _to_xml(shape, value, ET.SubElement(node, name))
