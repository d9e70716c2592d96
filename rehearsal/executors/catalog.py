"""Service Catalog: products are read and their templates checked, as it does; nobody launches one."""

from __future__ import annotations

import json
import re
import uuid
from typing import TYPE_CHECKING, Any, Final

from rehearsal import ministack_bridge as bridge
from rehearsal.cloudformation.schemas import UnknownTypeError, problems
from rehearsal.services.engine import ApiError, instead

if TYPE_CHECKING:
    from rehearsal.runtime import Runtime
    from rehearsal.services.engine import Call, Record, Service

__all__ = ["install"]

_PRINCIPAL: Final = "servicecatalog.amazonaws.com"
_WRONG: Final = "InvalidParametersException"


def _id(prefix: str) -> str:
    return f"{prefix}-{uuid.uuid4().hex[:13]}"


def _found(service: Service, noun: str, name: str) -> Record:
    record = service.peek(noun, name)
    if record is None:
        raise ApiError("ResourceNotFoundException", f"{noun} {name} not found.")
    return record


@instead("servicecatalog", "CreatePortfolio")
def _create_portfolio(service: Service, call: Call) -> dict[str, Any]:
    name = _id("port")
    kept: dict[str, Any] = {
        key: call.params[key] for key in ("DisplayName", "Description", "ProviderName") if key in call.params
    }
    record = service.put("Portfolio", name, {**kept, "Id": name})
    record.arn = f"arn:aws:catalog:{service.region}:{service.account}:portfolio/{name}"
    service.runtime.ledger.recorded(service.name, kept["DisplayName"], "nobody looks through it")
    return {"PortfolioDetail": _portfolio(record), "Tags": call.params.get("Tags", [])}


def _portfolio(record: Record) -> dict[str, Any]:
    return {**record.data, "ARN": record.arn, "CreatedTime": record.created}


@instead("servicecatalog", "DescribePortfolio")
def _describe_portfolio(service: Service, call: Call) -> dict[str, Any]:
    return {"PortfolioDetail": _portfolio(_found(service, "Portfolio", call.params["Id"]))}


@instead("servicecatalog", "UpdatePortfolio")
def _update_portfolio(service: Service, call: Call) -> dict[str, Any]:
    record = _found(service, "Portfolio", call.params["Id"])
    changed = {k: call.params[k] for k in ("DisplayName", "Description", "ProviderName") if k in call.params}
    service.update(record, **changed)
    return {"PortfolioDetail": _portfolio(record)}


@instead("servicecatalog", "DeletePortfolio")
def _delete_portfolio(service: Service, call: Call) -> dict[str, Any]:
    name = call.params["Id"]
    held = [pair for pair in service.records.get("Association", {}) if name in pair.split("|")]
    if held:
        raise ApiError("ResourceInUseException", f"Portfolio {name} is associated with {', '.join(held)}")
    service.remove("Portfolio", name)
    return {}


@instead("servicecatalog", "CreateProduct")
def _create_product(service: Service, call: Call) -> dict[str, Any]:
    given = call.params["ProvisioningArtifactParameters"]
    template = _template(service, str(given["Info"]["LoadTemplateFromURL"]))
    name, artifact = _id("prod"), _id("pa")
    summary = {
        "Id": _id("prodview"),
        "ProductId": name,
        "Name": call.params["Name"],
        "Owner": call.params["Owner"],
        "ShortDescription": call.params.get("Description", ""),
        "Type": call.params["ProductType"],
    }
    record = service.put("Product", name, {"summary": summary, "template": template})
    record.arn = f"arn:aws:catalog:{service.region}:{service.account}:product/{name}"
    service.runtime.ledger.recorded(service.name, call.params["Name"], "nobody launches it")
    return {
        "ProductViewDetail": _product(record),
        "ProvisioningArtifactDetail": {
            "Id": artifact,
            "Name": given.get("Name", "v1"),
            "Type": given["Type"],
            "CreatedTime": record.created,
            "Active": True,
            "Guidance": "DEFAULT",
        },
        "Tags": call.params.get("Tags", []),
    }


def _product(record: Record) -> dict[str, Any]:
    return {
        "ProductViewSummary": record.data["summary"],
        "Status": "AVAILABLE",
        "ProductARN": record.arn,
        "CreatedTime": record.created,
    }


