"""Lambda functions: what they run, as whom, and who hears of it."""

from __future__ import annotations

import importlib
import json
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from rehearsal.ministack_bridge._inside import substitute
from rehearsal.ministack_bridge.cloudformation_types import extend_type


def use_lambda_credentials(credentials: Callable[[str, str], Mapping[str, str]]) -> None:
    """Give each function the credentials that ``credentials(role_arn, function_name)`` returns.

    Without this a function acts as the account's root.
    """

    def execution_credentials(config: Mapping[str, Any]) -> dict[str, str]:
        return dict(credentials(config["Role"], config["FunctionName"]))

    for name in ("ministack.core.lambda_runtime", "ministack.services.lambda_svc"):
        substitute(importlib.import_module(name), "execution_credentials", execution_credentials)


def function_role(name: str) -> str | None:
    """Return the role of a function given by name or ARN, None when there is no such function."""
    functions = importlib.import_module("ministack.services.lambda_svc")
    found = functions._functions.get(functions._resolve_request_scoped_name(name))
    return None if found is None else str(found["config"]["Role"])


def function_arn(reference: str) -> str:
    """Return the ARN of a function that a state machine names by name or ARN."""
    functions = importlib.import_module("ministack.services.lambda_svc")
    found = functions._functions.get(functions._resolve_request_scoped_name(reference))
    return reference if found is None else str(found["config"]["FunctionArn"])


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

    substitute(functions, "_execute_function_docker", execute)


#: The id of the asynchronous invocation whose attempts run on this thread.
_attempted: ContextVar[str | None] = ContextVar("attempted", default=None)
#: Set where a service hands an event over without waiting for what becomes of it.
_handed_over: ContextVar[bool] = ContextVar("handed_over", default=False)
#: So long (real seconds) a function may still run that has answered CloudFormation.
_END_SECONDS = 30.0


class _Running:
    """The attempts at an event that run now."""

    def __init__(self) -> None:
        self._count = 0
        self._changed = threading.Condition()

    def __enter__(self) -> None:
        with self._changed:
            self._count += 1

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._count -= 1
            self._changed.notify_all()

    def wait(self) -> None:
        """Return when none runs any more."""
        with self._changed:
            self._changed.wait_for(lambda: not self._count, _END_SECONDS)


#: The attempts at an event of a custom resource.
_running: ContextVar[_Running | None] = ContextVar("running", default=None)


def try_events_again() -> None:
    """Invoke functions asynchronously where EventBridge, SNS and CloudFormation do: three attempts, one id.

    ministack makes a single attempt for these services, and a new request id for every attempt of its other
    asynchronous invocations; Lambda's retries keep it, and functions know by it that they have begun before.
    `watch_functions` must have been called.
    """
    functions = importlib.import_module("ministack.services.lambda_svc")
    eventbridge = importlib.import_module("ministack.services.eventbridge")
    original = functions.invoke_async_with_retry
    at_once = functions._execute_function_with_config_scope

    def attempts(func: Any, event: Any) -> None:
        # The thread of the attempts is started with a copy of this context.
        token = _attempted.set(str(uuid.uuid4()))
        try:
            original(func, event)
        finally:
            _attempted.reset(token)

    def execute(func: Any, event: Any) -> Any:
        if not _handed_over.get():
            return at_once(func, event)
        functions.invoke_async_with_retry(func, event)
        return {}

    def dispatch(arn: str, payload: str) -> None:
        func, config, _ = functions._get_func_record_for_ref(arn)
        if func and config:
            event = json.loads(payload)
            functions.invoke_async_with_retry(functions._execution_record_for_config(func, config), event)

    substitute(functions, "invoke_async_with_retry", attempts)
    substitute(functions, "_execute_function_with_config_scope", execute)
    substitute(eventbridge, "_dispatch_to_lambda", dispatch)
    _hand_over(importlib.import_module("ministack.services.sns"), "_deliver_to_lambda")
    resources = importlib.import_module("ministack.services.cloudformation.custom_resource")
    # A function answers CloudFormation before its end, and writes its last lines after: to a log group that
    # ministack would make anew when the stack's deletion has gone on and taken it away.
    _until_ended(resources, "invoke_custom_resource")
    _hand_over(resources, "invoke_custom_resource")


