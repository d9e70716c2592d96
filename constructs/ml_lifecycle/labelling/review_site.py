"""The page of the labellers: who may come in, what answers."""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_apigatewayv2 as apigateway
from aws_cdk import aws_cognito as cognito
from aws_cdk import aws_kms as kms
from aws_cdk import aws_lambda as lambda_

from constructs import Construct
from ml_lifecycle.acknowledge import acknowledge, acknowledge_all
from ml_lifecycle.foundation import log_group
from ml_lifecycle.pseudo import ACCOUNT, REGION, arn, service_principal

__all__ = ["ReviewSite"]

#: Groups of the user pool; the second settles what others disagree on (``label_tasks.review.ADJUDICATORS``).
GROUPS = {"labellers": "Label items", "adjudicators": "Settle what labellers disagree on"}
_RESOURCE_SERVER, _SCOPE = "labels", "label"
#: What anybody may fetch: the page, its script, its style, and where to sign in. They hold no data.
_OPEN = {"Page": "GET /", "Script": "GET /app.js", "Style": "GET /app.css", "Config": "GET /config"}
_GUARDED = {
    "Me": "GET /api/me",
    "Next": "POST /api/next",
    "Label": "POST /api/tasks/{task}/label",
    "Skip": "POST /api/tasks/{task}/skip",
}


