"""Trial endpoints off the shelf: who may make none by itself launches one within bounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import aws_cdk as cdk
from aws_cdk import aws_ecr as ecr
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_sagemaker as sagemaker
from aws_cdk import aws_servicecatalog as servicecatalog
from aws_cdk import aws_ssm as ssm

from constructs import Construct
from ml_lifecycle import instance_types as types
from ml_lifecycle.data_lake import Zone
from ml_lifecycle.pseudo import ACCOUNT, PARTITION, REGION, arn, service_principal
from ml_lifecycle.serving.approved import endpoint_role
from ml_lifecycle.training.job_role import JobNetwork
from ml_lifecycle.training.wildcards import acknowledge_wildcards

__all__ = ["TrialCatalog", "TrialEndpoint"]

#: SageMaker API Reference, CreateEndpointConfig: EndpointConfigName has at most 63 characters. The longest
#: name has a version of five digits and an instance type of 20 characters.
_MOST_NAME = 63 - len("-trial-") - 5 - 1 - 20


class TrialCatalog(Construct):
    """Define a portfolio of AWS Service Catalog and who may launch what lies in it.

    ``tags`` become tag options: what is launched carries them, as whatever the environment makes. Products
    are added by ``add_trial``; ``grant_launch`` lets a role launch them, and see and end what it launched.
    """

    def __init__(
        self, scope: Construct, construct_id: str, *, name: str, provider: str, tags: Mapping[str, str]
    ) -> None:
        super().__init__(scope, construct_id)
        self._provider = provider
        self.portfolio = servicecatalog.Portfolio(
            self,
            "Portfolio",
            display_name=name,
            provider_name=provider,
            description="Endpoints to try approved models with",
            tag_options=servicecatalog.TagOptions(
                self, "Tags", allowed_values_for_tags={key: [value] for key, value in tags.items()}
            )
            if tags
            else None,
        )
        self.products: list[servicecatalog.CloudFormationProduct] = []

    def add_trial(
        self, scope: Construct, construct_id: str, *, trial: TrialEndpoint
    ) -> servicecatalog.CloudFormationProduct:
        """Put a trial endpoint on the shelf: launched as ``trial.launch_role``, on its instance types."""
        product = servicecatalog.CloudFormationProduct(
            scope,
            construct_id,
            product_name=f"{trial.name}-trial",
            owner=self._provider,
            description=f"An endpoint with an approved version of {trial.group_name}, until you terminate it",
            product_versions=[
                servicecatalog.CloudFormationProductVersion(
                    product_version_name="v1",
                    description="One instance, inside the VPC, encrypted",
                    cloud_formation_template=servicecatalog.CloudFormationTemplate.from_product_stack(
                        trial.template
                    ),
                )
            ],
        )
        self.portfolio.add_product(product)
        self.portfolio.constrain_cloud_formation_parameters(
            product,
            description="Instance types that the platform pays for",
            rule=servicecatalog.TemplateRule(
                rule_name="InstanceTypes",
                assertions=[
                    servicecatalog.TemplateRuleAssertion(
                        assert_=cdk.Fn.condition_contains(
                            list(trial.instance_types), trial.template.instance_type.value_as_string
                        ),
                        description=f"InstanceType must be one of {', '.join(trial.instance_types)}",
                    )
                ],
            ),
        )
        self.portfolio.set_launch_role(product, trial.launch_role)
        self.products.append(product)
        return product

    def grant_launch(self, role: iam.IRole, construct_id: str) -> iam.ManagedPolicy:
        """Let ``role`` find and launch the products; see, change and terminate what it launched itself."""
        self.portfolio.give_access_to_role(role)
        products = [
            f"arn:{PARTITION}:catalog:{REGION}:{ACCOUNT}:product/{product.product_id}"
            for product in self.products
        ]
        # Service Authorization Reference, "AWS Service Catalog": these take no resource; the condition ends
        # them at what the role itself launched.
        own = {"StringEquals": {"servicecatalog:roleLevel": "self"}}
        policy = iam.ManagedPolicy(
            self,
            construct_id,
            description="Launches what lies in the portfolio, and ends it",
            statements=[
                iam.PolicyStatement(
                    sid="Launch",
                    actions=[
                        "servicecatalog:DescribeProduct",
                        "servicecatalog:DescribeProvisioningParameters",
                        "servicecatalog:ListLaunchPaths",
                        "servicecatalog:ProvisionProduct",
                    ],
                    resources=products,
                ),
                iam.PolicyStatement(
                    sid="Find",
                    actions=["servicecatalog:DescribeProductView", "servicecatalog:SearchProducts"],
                    resources=["*"],
                ),
                iam.PolicyStatement(
                    sid="Own",
                    actions=[
                        "servicecatalog:DescribeProvisionedProduct",
                        "servicecatalog:DescribeRecord",
                        "servicecatalog:ListRecordHistory",
                        "servicecatalog:SearchProvisionedProducts",
                        "servicecatalog:TerminateProvisionedProduct",
                        "servicecatalog:UpdateProvisionedProduct",
                    ],
                    resources=["*"],
                    conditions=own,
                ),
            ],
            roles=[role],
        )
        acknowledge_wildcards(
            policy,
            "Service Catalog's searches and records take no resource: it shows products of portfolios that "
            "the role was given, and a condition ends the rest at what the role launched itself.",
            resources=["*"],
        )
        return policy


class TrialEndpoint(Construct):
    """Define the template of a trial endpoint and the role that launches it, for one workload.

    The template asks for the version of the model and an instance type. Name, role, key and network are given
    by parameters of SSM below ``parameters``: whoever launches passes no role and picks no network. The
    endpoint is called ``<name>-trial``, so there is one at a time; SageMaker deploys approved versions only.
    One instance; nothing is captured, nothing scales, no alarm wakes anybody.

    ``launch_role`` may make and remove exactly that endpoint, its model and its configuration.

    Raises:
        ValueError: a name too long, or instance types that no endpoint takes or that have disks of their own,
        which take no key.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        name: str,
        group_name: str,
        parameters: str,
        artifacts: Zone,
        models_prefix: str,
        repository: ecr.IRepository,
        volume_key: kms.IKey,
        network: JobNetwork,
        instance_types: Sequence[str] = ("ml.t2.medium", "ml.m5.large"),
    ) -> None:
        super().__init__(scope, construct_id)
        problems = []
        if len(name) > _MOST_NAME:
            problems.append(f"name must have at most {_MOST_NAME} characters, got {len(name)}: {name}")
        for one in instance_types:
            try:
                types.check(one, "endpoint")
            except ValueError as error:
                problems.append(f"instance_types: {error}")
                continue
            if types.has_local_disk(one):
                problems.append(f"instance_types must have no disks of their own, got {one}")
        if not instance_types:
            problems.append("instance_types must hold at least one, got none")
        if problems:
            raise ValueError("trial endpoint: " + "; ".join(problems))
        self.name, self.group_name = name, group_name
        self.instance_types = tuple(instance_types)
        self.endpoint_name = f"{name}-trial"
        self.role = endpoint_role(
            self,
            "Role",
            endpoint_name=self.endpoint_name,
            artifacts=artifacts,
            read=models_prefix,
            volume_key=volume_key,
            repository=repository,
            network=network,
        )
        values = {
            "role": self.role.role_arn,
            "key": volume_key.key_arn,
            "subnets": cdk.Fn.join(",", network.subnet_ids),
            "security-groups": cdk.Fn.join(",", network.security_group_ids),
        }
        self.parameter_names = {key: f"{parameters}/{key}" for key in values}
        for key, value in values.items():
            ssm.CfnParameter(
                self,
                f"Given{''.join(part.title() for part in key.split('-'))}",
                name=self.parameter_names[key],
                type="StringList" if key.endswith("s") else "String",
                value=value,
                description=f"Of trial endpoints {self.endpoint_name}",
            )
        self.template = _Template(self, "Template", trial=self)
        self.launch_role = self._launch_role(volume_key)

    def _launch_role(self, volume_key: kms.IKey) -> iam.Role:
        role = iam.Role(
            self,
            "LaunchRole",
            description=f"AWS Service Catalog: makes and removes {self.endpoint_name}",
            assumed_by=service_principal("servicecatalog", own_account=True),
        )
        # Service Catalog Administrator Guide, "AWS Service Catalog Launch Constraints": what the role needs
        # beside the product's own resources. It names its stacks SC-<account>-<id>.
        stacks = f"arn:{PARTITION}:cloudformation:{REGION}:{ACCOUNT}:stack/SC-{ACCOUNT}-*"
        named = [
            arn("sagemaker", f"{kind}/{self.endpoint_name}{rest}")
            for kind, rest in (("endpoint", ""), ("endpoint-config", "-*"), ("model", "-*"))
        ]
        versions = arn("sagemaker", f"model-package/{self.group_name}/*")
        templates = f"arn:{PARTITION}:s3:::*"
        for actions, resource_arns, conditions in (
            (
                [
                    "cloudformation:CreateStack",
                    "cloudformation:DeleteStack",
                    "cloudformation:DescribeStackEvents",
                    "cloudformation:DescribeStacks",
                    "cloudformation:SetStackPolicy",
                    "cloudformation:UpdateStack",
                ],
                [stacks],
                None,
            ),
            (["cloudformation:GetTemplateSummary", "cloudformation:ValidateTemplate"], ["*"], None),
            (
                ["s3:GetObject"],
                [templates],
                {"StringEquals": {"s3:ExistingObjectTag/servicecatalog:provisioning": "true"}},
            ),
            (
                ["ssm:GetParameters"],
                [arn("ssm", f"parameter{name}") for name in self.parameter_names.values()],
                None,
            ),
            (
                [
                    "sagemaker:AddTags",
                    "sagemaker:CreateEndpoint",
                    "sagemaker:CreateEndpointConfig",
                    "sagemaker:CreateModel",
                    "sagemaker:DeleteEndpoint",
                    "sagemaker:DeleteEndpointConfig",
                    "sagemaker:DeleteModel",
                    "sagemaker:DescribeEndpoint",
                    "sagemaker:DescribeEndpointConfig",
                    "sagemaker:DescribeModel",
                    "sagemaker:ListTags",
                    "sagemaker:UpdateEndpoint",
                ],
                named,
                None,
            ),
            (["sagemaker:DescribeModelPackage"], [versions], None),
            (
                ["iam:PassRole"],
                [self.role.role_arn],
                {"StringEquals": {"iam:PassedToService": "sagemaker.amazonaws.com"}},
            ),
            (["kms:DescribeKey"], [volume_key.key_arn], None),
            (["kms:CreateGrant"], [volume_key.key_arn], {"Bool": {"kms:GrantIsForAWSResource": "true"}}),
        ):
            iam.Grant.add_to_principal(
                grantee=role, actions=actions, resource_arns=resource_arns, conditions=conditions
            )
        acknowledge_wildcards(
            role,
            "Service Catalog names the stack, and the bucket of templates is its own, read by the tag that "
            "it puts on them; the summary of a template takes no resource; model, configuration and version "
            "end in the number of the version.",
            resources=[stacks, "*", templates, *named, versions],
        )
        return role


