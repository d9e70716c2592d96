"""One engine for every AWS service that the embedded AWS lacks, driven by botocore's service models.

A `Service` validates each call against the model, keeps a record per resource and renders the answer by the
model. It knows no service by name: behaviour is added from outside with `instead` and `after`, and what the
model does not say (which parameter names a resource, how its ARN looks) stands in
`rehearsal.services.traits`.
"""

from __future__ import annotations

import base64
import functools
import re
import threading
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeAlias

import botocore.session
from botocore import xform_name
from botocore.exceptions import ClientError

from rehearsal.services.traits import Traits, traits
from rehearsal.services.validation import problems

if TYPE_CHECKING:
    from botocore.model import OperationModel, ServiceModel

    from rehearsal.runtime import Runtime

__all__ = ["ApiError", "Call", "Record", "Service", "after", "hooked_operations", "instead", "service_model"]

#: A shape of botocore's models. Its members depend on its ``type_name``, which types cannot follow.
Shape: TypeAlias = Any


class ApiError(Exception):
    """An error that an AWS service answers: its code, its message, its HTTP status.

    ``members`` are further members of a modelled error (``OriginalStatusCode`` of ``ModelError``).
    """

    def __init__(
        self, code: str, message: str, status: int = 400, *, members: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status
        self.members = dict(members) if members is not None else {}


@dataclass(frozen=True, kw_only=True)
class Call:
    """One validated call. ``principal`` is the role ARN it is made as, None for the operator."""

    operation: str
    params: dict[str, Any]
    principal: str | None
    region: str


@dataclass(kw_only=True)
class Record:
    """One resource as kept: ``data`` holds members by the names of the API."""

    name: str
    arn: str
    created: datetime
    updated: datetime
    status: str | None = None
    data: dict[str, Any] = field(default_factory=dict)


Instead: TypeAlias = "Callable[[Service, Call], dict[str, Any]]"
After: TypeAlias = "Callable[[Service, Call, dict[str, Any]], None]"

_INSTEAD: dict[tuple[str, str], Instead] = {}
_AFTER: dict[tuple[str, str], list[After]] = {}


@functools.cache
def _session() -> botocore.session.Session:
    return botocore.session.Session()


@functools.cache
def service_model(name: str) -> ServiceModel:
    """Return botocore's model of a service."""
    return _session().get_service_model(name)


def _known(service: str, operation: str) -> tuple[str, str]:
    if operation not in service_model(service).operation_names:
        raise ValueError(f"{service} has no operation {operation!r}; see botocore's model of {service}")
    return service, operation


def instead(service: str, operation: str) -> Callable[[Instead], Instead]:
    """Replace the generic behaviour of an operation; ``service.generic(call)`` still gives it."""
    key = _known(service, operation)

    def register(function: Instead) -> Instead:
        if key in _INSTEAD:
            raise ValueError(f"{service} {operation} is already replaced by {_INSTEAD[key].__module__}")
        _INSTEAD[key] = function
        return function

    return register


def after(service: str, operation: str) -> Callable[[After], After]:
    """Call the function after an operation succeeded, with the call and its output, before the answer is
    sent.
    """
    key = _known(service, operation)

    def register(function: After) -> After:
        _AFTER.setdefault(key, []).append(function)
        return function

    return register


def hooked_operations() -> dict[str, frozenset[str]]:
    """Return, per service, the operations whose behaviour was replaced with `instead`."""
    found: dict[str, set[str]] = {}
    for service, operation in _INSTEAD:
        found.setdefault(service, set()).add(operation)
    return {service: frozenset(operations) for service, operations in found.items()}


_VERB = re.compile(
    r"(BatchGet|BatchPut|BatchDelete|Create|Register|Put|Describe|Get|List|Search|Update|Delete|Deregister|Start|Stop|"
    r"Add|Grant|Revoke|Remove|Tag|Untag)(.*)"
)
_NOT_FILTERS = frozenset({"MaxResults", "NextToken", "SortBy", "SortOrder", "maxResults", "nextToken"})
_CREATING = frozenset({"Create", "Register", "Put"})
_READING = frozenset({"Describe", "Get"})
#: The state that a resource reaches by itself when nothing is run for it; the first that the model's enum
#: knows.
_SETTLED = (
    "InService",
    "Active",
    "Created",
    "Completed",
    "Succeeded",
    "Ready",
    "AVAILABLE",
    "Scheduled",
    "ACTIVE",
)


class Service:
    """The state and behaviour of one service in one account and region.

    ``records[noun][name]`` are the resources by the noun of their ``Create`` operation, e.g.
    ``records["TrainingJob"]["nightly"]``. ``lock`` guards them; hooks run without it.
    """

    def __init__(self, name: str, *, account: str, region: str, runtime: Runtime) -> None:
        self.name = name
        self.account = account
        self.region = region
        self.runtime = runtime
        self.model = service_model(name)
        self.records: dict[str, dict[str, Record]] = {}
        self.tags: dict[str, dict[str, str]] = {}
        self.lock = threading.RLock()
        self.traits: Traits = traits(name)

    # -- calls -----------------------------------------------------------------------------------------

    def call(self, operation: str, **params: Any) -> dict[str, Any]:
        """Make an internal call: validated by botocore's model like any other, not subject to IAM."""
        return self.dispatch(Call(operation=operation, params=params, principal=None, region=self.region))

    def dispatch(self, call: Call) -> dict[str, Any]:
        """Validate a call, run its behaviour and what was registered to follow it; return its output."""
        operation = self.operation(call.operation)
        found = problems(operation.input_shape, call.params)
        if found:
            text = "; ".join(found)
            raise ApiError(
                self._error_code(call.operation, ("Validation", "InvalidInput"), "ValidationException"),
                f"{len(found)} validation error{'s' * (len(found) > 1)} detected: {text}",
            )
        hook = _INSTEAD.get((self.name, call.operation))
        output = self.generic(call) if hook is None else hook(self, call)
        output = self._fitted(operation, output)
        for follow in _AFTER.get((self.name, call.operation), ()):
            follow(self, call, output)
        return output

    def operation(self, name: str) -> OperationModel:
        """Return the model of an operation; an unknown one is AWS's ``UnknownOperationException``."""
        if name not in self.model.operation_names:
            raise ApiError("UnknownOperationException", f"{self.name} has no operation {name}")
        return self.model.operation_model(name)

    def _fitted(self, operation: OperationModel, output: dict[str, Any]) -> dict[str, Any]:
        """Check that a hook's output is what the model says; a wrong one is our defect, not the caller's."""
        shape = operation.output_shape
        if shape is None:
            return {}
        unknown = sorted(set(output) - set(shape.members))
        if unknown:
            raise TypeError(
                f"{self.name} {operation.name} answers no {', '.join(unknown)}; fix the hook that returned it"
            )
        return {key: value for key, value in output.items() if value is not None}

    # -- records ---------------------------------------------------------------------------------------

    def arn(self, noun: str, name: str) -> str:
        """Return the ARN of a resource of this service."""
        return self.traits.arn(noun, name, account=self.account, region=self.region)

    def get(self, noun: str, name: str) -> Record:
        """Return a record by name or ARN; a missing one is the service's own not-found error."""
        with self.lock:
            record = self.peek(noun, name)
            if record is None:
                raise self.not_found(noun, name)
            return record

    def peek(self, noun: str, name: str) -> Record | None:
        """Return a record by name or ARN, or None."""
        with self.lock:
            table = self.records.get(noun, {})
            if name in table:
                return table[name]
            return next((record for record in table.values() if record.arn == name), None)

    def put(self, noun: str, name: str, data: Mapping[str, Any], *, status: str | None = None) -> Record:
        """Keep a new record; one that exists is the service's own in-use error."""
        now = self.runtime.clock.now()
        with self.lock:
            table = self.records.setdefault(noun, {})
            if name in table:
                code = self._error_code(f"Create{noun}", ("InUse", "AlreadyExists"), "ValidationException")
                raise ApiError(code, f"{noun} {name} already exists: {table[name].arn}")
            arn = self.arn(noun, name)
            record = Record(name=name, arn=arn, created=now, updated=now, status=status, data=dict(data))
            table[name] = record
            return record

    def update(self, record: Record, *, status: str | None = None, **data: Any) -> None:
        """Change a record's data and, when given, its status."""
        with self.lock:
            record.data.update(data)
            record.updated = self.runtime.clock.now()
            if status is not None:
                record.status = status

    def remove(self, noun: str, name: str) -> Record:
        """Forget a record by name or ARN and return it."""
        with self.lock:
            record = self.get(noun, name)
            del self.records[noun][record.name]
            self.tags.pop(record.arn, None)
            return record

    def not_found(self, noun: str, name: str) -> ApiError:
        """Return the error that the service answers for a resource it does not have."""
        arn = name if name.startswith("arn:") else self.arn(noun, name)
        operation = next(
            op for op in (f"Describe{noun}", f"Get{noun}", f"Delete{noun}", "") if self._has(op) or not op
        )
        # Where the model names no such error (DescribeEndpoint), SageMaker answers a validation error.
        code = self._error_code(operation, ("NotFound",), "ValidationException")
        return ApiError(code, f'Could not find {spoken(noun)} "{arn}".')

    def _has(self, operation: str) -> bool:
        return operation in self.model.operation_names

    def _error_code(self, operation: str, parts: tuple[str, ...], otherwise: str) -> str:
        """Return the code of the error that the model names for an operation and that contains one of
        ``parts``.
        """
        if not self._has(operation):
            return otherwise
        shapes = self.model.operation_model(operation).error_shapes
        return next(
            (_error_name(shape) for part in parts for shape in shapes if part in shape.name),
            otherwise,
        )

    # -- generic behaviour -----------------------------------------------------------------------------

    def generic(self, call: Call) -> dict[str, Any]:  # noqa: PLR0911 - one branch per verb
        """Do what the operation's verb says with a record of its noun."""
        match = _VERB.fullmatch(call.operation)
        if match is None:
            raise self.not_emulated(call)
        verb, noun = match.groups()
        operation = self.operation(call.operation)
        tagging = self._tagging(call)
        if tagging is not None:
            return tagging
        if verb in _CREATING:
            return self._create(verb, noun, call, operation)
        if verb in _READING:
            name = self.traits.name_in(noun, call.params)
            if name is not None:
                return self.describe(noun, self.get(noun, name), operation.output_shape)
            return self._list(noun, call, operation)
        if verb == "List":
            return self._list(noun, call, operation)
        if verb == "Update":
            record = self.get(noun, self._required_name(noun, call))
            self.update(record, **self._kept(call.params))
            return self.describe(noun, record, operation.output_shape)
        if verb in ("Delete", "Deregister"):
            record = self.remove(noun, self._required_name(noun, call))
            return self.describe(noun, record, operation.output_shape)
        raise self.not_emulated(call)

    def forward(self, call: Call) -> dict[str, Any]:
        """Make the call at ministack, as the operator, past any hook: for services that it has itself."""
        client = self.runtime.forwarding_client(self.name, region=self.region)
        try:
            output: dict[str, Any] = getattr(client, xform_name(call.operation))(**call.params)
        except ClientError as error:
            answer = error.response
            status = answer["ResponseMetadata"]["HTTPStatusCode"]
            raise ApiError(answer["Error"]["Code"], answer["Error"].get("Message", ""), status) from error
        output.pop("ResponseMetadata", None)
        return output

    def not_emulated(self, call: Call) -> ApiError:
        """Return the error for an operation that exists in AWS but has no behaviour here: never a made-up
        answer.
        """
        return ApiError(
            "NotImplemented",
            f"the rehearsal does not emulate {self.name} {call.operation}; register a behaviour with "
            f'@instead("{self.name}", "{call.operation}")',
            501,
        )

    def _required_name(self, noun: str, call: Call) -> str:
        name = self.traits.name_in(noun, call.params)
        if name is None:
            raise self.not_emulated(call)
        return name

    def _create(self, verb: str, noun: str, call: Call, operation: OperationModel) -> dict[str, Any]:
        name = self.traits.name_in(noun, call.params)
        if name is None:
            # A service that lets the caller give no name makes one up.
            name = uuid.uuid4().hex[:12]
        with self.lock:
            existing = self.peek(noun, name)
            if existing is not None and (verb == "Put" or noun in self.traits.upserts):
                self.update(existing, **self._kept(call.params))
                record = existing
            else:
                record = self.put(noun, name, self._kept(call.params))
                record.status = self._settled(noun)
            given = self.traits.tags_in(call.params)
            if given:
                self.tags.setdefault(record.arn, {}).update(given)
        return self.describe(noun, record, operation.output_shape)

    def _kept(self, params: Mapping[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in params.items() if key not in self.traits.tag_members}

    def _settled(self, noun: str) -> str | None:
        """Return the state a new record is in when nothing has to run for it."""
        for verb in _READING:
            name = f"{verb}{noun}"
            if name not in self.model.operation_names:
                continue
            shape = self.model.operation_model(name).output_shape
            member = None if shape is None else self._status_member(noun, shape)
            if member is not None and shape is not None:
                allowed = getattr(shape.members[member], "enum", [])
                return next((state for state in _SETTLED if state in allowed), None)
        return None

    @staticmethod
    def _status_member(noun: str, shape: Shape) -> str | None:
        members = getattr(shape, "members", {})
        return next((m for m in (f"{noun}Status", "Status", "status") if m in members), None)

    def describe(self, noun: str, record: Record, shape: Shape | None) -> dict[str, Any]:
        """Render a record as a structure of the model: its data plus the name, ARN, times and status
        members.
        """
        if shape is None or shape.type_name != "structure":
            return {}
        members: Mapping[str, Shape] = shape.members
        with self.lock:
            data = dict(record.data)
        status = self._status_member(noun, shape)
        if status is not None and record.status is not None:
            data[status] = record.status
        out: dict[str, Any] = {}
        for key, member in members.items():
            value = self._member(noun, record, data, key, member)
            if value is not None:
                out[key] = value
        return out

    def _member(self, noun: str, record: Record, data: Mapping[str, Any], key: str, member: Shape) -> Any:
        if key in data:
            return data[key]
        if member.type_name == "string":
            known = dict.fromkeys(self.traits.name_members(noun), record.name)
            return {**known, **dict.fromkeys(self.traits.arn_members(noun), record.arn)}.get(key)
        if member.type_name == "timestamp":
            known_times = dict.fromkeys(("creationtime", "createdat", "created"), record.created)
            changed = ("lastmodifiedtime", "lastupdatedtime", "updated", "updatedat", "lastmodified")
            return {**known_times, **dict.fromkeys(changed, record.updated)}.get(key.lower())
        if member.type_name == "structure" and key.lower() == noun.lower():
            # Wrapped answers: CreatePipeline -> {"pipeline": {...}}.
            return self.describe(noun, record, member)
        return None

    # -- lists -----------------------------------------------------------------------------------------

    def _list(self, noun: str, call: Call, operation: OperationModel) -> dict[str, Any]:
        shape: Shape = operation.output_shape
        lists = {} if shape is None else {k: s for k, s in shape.members.items() if s.type_name == "list"}
        if not lists:
            raise self.not_emulated(call)
        key, member = next(iter(lists.items()))
        singular = self._singular(noun)
        if singular is None:
            raise self.not_emulated(call)
        with self.lock:
            found = [
                r for r in self.records.get(singular, {}).values() if self._matches(singular, r, call.params)
            ]
        found = self._sorted(singular, found, call.params)
        page, token = self._page(found, call.params)
        item: Shape = member.member
        out: dict[str, Any] = {
            key: [self.describe(singular, r, item) if item.type_name == "structure" else r.name for r in page]
        }
        if token is not None:
            out[next(k for k in ("NextToken", "nextToken") if shape is not None and k in shape.members)] = (
                token
            )
        return out

    def _singular(self, noun: str) -> str | None:
        known = {
            match.group(2)
            for match in map(_VERB.fullmatch, self.model.operation_names)
            if match is not None and match.group(1) not in ("List", "Search")
        } | set(self.records)
        stems = [noun[:-3] + "y"] if noun.endswith("ies") else [noun[:-1]] if noun.endswith("s") else []
        return next((stem for stem in [*stems, noun] if stem in known), None)

    def _matches(self, noun: str, record: Record, params: Mapping[str, Any]) -> bool:
        return all(self._meets(noun, record, key, wanted) for key, wanted in params.items())

    def _meets(self, noun: str, record: Record, key: str, wanted: Any) -> bool:
        """Say whether a record passes one filter of a list operation."""
        if key in _NOT_FILTERS:
            return True
        if key == "NameContains":
            return str(wanted).lower() in record.name.lower()
        if key in ("StatusEquals", f"{noun}StatusEquals"):
            return bool(record.status == wanted)
        if key.startswith(("CreationTime", "LastModifiedTime")):
            at = record.created if key.startswith("CreationTime") else record.updated
            after_it = key.endswith("After")
            return bool(at > wanted) if after_it else bool(at < wanted)
        if isinstance(wanted, list):
            single = key[:-1]
            have = record.data.get(single, record.name if single in self.traits.name_members(noun) else None)
            return bool(have is None or have in wanted)
        have = record.data.get(key.removesuffix("Equals"))
        return bool(have == wanted) or (isinstance(have, str) and self._same_resource(have, wanted))

    @staticmethod
    def _same_resource(have: str, wanted: object) -> bool:
        """A resource may be named or given by its ARN."""
        return (
            isinstance(wanted, str)
            and have.rsplit("/", 1)[-1] == wanted.rsplit("/", 1)[-1]
            and "/" in have + wanted
        )

    @staticmethod
    def _sorted(noun: str, records: list[Record], params: Mapping[str, Any]) -> list[Record]:
        by = params.get("SortBy", "CreationTime")
        keys: dict[str, Callable[[Record], Any]] = {
            "Name": lambda r: r.name,
            f"{noun}Name": lambda r: r.name,
            "Status": lambda r: r.status or "",
            "CreationTime": lambda r: r.created,
        }
        # Newest first is what SageMaker answers when no order is asked for; insertion breaks ties.
        reverse = str(params.get("SortOrder", "Descending")).startswith("Desc")
        ordered = sorted(
            enumerate(records), key=lambda pair: (keys.get(by, keys["CreationTime"])(pair[1]), pair[0])
        )
        found = [record for _, record in ordered]
        return found[::-1] if reverse else found

    @staticmethod
    def _page(records: list[Record], params: Mapping[str, Any]) -> tuple[list[Record], str | None]:
        size = params.get("MaxResults", params.get("maxResults", 100))
        token = params.get("NextToken", params.get("nextToken"))
        try:
            start = 0 if token is None else int(base64.urlsafe_b64decode(token.encode()))
        except ValueError:
            raise ApiError("ValidationException", f"invalid pagination token {token!r}") from None
        end = start + int(size)
        following = base64.urlsafe_b64encode(str(end).encode()).decode() if end < len(records) else None
        return records[start:end], following

    # -- tags ------------------------------------------------------------------------------------------

    def _tagging(self, call: Call) -> dict[str, Any] | None:
        """Answer the tag operations, which every service spells in one of two ways."""
        p = call.params
        arn = p.get("ResourceArn", p.get("resourceArn", p.get("ResourceARN")))
        if not isinstance(arn, str):
            return None
        with self.lock:
            table = self.tags.setdefault(arn, {})
            if call.operation in ("AddTags", "TagResource"):
                table.update(self.traits.tags_in(p))
                shape = self.operation(call.operation).output_shape
                return (
                    {"Tags": self._tag_list(table, "Key", "Value")}
                    if shape and "Tags" in shape.members
                    else {}
                )
            if call.operation in ("DeleteTags", "UntagResource"):
                for key in p.get("TagKeys", p.get("tagKeys", ())):
                    table.pop(key, None)
                return {}
            if call.operation in ("ListTags", "ListTagsForResource"):
                return self._tags_out(call.operation, table)
        return None

    def _tags_out(self, operation: str, table: Mapping[str, str]) -> dict[str, Any]:
        shape: Shape = self.operation(operation).output_shape
        if shape is None:
            return {}
        key, member = next((k, s) for k, s in shape.members.items() if k.lower() == "tags")
        if member.type_name == "map":
            return {key: dict(table)}
        names = list(member.member.members)
        return {key: self._tag_list(table, *sorted(names, key=str.lower))}

    @staticmethod
    def _tag_list(table: Mapping[str, str], key: str, value: str) -> list[dict[str, str]]:
        return [{key: k, value: v} for k, v in table.items()]


def _error_name(shape: Shape) -> str:
    return str(getattr(shape, "error_code", None) or shape.name)


def spoken(noun: str) -> str:
    """Return a noun of the API as a sentence has it: ``ModelPackage`` is ``model package``."""
    return re.sub(r"(?<!^)(?=[A-Z])", " ", noun).lower()
