"""What a destroy leaves, why, and what that goes on costing: read from the templates, before it happens."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from cost.assembly import Stack
from cost.forecast import Forecast, forecast

if TYPE_CHECKING:
    from cost.load import Load
    from cost.pricing import PriceTable

__all__ = ["FIRST_CONSENT", "Announcement", "Stays", "announce"]

#: Where a template says that its environment's data may be destroyed (its metadata).
FIRST_CONSENT: Final = "ml-lifecycle:destroy-data"

#: Type of resource -> why its template retains it.
WHY: Final[Mapping[str, str]] = {
    "AWS::Cognito::UserPool": "people who label, and their sign-in",
    "AWS::Cognito::UserPoolDomain": "the address at which people sign in",
    "AWS::DynamoDB::Table": "it holds data: labels, or what waits for one",
    "AWS::Glue::Table": "the schema of data that stays",
    "AWS::KMS::Key": "without it nobody can read the data that stays",
    "AWS::Kinesis::Stream": "it may hold records that nobody has delivered yet",
    "AWS::Logs::LogGroup": "it holds what was logged",
    "AWS::S3::Bucket": "it holds data",
    "AWS::SageMaker::FeatureGroup": "it holds features",
    "AWS::SageMaker::ModelPackageGroup": "it holds versions of models and who approved them",
    "AWS::SecretsManager::Secret": "it holds a password that somebody has filled in",
    "Custom::ApprovalParameter": "it says which model is approved",
    "Custom::IcebergTable": "it names the snapshots of data that stays",
    "Custom::MaskKey": "without it masked values never match again",
}
#: What is in no template: where it comes from and what becomes of it.
BESIDE: Final = (
    "log groups that SageMaker and Glue make for jobs (/aws/sagemaker/*, /aws-glue/*), without an end of "
    "their own: delete them by name",
    "images and files that the CDK has published: they belong to its bootstrap stack, which serves other "
    "apps too",
    "the home file system of a Studio domain, where it has one: AWS keeps it, and with it the subnets it "
    "is in (docs/constructs/studio-domain.md)",
    "runs, jobs and model versions in SageMaker's lists: they cost nothing",
)


@dataclass(frozen=True, kw_only=True)
class Stays:
    """A resource that its template retains. ``usd`` a month without data in it; None: by what it holds."""

    stack: str
    stack_name: str
    logical_id: str
    type: str
    why: str
    usd: float | None


@dataclass(frozen=True, kw_only=True)
class Announcement:
    """What a destroy of some stacks will do."""

    stays: Sequence[Stays]
    #: Type of resource -> number of those that go.
    goes: Mapping[str, int]
    #: Stacks whose environment gives the first consent to destroy data.
    consented: bool
    #: USD a month before, at rest and with models served, and afterwards without what the data costs.
    before: float
    after: float
    protected: Sequence[str]
    prices: str

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self) | {"beside": list(BESIDE)}

    def text(self) -> str:
        """Lines for people."""
        by_type: dict[str, list[Stays]] = {}
        for one in self.stays:
            by_type.setdefault(one.type, []).append(one)
        lines = [
            f"{sum(self.goes.values())} resources go, {len(self.stays)} stay. Until now they cost "
            f"{self.before:.2f} USD a month, afterwards {self.after:.2f} and what the data takes "
            f"(list prices of {self.prices}).",
            "",
        ]
        for kind, those in sorted(by_type.items()):
            usd = sum(one.usd or 0.0 for one in those)
            money = f", {usd:.2f} USD a month" if usd else ""
            lines.append(f"stays: {len(those)} x {kind}{money}: {those[0].why}")
            lines += [f"    {one.stack}: {one.logical_id}" for one in those]
        lines += ["", "also there, and in no template:", *(f"  - {text}" for text in BESIDE)]
        if self.protected:
            lines += [
                "",
                f"protected against deletion: {', '.join(self.protected)}; the destroy will fail there",
            ]
        return "\n".join(lines)


def announce(
    stacks: Sequence[Stack],
    *,
    loads: Mapping[str, Load] | None = None,
    prices: PriceTable | None = None,
    region: str | None = None,
) -> Announcement:
    """Say what a destroy of ``stacks`` takes and leaves."""
    found = forecast(stacks, loads=loads, prices=prices, region=region)
    stays = [
        Stays(
            stack=stack.id,
            stack_name=stack.name,
            logical_id=resource.id,
            type=resource.type,
            why=WHY.get(resource.type, "its template retains it"),
            usd=_usd(found, stack.id, resource.id),
        )
        for stack in stacks
        for resource in stack.resources.values()
        if resource.retained
    ]
    goes = Counter(r.type for stack in stacks for r in stack.resources.values() if not r.retained)
    return Announcement(
        stays=stays,
        goes=dict(sorted(goes.items())),
        consented=any(stack.template.get("Metadata", {}).get(FIRST_CONSENT) is True for stack in stacks),
        before=found.total.idle,
        after=sum(one.usd or 0.0 for one in stays),
        protected=[stack.id for stack in stacks if stack.protected],
        prices=found.prices,
    )


def _usd(found: Forecast, stack: str, resource: str) -> float | None:
    """What a resource costs at rest; ``None`` when only its content costs."""
    mine = [
        line.usd
        for line in found.lines
        if line.stack == stack and line.resource == resource and line.state == "rest"
    ]
    known = [usd for usd in mine if usd is not None]
    return sum(known) if known else None
