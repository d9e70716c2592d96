"""Makes, changes and deletes resources as the rows of `rehearsal.cloudformation.rows` say."""

from __future__ import annotations

import secrets
import string
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from botocore import xform_name
from botocore.exceptions import BotoCoreError, ClientError

from rehearsal import ministack_bridge as bridge
from rehearsal.cloudformation.fitting import fitted
from rehearsal.cloudformation.rows import Context, Row
from rehearsal.cloudformation.schemas import Schema, schema_of
from rehearsal.services.engine import service_model

if TYPE_CHECKING:
    from rehearsal.runtime import Runtime

__all__ = ["ResourceError", "Resources"]

#: A service of the rehearsal that has not settled after this is taken to hang.
SETTLE_SECONDS = 1800
_ALPHABET = string.ascii_letters + string.digits


class ResourceError(Exception):
    """A resource that could not be made, changed or deleted; the text is CloudFormation's reason."""


@dataclass(kw_only=True)
class _Made:
    """What is remembered of a resource to name it again."""

    name: str | None
    identity: dict[str, Any]
    params: dict[str, Any]
    output: dict[str, Any] = field(default_factory=dict)


class Resources:
    """The resource handlers of one type."""

    def __init__(self, runtime: Runtime, resource_type: str, row: Row) -> None:
        self._runtime = runtime
        self._type = resource_type
        self._row = row
        self._schema: Schema = schema_of(resource_type)
        self._made: dict[str, _Made] = {}
        self._lock = threading.Lock()

    def handlers(self) -> dict[str, Any]:
        """Return the handlers in the form in which ministack keeps them."""
        return {
            "create": self.create,
            "update": self.update,
            "update_with_logical_id": True,
            "delete": self.delete,
        }

    # -- the three handlers -----------------------------------------------------------------------------

    def create(self, logical_id: str, props: Mapping[str, Any], stack: str) -> tuple[str, dict[str, Any]]:
        """Make a resource; return what ``Ref`` and ``Fn::GetAtt`` give."""
        context = self._context(stack, logical_id)
        given = self._named(props, context)
        params = self._params(self._row.create, self._row.convert, given, context)
        output = self._call(self._row.create, params, context)
        made = _Made(
            name=None if self._row.name is None else str(given[self._row.name]),
            identity=self._row.identify(params, output),
            params=params,
            output=output,
        )
        try:
            if self._row.finish is not None:
                self._row.finish(given, made.identity, context)
            found = self._settle(made, params, context)
        except Exception:
            # CloudFormation removes what it could not finish before it rolls back the rest.
            self._remove(made, context)
            raise
        physical_id = self._ref(made, given, found)
        with self._lock:
            self._made[physical_id] = made
        return physical_id, self._attributes(made, given, found)

    def update(
        self,
        physical_id: str,
        old: Mapping[str, Any],
        new: Mapping[str, Any],
        stack: str,
        logical_id: str | None,
    ) -> tuple[str, dict[str, Any]]:
        """Change a resource in place, or make its successor where only that is possible."""
        context = self._context(stack, logical_id or physical_id)
        replaces = self._replaces(old, new)
        if replaces or self._row.update is None:
            changed = {name for name in {*old, *new} if old.get(name) != new.get(name)}
            if changed <= {self._schema.tag_property} and not replaces:
                return self._retag(physical_id, new, context)
            name = None if self._row.name is None else new.get(self._row.name)
            if replaces and name is not None and old.get(str(self._row.name)) == name:
                raise ResourceError(
                    "CloudFormation cannot update a stack when a custom-named resource requires replacing. "
                    f"Rename {name} and update the stack again."
                )
            created = self.create(context.logical_id, new, stack)
            if created[0] != physical_id:
                bridge.delete_predecessor(self.delete, physical_id, dict(old))
            return created
        with self._lock:
            made = self._made[physical_id]
        given = dict(new)
        if self._row.name is not None:
            given.setdefault(self._row.name, made.name)
        convert = self._row.convert_update or self._row.convert
        params = self._params(self._row.update, convert, given, context)
        if not self._already(made, params, context):
            # Which one to change: an id that the service gave is no property.
            shape = service_model(self._row.service).operation_model(self._row.update).input_shape
            members = {} if shape is None else shape.members
            which = {key: value for key, value in made.identity.items() if key in members}
            self._call(self._row.update, {**which, **params}, context)
        if self._row.finish is not None:
            self._row.finish(given, made.identity, context)
        if self._row.after_update is not None:
            self._row.after_update(given, made.identity, context)
        found = self._settle(made, params, context)
        made.params = {**made.params, **params}
        tags = self._schema.tag_property
        if tags is not None and old.get(tags) != new.get(tags):
            self._retag(physical_id, new, context)
        return physical_id, self._attributes(made, given, found)

    def delete(self, physical_id: str, props: Mapping[str, Any]) -> None:
        """Delete a resource; one that is gone already is deleted."""
        del props
        with self._lock:
            made = self._made.get(physical_id)
        if made is None:
            return
        self._remove(made, self._context("", physical_id))
        with self._lock:
            self._made.pop(physical_id, None)

    # -- steps ------------------------------------------------------------------------------------------

    def _context(self, stack: str, logical_id: str) -> Context:
        return Context(
            runtime=self._runtime,
            region=bridge.current_region(),
            stack=stack,
            logical_id=logical_id,
            role=bridge.stack_role(stack) if stack else None,
        )

    def _named(self, props: Mapping[str, Any], context: Context) -> dict[str, Any]:
        """Give a resource without a name one, as CloudFormation does: stack, logical id, random suffix."""
        given = {key: value for key, value in props.items() if value is not None}
        name = self._row.name
        if name is not None and name not in given:
            schema = self._schema.properties.get(name, {})
            limit = int(schema.get("maxLength", 63))
            suffix = "".join(secrets.choice(_ALPHABET) for _ in range(12))
            stem = f"{context.stack}-{context.logical_id}"[: limit - len(suffix) - 1].strip("-")
            given[name] = f"{stem}-{suffix}"
        return given

    def _params(
        self,
        operation: str,
        convert: Callable[[dict[str, Any], Context], dict[str, Any]] | None,
        given: Mapping[str, Any],
        context: Context,
    ) -> dict[str, Any]:
        properties = {key: value for key, value in given.items() if key not in self._row.beside}
        try:
            converted = properties if convert is None else convert(properties, context)
        except (ValueError, KeyError) as error:
            raise ResourceError(f"Invalid properties of {self._type}: {error}") from error
        shape = service_model(self._row.service).operation_model(operation).input_shape
        return fitted(shape, converted, operation)

    def _client(self, context: Context) -> Any:
        role = context.role if self._row.as_deployer else None
        return self._runtime.client(self._row.service, role=role, region=context.region)

    def _call(self, operation: str, params: Mapping[str, Any], context: Context) -> dict[str, Any]:
        try:
            output: dict[str, Any] = getattr(self._client(context), xform_name(operation))(**params)
        except (ClientError, BotoCoreError) as error:
            raise ResourceError(f"Resource handler returned message: {error!s}") from error
        output.pop("ResponseMetadata", None)
        return output

    def _read(self, made: _Made, context: Context) -> dict[str, Any]:
        if self._row.read is None:
            return {}
        shape = service_model(self._row.service).operation_model(self._row.read).input_shape
        members = {} if shape is None else shape.members
        wanted = {key: value for key, value in made.identity.items() if key in members}
        if not wanted and "Name" in members and made.name is not None:
            wanted = {"Name": made.name}
        return self._call(self._row.read, wanted, context)

    def _settle(self, made: _Made, params: Mapping[str, Any], context: Context) -> dict[str, Any]:
        """Wait until the resource is what was asked for; raise with the service's reason when it will not
        be.
        """
        deadline = time.monotonic() + SETTLE_SECONDS
        pause = 0.05
        while True:
            found = self._read(made, context)
            verdict = "" if self._row.settled is None else self._row.settled(dict(params), found)
            if verdict == "":
                return found
            if verdict is not None:
                raise ResourceError(verdict)
            if time.monotonic() > deadline or self._runtime.stopping.is_set():
                raise ResourceError(f"Exceeded attempts to wait for {self._type} {made.identity}")
            time.sleep(pause)
            pause = min(pause * 1.5, 1.0)

    def _already(self, made: _Made, params: Mapping[str, Any], context: Context) -> bool:
        """Say that the resource is in the state asked for: a rollback finds it so when its service rolled
        back.
        """
        if self._row.settled is None or self._row.read is None:
            return False
        changed = {key for key, value in params.items() if made.params.get(key) != value}
        return not changed and self._row.settled(dict(params), self._read(made, context)) == ""

    def _remove(self, made: _Made, context: Context) -> None:
        if self._row.delete is None:
            return
        shape = service_model(self._row.service).operation_model(self._row.delete).input_shape
        members = {} if shape is None else shape.members
        params = {key: value for key, value in made.identity.items() if key in members}
        try:
            getattr(self._client(context), xform_name(self._row.delete))(**params)
        except ClientError as error:
            if not _gone(error):
                raise ResourceError(f"Resource handler returned message: {error!s}") from error
            return
        deadline = time.monotonic() + SETTLE_SECONDS
        while self._row.settled is not None and time.monotonic() < deadline:
            try:
                self._read(made, context)
            except ResourceError as error:
                if isinstance(error.__cause__, ClientError) and _gone(error.__cause__):
                    return
                raise
            time.sleep(0.1)

    def _ref(self, made: _Made, given: Mapping[str, Any], found: Mapping[str, Any]) -> str:
        if self._row.ref is not None:
            return self._row.ref(made.params, made.output, dict(found))
        parts = [self._value(path, made, given, found) for path in self._schema.primary_identifier]
        if any(part is None for part in parts):
            raise ResourceError(f"{self._type}: the service did not answer {self._schema.primary_identifier}")
        return "|".join(str(part) for part in parts)

    def _value(
        self, path: tuple[str, ...], made: _Made, given: Mapping[str, Any], found: Mapping[str, Any]
    ) -> Any:
        for source in (found, made.output, given):
            value: Any = source
            for part in path:
                value = value.get(part) if isinstance(value, Mapping) else None
            if value is not None:
                return value
        return None

    def _attributes(self, made: _Made, given: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
        paths = {*self._schema.read_only, *((name,) for name in self._schema.properties)}
        values = {".".join(path): self._value(path, made, given, found) for path in sorted(paths)}
        scalars = {
            key: value if isinstance(value, str | list) else str(value)
            for key, value in values.items()
            if value is not None and not isinstance(value, Mapping)
        }
        if self._row.attributes is not None:
            scalars.update(self._row.attributes(made.params, made.output, dict(found)))
        return scalars

    def _replaces(self, old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
        empty = _Made(name=None, identity={}, params={})
        return any(
            self._value(path, empty, old, {}) != self._value(path, empty, new, {})
            for path in self._schema.create_only
            # A name that CloudFormation made up is in neither.
            if not (path == (self._row.name,) and path[0] not in new and path[0] not in old)
        )

    def _retag(
        self, physical_id: str, new: Mapping[str, Any], context: Context
    ) -> tuple[str, dict[str, Any]]:
        """Set the tags of a resource in place, by the calls its service has for that."""
        with self._lock:
            made = self._made[physical_id]
        found = self._read(made, context)
        attributes = self._attributes(made, new, found)
        wanted = _tag_map(new.get(str(self._schema.tag_property)))
        arn = next((v for v in (physical_id, *attributes.values()) if str(v).startswith("arn:")), None)
        operations = service_model(self._row.service).operation_names
        client = self._client(context)
        if arn is None or self._row.service != "sagemaker" or "AddTags" not in operations:
            self._runtime.ledger.recorded(
                "cloudformation", physical_id, f"new tags of {self._type} are not set in place", tags=wanted
            )
            return physical_id, attributes
        there = {tag["Key"] for tag in client.list_tags(ResourceArn=arn)["Tags"]}
        stale = sorted(there - set(wanted))
        if stale:
            client.delete_tags(ResourceArn=arn, TagKeys=stale)
        if wanted:
            client.add_tags(ResourceArn=arn, Tags=[{"Key": k, "Value": v} for k, v in wanted.items()])
        return physical_id, attributes


def _tag_map(tags: Any) -> dict[str, str]:
    if isinstance(tags, Mapping):
        return {str(key): str(value) for key, value in tags.items()}
    return {str(tag["Key"]): str(tag["Value"]) for tag in tags or ()}


def _gone(error: ClientError) -> bool:
    code = error.response["Error"]["Code"]
    message = error.response["Error"].get("Message", "")
    return "NotFound" in code or code == "NoSuchEntity" or "Could not find" in message