class _Template(servicecatalog.ProductStack):
    """What Service Catalog deploys: a model, its configuration, its endpoint."""

    def __init__(self, scope: Construct, construct_id: str, *, trial: TrialEndpoint) -> None:
        super().__init__(scope, construct_id, description=f"A trial endpoint of {trial.group_name}")
        version = cdk.CfnParameter(
            self,
            "Version",
            type="Number",
            min_value=1,
            max_value=99_999,
            description=f"Number of an approved version of {trial.group_name}",
        )
        self.instance_type = cdk.CfnParameter(
            self, "InstanceType", default=trial.instance_types[0], description="What the endpoint runs on"
        )
        given = {
            key: cdk.CfnParameter(
                self,
                "".join(part.title() for part in key.split("-")),
                type=f"AWS::SSM::Parameter::Value<{'List<String>' if key.endswith('s') else 'String'}>",
                default=name,
                description="Given by the platform; leave it as it is",
            )
            for key, name in trial.parameter_names.items()
        }
        number = version.value_as_string
        model = sagemaker.CfnModel(
            self,
            "Model",
            # A name of its own per version: CloudFormation replaces what has another package.
            model_name=f"{trial.endpoint_name}-{number}",
            execution_role_arn=given["role"].value_as_string,
            containers=[
                sagemaker.CfnModel.ContainerDefinitionProperty(
                    model_package_name=arn("sagemaker", f"model-package/{trial.group_name}/{number}")
                )
            ],
            enable_network_isolation=True,
            vpc_config=sagemaker.CfnModel.VpcConfigProperty(
                subnets=given["subnets"].value_as_list,
                security_group_ids=given["security-groups"].value_as_list,
            ),
        )
        # Names of configurations have no dots.
        kind = cdk.Fn.join("-", cdk.Fn.split(".", self.instance_type.value_as_string))
        config = sagemaker.CfnEndpointConfig(
            self,
            "Config",
            endpoint_config_name=f"{trial.endpoint_name}-{number}-{kind}",
            production_variants=[
                sagemaker.CfnEndpointConfig.ProductionVariantProperty(
                    model_name=model.attr_model_name,
                    variant_name="AllTraffic",
                    instance_type=self.instance_type.value_as_string,
                    initial_instance_count=1,
                    initial_variant_weight=1,
                )
            ],
            kms_key_id=given["key"].value_as_string,
        )
        endpoint = sagemaker.CfnEndpoint(
            self,
            "Endpoint",
            endpoint_name=trial.endpoint_name,
            endpoint_config_name=config.attr_endpoint_config_name,
        )
        cdk.CfnOutput(self, "EndpointName", value=endpoint.attr_endpoint_name)
