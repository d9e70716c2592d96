"""Rows of Service Catalog: a portfolio, what lies in it, for whom, and within which bounds."""

# ruff: noqa: ARG001, ARG005 - the functions of a row share one signature
from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Mapping

from rehearsal.cloudformation.rows.base import Context, Properties, Row, by, only

__all__ = ["TABLE"]


def _once(p: Properties, context: Context) -> Properties:
    return {**p, "IdempotencyToken": uuid.uuid4().hex}


def _product(p: Properties, context: Context) -> Properties:
    """The API makes a product with its first version, and each further one by itself."""
    versions = p["ProvisioningArtifactParameters"]
    if len(versions) != 1:
        raise ValueError(f"the rehearsal makes products of one version, got {len(versions)}")
    (version,) = versions
    kept = {key: value for key, value in p.items() if key != "ReplaceProvisioningArtifacts"}
    return _once(
        {
            **kept,
            "ProductType": p.get("ProductType", "CLOUD_FORMATION_TEMPLATE"),
            "ProvisioningArtifactParameters": {
                **version,
                "Type": version.get("Type", "CLOUD_FORMATION_TEMPLATE"),
            },
        },
        context,
    )


def _launch(p: Properties, context: Context) -> Properties:
    role = {key: p[key] for key in ("RoleArn", "LocalRoleName") if key in p}
    return _once(
        {
            **only(p, ("AcceptLanguage", "Description", "PortfolioId", "ProductId")),
            "Type": "LAUNCH",
            "Parameters": json.dumps(role),
        },
        context,
    )


def _template(p: Properties, context: Context) -> Properties:
    rules = p["Rules"]
    return _once(
        {
            **only(p, ("AcceptLanguage", "Description", "PortfolioId", "ProductId")),
            "Type": "TEMPLATE",
            "Parameters": json.dumps({"Rules": json.loads(rules) if isinstance(rules, str) else rules}),
        },
        context,
    )


def _constraint(convert: Callable[[Properties, Context], Properties]) -> Row:
    return Row(
        service="servicecatalog",
        create="CreateConstraint",
        delete="DeleteConstraint",
        identify=lambda p, out: {"Id": out["ConstraintDetail"]["ConstraintId"]},
        convert=convert,
        ref=lambda p, out, found: str(out["ConstraintDetail"]["ConstraintId"]),
    )


TABLE: Mapping[str, Row] = {
    "AWS::ServiceCatalog::Portfolio": Row(
        service="servicecatalog",
        create="CreatePortfolio",
        update="UpdatePortfolio",
        delete="DeletePortfolio",
        identify=lambda p, out: {"Id": out["PortfolioDetail"]["Id"]},
        convert=_once,
        convert_update=lambda p, c: only(p, ("AcceptLanguage", "DisplayName", "Description", "ProviderName")),
        ref=lambda p, out, found: str(out["PortfolioDetail"]["Id"]),
        attributes=lambda p, out, found: {"PortfolioName": p["DisplayName"]},
    ),
    "AWS::ServiceCatalog::CloudFormationProduct": Row(
        service="servicecatalog",
        create="CreateProduct",
        delete="DeleteProduct",
        identify=lambda p, out: {"Id": out["ProductViewDetail"]["ProductViewSummary"]["ProductId"]},
        convert=_product,
        ref=lambda p, out, found: str(out["ProductViewDetail"]["ProductViewSummary"]["ProductId"]),
        attributes=lambda p, out, found: {
            "ProductName": p["Name"],
            "ProvisioningArtifactIds": out["ProvisioningArtifactDetail"]["Id"],
        },
    ),
    "AWS::ServiceCatalog::PortfolioProductAssociation": Row(
        service="servicecatalog",
        create="AssociateProductWithPortfolio",
        delete="DisassociateProductFromPortfolio",
        identify=by("PortfolioId", "ProductId"),
        ref=lambda p, out, found: f"{p['PortfolioId']}|{p['ProductId']}",
    ),
    "AWS::ServiceCatalog::PortfolioPrincipalAssociation": Row(
        service="servicecatalog",
        create="AssociatePrincipalWithPortfolio",
        delete="DisassociatePrincipalFromPortfolio",
        identify=by("PortfolioId", "PrincipalARN"),
        ref=lambda p, out, found: f"{p['PortfolioId']}|{p['PrincipalARN']}",
    ),
    "AWS::ServiceCatalog::LaunchRoleConstraint": _constraint(_launch),
    "AWS::ServiceCatalog::LaunchTemplateConstraint": _constraint(_template),
    "AWS::ServiceCatalog::TagOption": Row(
        service="servicecatalog",
        create="CreateTagOption",
        delete="DeleteTagOption",
        identify=lambda p, out: {"Id": out["TagOptionDetail"]["Id"]},
        beside=frozenset({"Active"}),
        ref=lambda p, out, found: str(out["TagOptionDetail"]["Id"]),
    ),
    "AWS::ServiceCatalog::TagOptionAssociation": Row(
        service="servicecatalog",
        create="AssociateTagOptionWithResource",
        delete="DisassociateTagOptionFromResource",
        identify=by("ResourceId", "TagOptionId"),
        ref=lambda p, out, found: f"{p['TagOptionId']}|{p['ResourceId']}",
    ),
}