def _until_ended(module: ModuleType, name: str) -> None:
    """Let what hands an event over return when no attempt at it runs any more."""
    original = getattr(module, name)

    def waited(*args: Any, **kwargs: Any) -> Any:
        running = _Running()
        token = _running.set(running)
        try:
            return original(*args, **kwargs)
        finally:
            running.wait()
            _running.reset(token)

    substitute(module, name, waited)


def _hand_over(module: ModuleType, name: str) -> None:
    original = getattr(module, name)

    def handed(*args: Any, **kwargs: Any) -> Any:
        token = _handed_over.set(True)
        try:
            return original(*args, **kwargs)
        finally:
            _handed_over.reset(token)

    substitute(module, name, handed)


def watch_functions(watcher: Callable[[Mapping[str, Any], str | None], None]) -> None:
    """Call ``watcher(configuration, error)`` after each invocation of a function, whoever invoked it."""
    functions = importlib.import_module("ministack.services.lambda_svc")
    original = functions._execute_function_dispatch

    def dispatch(func: Any, config: Mapping[str, Any], event: Any, request_id: str, started: float) -> Any:
        request_id = _attempted.get() or request_id
        with _running.get() or nullcontext():
            result = original(func, config, event, request_id, started)
        failed = isinstance(result, Mapping) and result.get("error")
        body = result.get("body") if isinstance(result, Mapping) else None
        text = str(body.get("errorMessage", body)) if isinstance(body, Mapping) else str(body)
        watcher(config, text if failed else None)
        if failed and text.startswith("Worker "):
            # The process ended without a word, which Lambda says so.
            why = f"RequestId: {request_id} Error: Runtime exited with error: signal: killed"
            return {**result, "body": {"errorType": "Runtime.ExitError", "errorMessage": why}}
        return result

    substitute(functions, "_execute_function_dispatch", dispatch)


def isolate_functions(hidden: Sequence[str]) -> None:
    """Hide folders from the import path of Python functions, so that code missing from a package is missed.

    A function runs with the Python of this project, in which its sources are installed in editable mode.
    """
    runtime = importlib.import_module("ministack.core.lambda_runtime")
    kept = f"[p for p in _sys.path if p not in {sorted(hidden)!r}]"
    guard = f"import sys as _sys\n_sys.path[:] = {kept}\ndel _sys\n"
    substitute(runtime, "_PYTHON_WORKER_SCRIPT", guard + runtime._PYTHON_WORKER_SCRIPT.lstrip())


def end_function_workers(name: str | None = None) -> None:
    """End the processes of a function, of all functions without a name."""
    runtime = importlib.import_module("ministack.core.lambda_runtime")
    if name is None:
        runtime.reset()
    else:
        runtime.invalidate_worker(name)


def use_dead_letters(send: Callable[[Mapping[str, Any], Any, Mapping[str, Any]], None]) -> None:
    """Give what a function failed at to ``send(configuration, event, result)``, if it has such a queue.

    ministack forgets the queue of a function that CloudFormation makes, and sends the envelope of an
    on-failure destination where Lambda sends the event itself.
    """
    functions = importlib.import_module("ministack.services.lambda_svc")
    original = functions._route_async_failure

    def kept(name: str, properties: Mapping[str, Any]) -> None:
        found = functions._functions.get(name)
        if found is not None:
            found["config"]["DeadLetterConfig"] = dict(properties.get("DeadLetterConfig") or {})

    def route(target: str, name: str, event: Any, result: Mapping[str, Any]) -> None:
        found = functions._functions.get(name)
        config = {} if found is None else found["config"]
        if (config.get("DeadLetterConfig") or {}).get("TargetArn") == target:
            send(config, event, result)
        else:
            original(target, name, event, result)

    extend_type("AWS::Lambda::Function", after=kept)
    substitute(functions, "_route_async_failure", route)