class ReviewSite(Construct):
    """Define the user pool, the HTTP API and its routes to a function that is set by ``answer_with``.

    People are invited by an administrator (no sign-up), sign in with a password of at least 14 characters and
    a one-time code (a second factor is required), and hold a token for an hour. API Gateway checks the token
    of every route that shows data. The user pool is retained unless ``removal_policy`` says otherwise.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        name: str,
        log_key: kms.IKey,
        log_retention_days: int = 90,
        removal_policy: cdk.RemovalPolicy = cdk.RemovalPolicy.RETAIN,
    ) -> None:
        super().__init__(scope, construct_id)
        self.api = apigateway.CfnApi(
            self,
            "Api",
            name=f"{name}-labels",
            protocol_type="HTTP",
            description="Page of the labellers",
        )
        self.url = f"https://{self.api.ref}.execute-api.{REGION}.{cdk.Aws.URL_SUFFIX}/"
        self.pool = self._pool(removal_policy)
        self.client = self._client()
        # One prefix per Region and AWS as a whole: the account makes it one's own.
        self.domain = cognito.CfnUserPoolDomain(
            self, "Domain", user_pool_id=self.pool.ref, domain=f"{name}-labels-{ACCOUNT}"
        )
        self.domain.apply_removal_policy(removal_policy)
        self.sign_in_url = f"https://{self.domain.ref}.auth.{REGION}.amazoncognito.com"
        self.oauth_scope = f"{_RESOURCE_SERVER}/{_SCOPE}"
        for group, description in GROUPS.items():
            cognito.CfnUserPoolGroup(
                self,
                group.capitalize(),
                user_pool_id=self.pool.ref,
                group_name=group,
                description=description,
            )
        logs = log_group(self, "AccessLogs", key=log_key, retention_days=log_retention_days)
        self.stage = apigateway.CfnStage(
            self,
            "Stage",
            api_id=self.api.ref,
            stage_name="$default",
            auto_deploy=True,
            access_log_settings=apigateway.CfnStage.AccessLogSettingsProperty(
                destination_arn=logs.log_group_arn,
                # No token, no query: a sign-in comes back with its code there.
                format='{"time":"$context.requestTime","route":"$context.routeKey","status":"$context.status",'
                '"id":"$context.requestId","ip":"$context.identity.sourceIp",'
                '"person":"$context.authorizer.claims.sub","latency":"$context.responseLatency"}',
            ),
            default_route_settings=apigateway.CfnStage.RouteSettingsProperty(
                throttling_burst_limit=100, throttling_rate_limit=50
            ),
        )

    def _pool(self, removal_policy: cdk.RemovalPolicy) -> cognito.CfnUserPool:
        pool = cognito.CfnUserPool(
            self,
            "Pool",
            admin_create_user_config=cognito.CfnUserPool.AdminCreateUserConfigProperty(
                allow_admin_create_user_only=True
            ),
            mfa_configuration="ON",
            enabled_mfas=["SOFTWARE_TOKEN_MFA"],
            policies=cognito.CfnUserPool.PoliciesProperty(
                password_policy=cognito.CfnUserPool.PasswordPolicyProperty(
                    minimum_length=14,
                    require_lowercase=True,
                    require_uppercase=True,
                    require_numbers=True,
                    require_symbols=True,
                    temporary_password_validity_days=3,
                )
            ),
            account_recovery_setting=cognito.CfnUserPool.AccountRecoverySettingProperty(
                recovery_mechanisms=[
                    cognito.CfnUserPool.RecoveryOptionProperty(name="admin_only", priority=1)
                ]
            ),
            deletion_protection="ACTIVE" if removal_policy == cdk.RemovalPolicy.RETAIN else "INACTIVE",
        )
        pool.apply_removal_policy(removal_policy)
        acknowledge_all(
            pool,
            ["COG3", "COG8"],
            "Threat protection is a paid plan per person; nobody signs up here, a second factor is required "
            "and passwords are long.",
        )
        return pool

    def _client(self) -> cognito.CfnUserPoolClient:
        server = cognito.CfnUserPoolResourceServer(
            self,
            "ResourceServer",
            user_pool_id=self.pool.ref,
            identifier=_RESOURCE_SERVER,
            name="Labels",
            scopes=[
                cognito.CfnUserPoolResourceServer.ResourceServerScopeTypeProperty(
                    scope_name=_SCOPE, scope_description="See items and label them"
                )
            ],
        )
        client = cognito.CfnUserPoolClient(
            self,
            "Client",
            user_pool_id=self.pool.ref,
            # A page keeps no secret: the code flow with PKCE needs none.
            generate_secret=False,
            allowed_o_auth_flows=["code"],
            allowed_o_auth_flows_user_pool_client=True,
            allowed_o_auth_scopes=[f"{_RESOURCE_SERVER}/{_SCOPE}"],
            callback_ur_ls=[self.url],
            logout_ur_ls=[self.url],
            supported_identity_providers=["COGNITO"],
            explicit_auth_flows=["ALLOW_REFRESH_TOKEN_AUTH"],
            prevent_user_existence_errors="ENABLED",
            enable_token_revocation=True,
            access_token_validity=60,
            id_token_validity=60,
            refresh_token_validity=24,
            token_validity_units=cognito.CfnUserPoolClient.TokenValidityUnitsProperty(
                access_token="minutes",  # noqa: S106 - a unit, no secret
                id_token="minutes",  # noqa: S106
                refresh_token="hours",  # noqa: S106
            ),
        )
        client.add_resource_dependency(server)
        return client

    def answer_with(self, function: lambda_.Function) -> None:
        """Route every request to ``function``; those that show data past the check of the token."""
        integration = apigateway.CfnIntegration(
            self,
            "Function",
            api_id=self.api.ref,
            integration_type="AWS_PROXY",
            integration_uri=function.function_arn,
            payload_format_version="2.0",
        )
        authorizer = apigateway.CfnAuthorizer(
            self,
            "Authorizer",
            api_id=self.api.ref,
            name="people",
            authorizer_type="JWT",
            identity_source=["$request.header.Authorization"],
            jwt_configuration=apigateway.CfnAuthorizer.JWTConfigurationProperty(
                audience=[self.client.ref],
                issuer=f"https://cognito-idp.{REGION}.amazonaws.com/{self.pool.ref}",
            ),
        )
        for route_id, key in _OPEN.items():
            route = self._route(route_id, key, integration)
            acknowledge(
                route, "APIG4", "The page and where to sign in hold no data; what shows data is guarded."
            )
        for route_id, key in _GUARDED.items():
            self._route(route_id, key, integration, authorizer)
        function.add_permission(
            "Api",
            principal=service_principal("apigateway"),
            # Every stage, method and path of this one API.
            source_arn=arn("execute-api", f"{self.api.ref}/*"),
        )

    def _route(
        self,
        construct_id: str,
        key: str,
        integration: apigateway.CfnIntegration,
        authorizer: apigateway.CfnAuthorizer | None = None,
    ) -> apigateway.CfnRoute:
        guarded = authorizer is not None
        return apigateway.CfnRoute(
            self,
            f"{construct_id}Route",
            api_id=self.api.ref,
            route_key=key,
            target=f"integrations/{integration.ref}",
            authorization_type="JWT" if guarded else "NONE",
            authorizer_id=authorizer.ref if authorizer is not None else None,
            authorization_scopes=[self.oauth_scope] if guarded else None,
        )
