"""A tracking server of SageMaker: here a store of MLflow's own on this machine stands for it.

Its client talks to ``<region>.experiments.sagemaker.aws``, whatever endpoint the SDK is given. So a job that
names a server's ARN gets the store's place instead, when it could have reached the server: the server is
there, the job is not isolated, and its role may make runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from rehearsal import ministack_bridge as bridge
from rehearsal.executors.transfer import TransferError
from rehearsal.iam import AccessDeniedError

if TYPE_CHECKING:
    from rehearsal.runtime import Runtime
    from rehearsal.services.engine import Record

__all__ = ["tracked"]

_VARIABLE = "MLFLOW_TRACKING_URI"
_KIND = ":mlflow-tracking-server/"


def tracked(runtime: Runtime, record: Record, variables: Mapping[str, str]) -> dict[str, str]:
    """A job's variables with the store in place of the server.

    :raises TransferError: the server cannot be reached by the job
    """
    arn = variables.get(_VARIABLE, "")
    if _KIND not in arn:
        return dict(variables)
    region = arn.split(":")[3]
    server = runtime.service("sagemaker", region).peek("MlflowTrackingServer", arn.rpartition("/")[2])
    if server is None:
        raise TransferError(f"ClientError: there is no tracking server {arn}")
    if record.data.get("EnableNetworkIsolation"):
        raise TransferError(
            f"ClientError: a job in network isolation does not reach the tracking server {arn}"
        )
    _require(runtime, record.data["RoleArn"], arn, region)
    store = runtime.state / "mlflow" / server.name
    store.mkdir(parents=True, exist_ok=True)
    runtime.ledger.recorded(
        "tracking", record.name, f"a store of MLflow stands for the server {server.name}", store=str(store)
    )
    return {**variables, _VARIABLE: store.as_uri(), "MLFLOW_ALLOW_FILE_STORE": "true"}


def _require(runtime: Runtime, role: str, arn: str, region: str) -> None:
    principal = runtime.identities.principal(runtime.identities.for_role(role).access_key_id)
    if principal is None:
        return  # a role of the CDK's own
    checks = [
        bridge.Check(action=f"sagemaker-mlflow:{action}", resource=arn)
        for action in ("CreateExperiment", "CreateRun", "GetExperimentByName", "LogBatch", "UpdateRun")
    ]
    try:
        runtime.authorizer.require(principal, "sagemaker", checks, region)
    except AccessDeniedError as denied:
        raise TransferError(f"ClientError: the tracking server refuses the job's role: {denied}") from denied
