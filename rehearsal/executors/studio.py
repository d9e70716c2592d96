"""Studio: domains and profiles are kept as asked for, and hold together; no app runs."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

from rehearsal.services.engine import ApiError, instead

if TYPE_CHECKING:
    from rehearsal.runtime import Runtime
    from rehearsal.services.engine import Call, Record, Service

__all__ = ["install"]


def _missing(what: str) -> ApiError:
    return ApiError("ResourceNotFound", f"{what} does not exist.")


def _domain_of(service: Service, domain_id: str) -> Record:
    found = service.peek("Domain", domain_id)
    if found is None:
        raise _missing(f"Domain {domain_id}")
    return found


def _starts(service: Service, value: Any) -> None:
    """What runs when an app starts must be there."""
    for part in (value if isinstance(value, dict) else {}).values():
        if not isinstance(part, dict):
            continue
        named = [*part.get("LifecycleConfigArns", ()), part.get("BuiltInLifecycleConfigArn")]
        for arn in named:
            if arn is not None and service.peek("StudioLifecycleConfig", arn) is None:
                raise _missing(f"Studio lifecycle config {arn}")


@instead("sagemaker", "CreateDomain")
def _create_domain(service: Service, call: Call) -> dict[str, Any]:
    p = call.params
    if any(r.data["DomainName"] == p["DomainName"] for r in service.records.get("Domain", {}).values()):
        raise ApiError("ResourceInUse", f"Domain {p['DomainName']} already exists.")
    _starts(service, p["DefaultUserSettings"])
    name = f"d-{uuid.uuid4().hex[:12]}"
    kept = {key: value for key, value in p.items() if key != "Tags"}
    if p.get("HomeEfsFileSystemCreation", "Enabled") == "Enabled":
        kept["HomeEfsFileSystemId"] = f"fs-0{uuid.uuid4().hex[:16]}"
    url = f"https://{name}.studio.{service.region}.sagemaker.aws"
    record = service.put("Domain", name, {**kept, "Url": url}, status="InService")
    service.tags[record.arn] = service.traits.tags_in(p)
    service.runtime.ledger.recorded("sagemaker", p["DomainName"], "no app of Studio runs")
    return {"DomainArn": record.arn, "DomainId": name, "Url": url}


@instead("sagemaker", "DescribeDomain")
def _describe_domain(service: Service, call: Call) -> dict[str, Any]:
    record = _domain_of(service, call.params["DomainId"])
    return {
        **record.data,
        "DomainArn": record.arn,
        "DomainId": record.name,
        "Status": record.status,
        "CreationTime": record.created,
        "LastModifiedTime": record.updated,
    }


@instead("sagemaker", "UpdateDomain")
def _update_domain(service: Service, call: Call) -> dict[str, Any]:
    record = _domain_of(service, call.params["DomainId"])
    _starts(service, call.params.get("DefaultUserSettings"))
    service.update(record, **{key: value for key, value in call.params.items() if key != "DomainId"})
    return {"DomainArn": record.arn}


@instead("sagemaker", "DeleteDomain")
def _delete_domain(service: Service, call: Call) -> dict[str, Any]:
    name = _domain_of(service, call.params["DomainId"]).name
    people = [r.data["UserProfileName"] for r in _profiles(service) if r.data["DomainId"] == name]
    if people:
        raise ApiError("ResourceInUse", f"Domain {name} has user profiles: {', '.join(people)}")
    service.remove("Domain", name)
    return {}


def _profiles(service: Service) -> list[Record]:
    return list(service.records.get("UserProfile", {}).values())


@instead("sagemaker", "CreateUserProfile")
def _create_profile(service: Service, call: Call) -> dict[str, Any]:
    p = call.params
    _domain_of(service, p["DomainId"])
    name = f"{p['DomainId']}/{p['UserProfileName']}"
    kept = {key: value for key, value in p.items() if key != "Tags"}
    record = service.put("UserProfile", name, kept, status="InService")
    service.tags[record.arn] = service.traits.tags_in(p)
    return {"UserProfileArn": record.arn}


def _profile(service: Service, call: Call) -> Record:
    name = f"{call.params['DomainId']}/{call.params['UserProfileName']}"
    found = service.peek("UserProfile", name)
    if found is None:
        raise _missing(f"User profile {name}")
    return found


@instead("sagemaker", "DescribeUserProfile")
def _describe_profile(service: Service, call: Call) -> dict[str, Any]:
    record = _profile(service, call)
    return {
        **record.data,
        "UserProfileArn": record.arn,
        "Status": record.status,
        "CreationTime": record.created,
        "LastModifiedTime": record.updated,
    }


@instead("sagemaker", "DeleteUserProfile")
def _delete_profile(service: Service, call: Call) -> dict[str, Any]:
    service.remove("UserProfile", _profile(service, call).name)
    return {}


def install(runtime: Runtime) -> None:
    """Nothing beyond the operations above."""
    del runtime