def _template(service: Service, url: str) -> dict[str, Any]:
    """Read the template of a version from S3, and check each resource as CloudFormation would."""
    match = re.fullmatch(r"https?://[^/]+/(?P<rest>.+)", url)
    host = re.match(r"https?://(?P<bucket>[a-z0-9.-]+)\.s3[.-]", url)
    rest = match["rest"] if match is not None else ""
    bucket, key = (host["bucket"], rest) if host is not None else rest.partition("/")[::2]
    client = service.runtime.client("s3", region=service.region)
    try:
        body = client.get_object(Bucket=bucket, Key=key)["Body"].read()
        template: dict[str, Any] = json.loads(body)
    except (client.exceptions.NoSuchKey, client.exceptions.NoSuchBucket, json.JSONDecodeError) as error:
        raise ApiError(_WRONG, f"Invalid templateBody at {url}: {error}") from error
    wrong = []
    for logical_id, resource in template.get("Resources", {}).items():
        try:
            found = problems(resource["Type"], resource.get("Properties", {}))
        except UnknownTypeError as error:
            found = [str(error)]
        wrong += [f"{logical_id}: {problem}" for problem in found]
    if wrong or not template.get("Resources"):
        raise ApiError(_WRONG, f"Invalid templateBody: {'; '.join(wrong) or 'no resources'}")
    return template


@instead("servicecatalog", "DescribeProductAsAdmin")
def _describe_product(service: Service, call: Call) -> dict[str, Any]:
    return {"ProductViewDetail": _product(_found(service, "Product", str(call.params.get("Id"))))}


@instead("servicecatalog", "DeleteProduct")
def _delete_product(service: Service, call: Call) -> dict[str, Any]:
    name = call.params["Id"]
    _found(service, "Product", name)
    held = [pair for pair in service.records.get("Association", {}) if name in pair.split("|")]
    if held:
        raise ApiError("ResourceInUseException", f"Product {name} is associated with {', '.join(held)}")
    service.remove("Product", name)
    return {}


# -- who may see what, within which bounds ------------------------------------------------------------------


def _associate(service: Service, first: str, second: str) -> dict[str, Any]:
    pair = f"{first}|{second}"
    if service.peek("Association", pair) is None:
        service.put("Association", pair, {})
    return {}


def _part(service: Service, first: str, second: str) -> dict[str, Any]:
    _found(service, "Association", f"{first}|{second}")
    service.remove("Association", f"{first}|{second}")
    return {}


@instead("servicecatalog", "AssociateProductWithPortfolio")
def _add_product(service: Service, call: Call) -> dict[str, Any]:
    portfolio, product = call.params["PortfolioId"], call.params["ProductId"]
    _found(service, "Portfolio", portfolio)
    _found(service, "Product", product)
    return _associate(service, portfolio, product)


@instead("servicecatalog", "DisassociateProductFromPortfolio")
def _remove_product(service: Service, call: Call) -> dict[str, Any]:
    return _part(service, call.params["PortfolioId"], call.params["ProductId"])


@instead("servicecatalog", "AssociatePrincipalWithPortfolio")
def _add_principal(service: Service, call: Call) -> dict[str, Any]:
    portfolio, arn = call.params["PortfolioId"], str(call.params["PrincipalARN"])
    _found(service, "Portfolio", portfolio)
    if call.params["PrincipalType"] == "IAM" and not bridge.role_exists(arn):
        raise ApiError(_WRONG, f"Principal {arn} does not exist.")
    return _associate(service, portfolio, arn)


@instead("servicecatalog", "ListPrincipalsForPortfolio")
def _principals(service: Service, call: Call) -> dict[str, Any]:
    wanted = f"{call.params['PortfolioId']}|arn:"
    found = [pair for pair in service.records.get("Association", {}) if pair.startswith(wanted)]
    return {
        "Principals": [{"PrincipalARN": pair.partition("|")[2], "PrincipalType": "IAM"} for pair in found]
    }


@instead("servicecatalog", "DisassociatePrincipalFromPortfolio")
def _remove_principal(service: Service, call: Call) -> dict[str, Any]:
    return _part(service, call.params["PortfolioId"], call.params["PrincipalARN"])


