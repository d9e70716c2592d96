"""A Studio domain inside the VPC: a profile per persona, apps that stop when nobody works."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import aws_cdk as cdk
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_sagemaker as sagemaker

from constructs import Construct
from ml_lifecycle.governance import PersonaName
from ml_lifecycle.pseudo import ACCOUNT, arn, service_principal
from ml_lifecycle.training import TrackingServer
from ml_lifecycle.training.wildcards import acknowledge_wildcards

__all__ = ["StudioDomain"]

_START: Final = Path(__file__).with_name("start.sh")
#: SageMaker API Reference, IdleSettings: minutes.
_IDLE_MINUTES: Final = (60, 525_600)


class StudioDomain(Construct):
    """Define a domain of SageMaker Studio for the ``personas``: a profile each, acting as the persona's role.

    Studio may assume the roles and says who works (``sts:SourceIdentity`` is the profile's name, which
    CloudTrail shows). Whoever may assume a role opens Studio as it: ``aws sagemaker
    create-presigned-domain-url``. A person works in spaces of the own profile only, whose volumes and home
    directories are encrypted with ``key``; apps have no way to the internet, and what they reach, they reach
    through the VPC's endpoints. Canvas is hidden and nobody is granted what it needs: its settings are not in
    CloudFormation. Docker is off. Notebook output is not shared.

    With ``tracking``, shells and kernels find the MLflow server (``MLFLOW_TRACKING_URI``) and the personas
    may log runs to it. ``home_files`` gives the domain a file system, which AWS keeps when the domain goes:
    it keeps subnets and security groups from being deleted until somebody deletes it.

    Defaults: apps stop after 60 minutes without work, and nobody can ask for more than eight hours; a space
    has 5 GB, at most 100; home directories are there; no tracking server.

    Raises:
        ValueError: no persona, no subnet, or an idle time that SageMaker refuses.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        name: str,
        personas: Mapping[PersonaName, iam.Role],
        vpc: ec2.IVpc,
        subnets: Sequence[ec2.ISubnet],
        security_group: ec2.ISecurityGroup,
        key: kms.IKey,
        idle_minutes: int = 60,
        home_files: bool = True,
        tracking: TrackingServer | None = None,
    ) -> None:
        super().__init__(scope, construct_id)
        least, most = _IDLE_MINUTES
        problems = []
        if not personas:
            problems.append("personas must hold at least one, got none")
        if not subnets:
            problems.append("subnets must hold at least one, got none")
        if not least <= idle_minutes <= most:
            problems.append(f"idle_minutes must be between {least} and {most}, got {idle_minutes}")
        if problems:
            raise ValueError("studio domain: " + "; ".join(problems))
        self.name = name
        self._key_arn = key.key_arn
        self._idle_minutes = idle_minutes
        self.start = self._start(tracking)
        for role in personas.values():
            self._let_studio_assume(role)
        first = next(iter(personas.values()))
        props = sagemaker.CfnDomain
        ids = [security_group.security_group_id]
        self.domain = props(
            self,
            "Domain",
            domain_name=name,
            auth_mode="IAM",
            app_network_access_type="VpcOnly",
            vpc_id=vpc.vpc_id,
            subnet_ids=[subnet.subnet_id for subnet in subnets],
            kms_key_id=self._key_arn,
            home_efs_file_system_creation="Enabled" if home_files else "Disabled",
            tag_propagation="ENABLED",
            domain_settings=props.DomainSettingsProperty(
                execution_role_identity_config="USER_PROFILE_NAME",
                security_group_ids=ids,
                docker_settings=props.DockerSettingsProperty(enable_docker_access="DISABLED"),
            ),
            default_user_settings=props.UserSettingsProperty(
                # Of a profile that names none; ours each name their own.
                execution_role=first.role_arn,
                security_groups=ids,
                studio_web_portal="ENABLED",
                default_landing_uri="studio::",
                auto_mount_home_efs="Enabled" if home_files else "Disabled",
                sharing_settings=props.SharingSettingsProperty(notebook_output_option="Disabled"),
                studio_web_portal_settings=props.StudioWebPortalSettingsProperty(
                    hidden_app_types=["Canvas", "JupyterServer", "RStudioServerPro"]
                ),
                space_storage_settings=props.DefaultSpaceStorageSettingsProperty(
                    default_ebs_storage_settings=props.DefaultEbsStorageSettingsProperty(
                        default_ebs_volume_size_in_gb=5, maximum_ebs_volume_size_in_gb=100
                    )
                ),
                jupyter_lab_app_settings=props.JupyterLabAppSettingsProperty(
                    app_lifecycle_management=self._idle(),
                    # Runs before whatever a space has of its own, and nobody can leave it out.
                    built_in_lifecycle_config_arn=self.start.attr_studio_lifecycle_config_arn,
                ),
                code_editor_app_settings=props.CodeEditorAppSettingsProperty(
                    app_lifecycle_management=self._idle()
                ),
            ),
        )
        self.profiles: dict[PersonaName, sagemaker.CfnUserProfile] = {}
        for persona, role in personas.items():
            self.profiles[persona] = self._profile(persona, role, ids)
            if tracking is not None:
                tracking.grant_log(role)

    def _start(self, tracking: TrackingServer | None) -> sagemaker.CfnStudioLifecycleConfig:
        script = _START.read_text()
        # Nothing of it can be changed: another content is another configuration, with another name.
        digest = hashlib.sha256(f"{script}{'' if tracking is None else tracking.name}".encode()).hexdigest()
        return sagemaker.CfnStudioLifecycleConfig(
            self,
            "Start",
            studio_lifecycle_config_name=f"{self.name}-start-{digest[:8]}",
            studio_lifecycle_config_app_type="JupyterLab",
            studio_lifecycle_config_content=cdk.Fn.base64(
                script.replace("@TRACKING@", "" if tracking is None else tracking.server_arn)
            ),
        )

    def _idle(self) -> sagemaker.CfnDomain.AppLifecycleManagementProperty:
        props, most = sagemaker.CfnDomain, max(8 * 60, self._idle_minutes)
        return props.AppLifecycleManagementProperty(
            idle_settings=props.IdleSettingsProperty(
                lifecycle_management="ENABLED",
                idle_timeout_in_minutes=self._idle_minutes,
                min_idle_timeout_in_minutes=_IDLE_MINUTES[0],
                max_idle_timeout_in_minutes=most,
            )
        )

    def _let_studio_assume(self, role: iam.Role) -> None:
        trust = role.assume_role_policy
        if trust is None:
            raise ValueError(f"{role.node.path} must be a role of this app, got one whose trust is fixed")
        trust.add_statements(
            iam.PolicyStatement(
                sid="Studio",
                principals=[service_principal("sagemaker")],
                # Who works is said by the profile's name ("Monitoring user resource access from Studio").
                actions=["sts:AssumeRole", "sts:SetSourceIdentity"],
                conditions={"StringEquals": {"aws:SourceAccount": ACCOUNT}},
            )
        )

    def _profile(
        self, persona: PersonaName, role: iam.Role, security_group_ids: list[str]
    ) -> sagemaker.CfnUserProfile:
        name = persona.replace("_", "-")
        title = "".join(part.title() for part in persona.split("_"))
        domain_id = self.domain.attr_domain_id
        profile = sagemaker.CfnUserProfile(
            self,
            title,
            domain_id=domain_id,
            user_profile_name=name,
            user_settings=sagemaker.CfnUserProfile.UserSettingsProperty(
                execution_role=role.role_arn, security_groups=security_group_ids
            ),
        )
        profile.node.add_dependency(self._policy(f"{title}Works", domain_id, name, role))
        return profile

    def _policy(self, policy_id: str, domain_id: str, profile: str, role: iam.Role) -> iam.ManagedPolicy:
        """What Studio's pages and apps ask as the role: the own profile's private spaces, and descriptions.

        Source: AWS managed policy AmazonSageMakerFullAccess, its statements about spaces and apps, ended at
        this domain and this profile.
        """
        own = arn("sagemaker", f"user-profile/{domain_id}/{profile}")
        spaces = arn("sagemaker", f"space/{domain_id}/*")
        apps = arn("sagemaker", f"app/{domain_id}/*")
        policy = iam.ManagedPolicy(
            self,
            policy_id,
            description=f"Works in Studio as {profile}",
            statements=[
                iam.PolicyStatement(
                    sid="Open", actions=["sagemaker:CreatePresignedDomainUrl"], resources=[own]
                ),
                iam.PolicyStatement(
                    sid="OwnSpaces",
                    actions=[
                        "sagemaker:AddTags",
                        "sagemaker:CreateApp",
                        "sagemaker:CreateSpace",
                        "sagemaker:DeleteApp",
                        "sagemaker:DeleteSpace",
                        "sagemaker:UpdateSpace",
                    ],
                    resources=[spaces, apps],
                    conditions={
                        "ArnEquals": {"sagemaker:OwnerUserProfileArn": own},
                        "StringEquals": {"sagemaker:SpaceSharingType": "Private"},
                    },
                ),
                iam.PolicyStatement(
                    sid="See",
                    actions=[
                        "sagemaker:DescribeApp",
                        "sagemaker:DescribeDomain",
                        "sagemaker:DescribeSpace",
                        "sagemaker:DescribeUserProfile",
                    ],
                    resources=[arn("sagemaker", f"domain/{domain_id}"), own, spaces, apps],
                ),
                iam.PolicyStatement(
                    sid="List",
                    actions=[
                        "sagemaker:ListApps",
                        "sagemaker:ListDomains",
                        "sagemaker:ListSpaces",
                        "sagemaker:ListUserProfiles",
                    ],
                    resources=["*"],
                ),
                iam.PolicyStatement(
                    sid="Volumes",
                    actions=["kms:Decrypt", "kms:DescribeKey", "kms:GenerateDataKeyWithoutPlaintext"],
                    resources=[self._key_arn],
                ),
                iam.PolicyStatement(
                    # A space's volume is made as the profile's role; EBS keeps the grant.
                    sid="VolumesOfServices",
                    actions=["kms:CreateGrant"],
                    resources=[self._key_arn],
                    conditions={"Bool": {"kms:GrantIsForAWSResource": "true"}},
                ),
            ],
            roles=[role],
        )
        acknowledge_wildcards(
            policy,
            "People name their spaces: the wildcard ends at this domain, and changes at what the own profile "
            "owns; lists take no resource.",
            resources=[spaces, apps, "*"],
        )
        return policy
