"""What one environment is: account, network, retention, guards. Typed Python, owned by the platform team."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import AddressValueError, IPv4Network, NetmaskValueError
from pathlib import Path

from ml_contract.spec.blocks import Classification
from ml_lifecycle.data_lake import DEEP_ARCHIVE_LEAST_DAYS
from ml_lifecycle.foundation.logs import LOG_RETENTION_DAYS

from environments.audit import AuditServices
from environments.cost import Cost
from environments.governance import CLASSIFICATIONS, Governance
from environments.gpu import GpuQueue
from environments.hyperpod import HyperPod
from environments.observability import Observability, Tracing
from environments.orchestration import Orchestration
from environments.refusal import refuse
from environments.security import Security
from environments.services import Services
from environments.studio import Catalog, Studio
from environments.tables import Tables


@dataclass(frozen=True, kw_only=True)
class Network:
    """The VPC: isolated subnets in ``max_azs`` zones, no way to the internet.

    ``interface_endpoints`` brings AWS's APIs into the VPC for jobs that run inside it; each endpoint costs
    about 0.01 USD per hour and zone. Gateway endpoints (S3, DynamoDB) are free and always there.
    ``certificate_arn`` is the certificate of load balancers inside the VPC (``serving.style: ecs``); without
    one they speak HTTP.
    """

    cidr: str = "10.0.0.0/16"
    max_azs: int = 2
    interface_endpoints: bool = True
    certificate_arn: str | None = None

    def __post_init__(self) -> None:
        problems = []
        if not 1 <= self.max_azs <= 3:
            problems.append(f"max_azs must be between 1 and 3, got {self.max_azs}")
        try:
            prefix = IPv4Network(self.cidr).prefixlen
        except (AddressValueError, NetmaskValueError, ValueError):
            problems.append(f"cidr must be an IPv4 network such as 10.0.0.0/16, got {self.cidr!r}")
        else:
            # Amazon VPC, "VPC CIDR blocks": /16 to /28; subnets need room.
            if not 16 <= prefix <= 24:
                problems.append(f"cidr must have a prefix between /16 and /24, got /{prefix}")
        certificate = self.certificate_arn
        if certificate is not None and not re.fullmatch(
            r"arn:aws[a-z-]*:acm:[a-z0-9-]+:\d{12}:certificate/[\w-]+", certificate
        ):
            problems.append(f"certificate_arn must be an ARN of ACM, got {certificate!r}")
        refuse("network", problems)


@dataclass(frozen=True, kw_only=True)
class Retention:
    """How long things are kept, in days, and in which class of storage.

    Raw data ages into Standard-IA and Glacier Instant Retrieval, which answer at once: every run of the batch
    jobs reads all of it. What nobody reads any more, old versions and access logs, may age into Deep Archive
    (``..._to_deep_archive_days``; None: it does not).

    ``raw_days`` ends the life of raw and quarantined records by their workload's classification, e.g.
    ``{"restricted": 730}``; without an entry they are kept. The run after that leaves them out of the curated
    table and the features; the table's old snapshots (``tables.snapshot_days``) and the zones' old versions
    (``noncurrent_version_days``) hold them for that much longer.
    """

    log_days: int = 90
    access_log_days: int = 365
    noncurrent_version_days: int = 90
    raw_to_ia_days: int = 30
    raw_to_glacier_days: int = 180
    capture_days: int = 90
    failed_delivery_days: int = 90
    noncurrent_to_deep_archive_days: int | None = None
    access_logs_to_deep_archive_days: int | None = None
    raw_days: Mapping[Classification, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        problems = []
        if self.log_days not in LOG_RETENTION_DAYS:
            allowed = ", ".join(str(days) for days in LOG_RETENTION_DAYS)
            problems.append(f"log_days must be one of {allowed}, got {self.log_days}")
        # Amazon S3, "Lifecycle: constraints": an object stays 30 days in Standard before Standard-IA, and
        # 30 days in Standard-IA before a Glacier class.
        if self.raw_to_ia_days < 30:
            problems.append(f"raw_to_ia_days must be at least 30, got {self.raw_to_ia_days}")
        if self.raw_to_glacier_days < self.raw_to_ia_days + 30:
            problems.append(
                f"raw_to_glacier_days must be at least 30 more than raw_to_ia_days ({self.raw_to_ia_days}), "
                f"got {self.raw_to_glacier_days}"
            )
        for name in ("access_log_days", "noncurrent_version_days", "capture_days", "failed_delivery_days"):
            if getattr(self, name) < 1:
                problems.append(f"{name} must be at least 1, got {getattr(self, name)}")
        problems += self._archives()
        problems += [
            f"raw_days must map {', '.join(CLASSIFICATIONS)} to at least 1, got {name!r}: {days}"
            for name, days in self.raw_days.items()
            if name not in CLASSIFICATIONS or days < 1
        ]
        refuse("retention", problems)

    def _archives(self) -> list[str]:
        problems = []
        for name, kept in (
            ("noncurrent_to_deep_archive_days", "noncurrent_version_days"),
            ("access_logs_to_deep_archive_days", "access_log_days"),
        ):
            days, end = getattr(self, name), getattr(self, kept)
            if days is None:
                continue
            if days < 1:
                problems.append(f"{name} must be at least 1 or None, got {days}")
            elif end < days + DEEP_ARCHIVE_LEAST_DAYS:
                problems.append(
                    f"{name} must be at least {DEEP_ARCHIVE_LEAST_DAYS} less than {kept} ({end}), "
                    f"got {days}; Deep Archive bills that many days at least"
                )
        return problems


@dataclass(frozen=True, kw_only=True)
class Environment:
    """One environment. ``account`` and ``region`` left out means: where the CDK CLI's credentials point.

    Nothing that holds data is deleted unless ``destroy_data`` is set here (first consent) and the deploy
    names the environment once more, ``-c destroy_data=<name>`` (second consent). A production environment
    cannot give the first.

    ``lake_administrators`` are added to Lake Formation's administrators. They need to name the role that
    deploys (the CDK's CloudFormation execution role) in accounts where Lake Formation permissions are
    enforced. With ``governance`` they are, and the deploying role is added by itself.

    ``tables`` says how Iceberg tables are kept in order; ``None``: by nobody, their snapshots never expire.

    ``glue_wheels`` is a zip of wheels in S3 (``s3://bucket/key.gluewheels.zip``) that Glue jobs install from,
    for accounts whose jobs must not reach PyPI.

    ``gpu`` adds a queue of GPU instances for jobs that no workload describes; ``None``: there is none.

    ``hyperpod`` adds a cluster for trainings of weeks; ``None``: there is none.

    ``share_models_with`` names accounts that may see this environment's model versions and deploy them.

    ``security`` names what an organisation demands or brings: boundary, names, tags, VPC, keys, perimeter.

    ``services`` names what stands beside the workloads: warehouse, dashboards, search, file systems, cameras.

    ``orchestration`` says who else starts training pipelines: Step Functions, Airflow.

    ``observability`` adds what watches the environment as a whole; ``tracing`` says where spans go;
    ``None``: nothing is traced.

    ``cost`` says what is done against costs that nobody uses: idle endpoints, streams that are too large.

    ``stakeholders`` maps a workload's name, or ``*`` for all, to the mail addresses and ``https://`` pages
    that are told of its trainings, versions, promotions and drift.

    ``audit_services`` names what looks at the account: AWS Config, Security Hub, Inspector, GuardDuty.

    ``studio`` adds a domain to work in, with a profile per persona; ``catalog`` a shelf of trial endpoints.
    Both need ``governance``.

    ``flink_connector`` is the jar of Flink's Kinesis connector, for workloads whose windows run on Flink.
    """

    name: str
    account: str | None = None
    region: str | None = None
    network: Network = field(default_factory=Network)
    retention: Retention = field(default_factory=Retention)
    production: bool = False
    destroy_data: bool = False
    alarm_email: str | None = None
    stakeholders: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    budget_usd: int | None = None
    lake_administrators: tuple[str, ...] = ()
    services: Services = field(default_factory=Services)
    orchestration: Orchestration = field(default_factory=Orchestration)
    flink_connector: Path | None = None
    governance: Governance | None = None
    tables: Tables | None = field(default_factory=Tables)
    glue_wheels: str | None = None
    gpu: GpuQueue | None = None
    hyperpod: HyperPod | None = None
    share_models_with: tuple[str, ...] = ()
    security: Security = field(default_factory=Security)
    observability: Observability = field(default_factory=Observability)
    tracing: Tracing | None = None
    cost: Cost = field(default_factory=Cost)
    audit_services: AuditServices = field(default_factory=AuditServices)
    studio: Studio | None = None
    catalog: Catalog | None = None

    def __post_init__(self) -> None:
        problems = []
        # The name becomes part of Glue database, endpoint and feature-group names.
        if not re.fullmatch(r"[a-z][a-z0-9]{1,9}", self.name):
            problems.append(f"name must be 2 to 10 lower-case letters and digits, got {self.name!r}")
        if self.account is not None and not re.fullmatch(r"[0-9]{12}", self.account):
            problems.append(f"account must be 12 digits or None, got {self.account!r}")
        if self.region is not None and not re.fullmatch(r"[a-z]{2}(-[a-z]+)+-[0-9]", self.region):
            problems.append(f"region must look like eu-central-1 or be None, got {self.region!r}")
        problems += [
            f"share_models_with must be accounts of 12 digits, got {account!r}"
            for account in self.share_models_with
            if not re.fullmatch(r"[0-9]{12}", account)
        ]
        if (self.account is None) != (self.region is None):
            problems.append(f"account and region go together, got {self.account!r} and {self.region!r}")
        airflow = self.orchestration.airflow
        if airflow is not None and (self.network.max_azs < 2 or not self.network.interface_endpoints):
            problems.append(
                "orchestration.airflow needs network.max_azs of at least 2 and interface_endpoints"
            )
        problems += [
            f"{name} needs governance, whose personas it is for, got none"
            for name in ("studio", "catalog")
            if getattr(self, name) is not None and self.governance is None
        ]
        if self.studio is not None and not self.network.interface_endpoints:
            problems.append("studio needs network.interface_endpoints, got False; it is inside the VPC only")
        if self.production and self.destroy_data:
            problems.append("destroy_data must be False in a production environment, got True")
        if self.alarm_email is not None and not re.fullmatch(r"[^@\s]+@[^@\s]+\.[^@\s]+", self.alarm_email):
            problems.append(f"alarm_email must be an address or None, got {self.alarm_email!r}")
        if self.glue_wheels is not None and not re.fullmatch(
            r"s3://[^/]+/.+\.gluewheels\.zip", self.glue_wheels
        ):
            problems.append(
                "glue_wheels must look like s3://bucket/key.gluewheels.zip or be None, "
                f"got {self.glue_wheels!r}"
            )
        if self.budget_usd is not None and self.budget_usd < 1:
            problems.append(f"budget_usd must be at least 1 or None, got {self.budget_usd}")
        if self.cost.budget_action is not None and self.budget_usd is None:
            problems.append("cost.budget_action goes with budget_usd, got no budget")
        if self.production and (self.cost.stop_idle_after_hours is not None or self.cost.small_streams):
            problems.append("cost.stop_idle_after_hours and cost.small_streams do not go with production")
        problems += [
            f"lake_administrators must hold ARNs of IAM roles or users, got {arn!r}"
            for arn in self.lake_administrators
            if not re.fullmatch(r"arn:aws[a-z-]*:iam::[0-9]{12}:(role|user)/\S+", arn)
        ]
        refuse(f"environment {self.name!r}", problems)

    @property
    def id(self) -> str:
        """Construct id of the environment's stage: ``dev`` is ``Dev``."""
        return self.name[:1].upper() + self.name[1:]