@instead("servicecatalog", "CreateConstraint")
def _constrain(service: Service, call: Call) -> dict[str, Any]:
    portfolio, product = call.params["PortfolioId"], call.params["ProductId"]
    if service.peek("Association", f"{portfolio}|{product}") is None:
        raise ApiError("ResourceNotFoundException", f"Product {product} is not in portfolio {portfolio}.")
    said, kind = json.loads(call.params["Parameters"]), call.params["Type"]
    if kind == "LAUNCH":
        role = said.get("RoleArn")
        if role is not None and not bridge.trusts(role, _PRINCIPAL):
            raise ApiError(_WRONG, f"Role {role} cannot be assumed by {_PRINCIPAL}")
    elif kind == "TEMPLATE":
        _check_rules(said["Rules"], _found(service, "Product", product).data["template"])
    name = _id("cons")
    detail = {
        "ConstraintId": name,
        "Type": kind,
        "Owner": service.account,
        "PortfolioId": portfolio,
        "ProductId": product,
        **({"Description": call.params["Description"]} if "Description" in call.params else {}),
    }
    service.put("Constraint", name, {"detail": detail, "parameters": call.params["Parameters"]})
    return {
        "ConstraintDetail": detail,
        "ConstraintParameters": call.params["Parameters"],
        "Status": "AVAILABLE",
    }


def _check_rules(rules: Any, template: dict[str, Any]) -> None:
    """A rule speaks of parameters that the product's template has."""
    named = set(re.findall(r'"Ref": "(\w+)"', json.dumps(rules)))
    unknown = sorted(named - template.get("Parameters", {}).keys())
    if unknown:
        raise ApiError(_WRONG, f"Template rules name parameters that are not there: {', '.join(unknown)}")


@instead("servicecatalog", "DescribeConstraint")
def _constraint(service: Service, call: Call) -> dict[str, Any]:
    data = _found(service, "Constraint", call.params["Id"]).data
    return {
        "ConstraintDetail": data["detail"],
        "ConstraintParameters": data["parameters"],
        "Status": "AVAILABLE",
    }


@instead("servicecatalog", "ListConstraintsForPortfolio")
def _constraints(service: Service, call: Call) -> dict[str, Any]:
    found = [record.data["detail"] for record in service.records.get("Constraint", {}).values()]
    return {"ConstraintDetails": [one for one in found if one["PortfolioId"] == call.params["PortfolioId"]]}


@instead("servicecatalog", "DeleteConstraint")
def _delete_constraint(service: Service, call: Call) -> dict[str, Any]:
    _found(service, "Constraint", call.params["Id"])
    service.remove("Constraint", call.params["Id"])
    return {}


# -- tag options --------------------------------------------------------------------------------------------


@instead("servicecatalog", "CreateTagOption")
def _create_tag(service: Service, call: Call) -> dict[str, Any]:
    key, value = call.params["Key"], call.params["Value"]
    for record in service.records.get("TagOption", {}).values():
        if (record.data["Key"], record.data["Value"]) == (key, value):
            raise ApiError("DuplicateResourceException", f"TagOption {key}={value} already exists.")
    name = _id("tag")
    data = {"Key": key, "Value": value, "Active": True, "Id": name, "Owner": service.account}
    service.put("TagOption", name, data)
    return {"TagOptionDetail": data}


@instead("servicecatalog", "DeleteTagOption")
def _delete_tag(service: Service, call: Call) -> dict[str, Any]:
    _found(service, "TagOption", call.params["Id"])
    service.remove("TagOption", call.params["Id"])
    return {}


@instead("servicecatalog", "AssociateTagOptionWithResource")
def _add_tag(service: Service, call: Call) -> dict[str, Any]:
    option, resource = call.params["TagOptionId"], call.params["ResourceId"]
    _found(service, "TagOption", option)
    _found(service, "Portfolio" if resource.startswith("port-") else "Product", resource)
    # A part of its own: a product that has a tag option is not in use by it.
    if service.peek("TagAssociation", f"{option}|{resource}") is None:
        service.put("TagAssociation", f"{option}|{resource}", {})
    return {}


@instead("servicecatalog", "DisassociateTagOptionFromResource")
def _remove_tag(service: Service, call: Call) -> dict[str, Any]:
    pair = f"{call.params['TagOptionId']}|{call.params['ResourceId']}"
    _found(service, "TagAssociation", pair)
    service.remove("TagAssociation", pair)
    return {}


def install(runtime: Runtime) -> None:
    """Nothing beyond the operations above."""
    del runtime
