"""What the personas may do beside reading tables, and the boundary that none of them can leave."""

from __future__ import annotations

from collections.abc import Mapping

from aws_cdk import aws_iam as iam

from constructs import Construct
from ml_lifecycle.acknowledge import COMPLIANCE, acknowledge
from ml_lifecycle.data_lake import Zone
from ml_lifecycle.governance import PersonaName
from ml_lifecycle.pseudo import stack_of
from ml_lifecycle.security import rights as table
from ml_lifecycle.training.wildcards import acknowledge_wildcards

__all__ = ["PersonaWork"]

#: Prefix of what the monitors write below a workload's folder of the artifacts zone.
_REPORTS = "*/monitoring"
_GRANT = "kms:CreateGrant"
#: What Studio asks as who works in it: for the volumes of spaces, and to log runs.
_STUDIO = (_GRANT, "kms:GenerateDataKeyWithoutPlaintext", "sagemaker-mlflow:*")


class PersonaWork(Construct):
    """Define what the roles of `Personas` may do with models, logs and alarms, and their boundary.

    | | data scientist | data engineer | MLOps engineer | auditor |
    |---|---|---|---|---|
    | reads models, jobs, experiments | yes | | yes | yes |
    | starts and stops trainings | yes | | yes | |
    | registers a version, which waits | yes | | | |
    | approves, rejects, rolls back | | | yes | |
    | asks endpoints, silences alarms | | | yes | |
    | reads job logs, monitors' reports | yes | | yes | |
    | reads other logs, sees streams | | yes | yes | |
    | metrics, dashboards, alarms | yes | yes | yes | yes |
    | reads roles, keys, trails, findings | | | | yes |

    Policies name what is called after the environment, not workloads: they do not grow with their number.
    The boundary ends at the services that personas work with, without a way to change a role, a key policy
    or a trail, and without deletion of what holds data, whatever policy somebody attaches to a role.

    With ``boundary_arn``, an organisation's own managed policy, that one is the boundary, and what none may
    is denied by a policy of the role. The table stands in the template's Metadata as the calls that show it.

    With ``studio``, personas work in Studio: runs of MLflow lie within the boundary, and a grant on a key may
    be made where an AWS service keeps it (``kms:GrantIsForAWSResource``), as for an encrypted volume.

    Default: our own boundary, nothing of Studio.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        roles: Mapping[PersonaName, iam.Role],
        environment_name: str,
        stack_prefix: str,
        artifacts: Zone,
        boundary_arn: str | None = None,
        studio: bool = False,
    ) -> None:
        super().__init__(scope, construct_id)
        self.rights = table.rights(environment_name, stack_prefix)
        self.policies = {persona: self._policy(persona, role) for persona, role in roles.items()}
        for persona in ("data_scientist", "mlops_engineer"):
            if persona in roles:
                artifacts.grant_read(roles[persona], _REPORTS)
        self._within = (*table.BOUNDARY_ACTIONS, *(_STUDIO if studio else ()))
        forbidden = _forbidden(studio=studio)
        self.boundary = self._boundary(forbidden, roles) if boundary_arn is None else None
        if boundary_arn is not None:
            iam.ManagedPolicy(
                self,
                "Forbidden",
                description="What no persona may, beside the organisation's boundary",
                statements=forbidden,
                roles=list(roles.values()),
            )
        given = boundary_arn if self.boundary is None else self.boundary.managed_policy_arn
        for role in roles.values():
            resource = role.node.default_child
            if not isinstance(resource, iam.CfnRole):
                raise TypeError(f"{role.node.path} must be a role of this app")
            resource.permissions_boundary = given
        stack_of(self).add_metadata(table.METADATA, table.as_data(self.rights))

    def _policy(self, persona: PersonaName, role: iam.Role) -> iam.ManagedPolicy:
        """Managed, not inline: 6,144 characters of its own (IAM quotas), beside what the lake grants."""
        mine = [right for right in self.rights if persona in right.personas and right.actions]
        policy = iam.ManagedPolicy(
            self,
            "".join(part.title() for part in persona.split("_")),
            description=f"What the persona {persona.replace('_', ' ')} may do beside reading tables",
            statements=[
                iam.PolicyStatement(
                    sid=right.id,
                    actions=[*right.actions],
                    resources=[*right.resources],
                    conditions={key: dict(value) for key, value in right.conditions.items()},
                )
                for right in mine
            ],
            roles=[role],
        )
        for right in mine:
            acknowledge_wildcards(
                policy,
                right.why_all
                or "The wildcard ends at the name of the environment, of its stage and workloads.",
                resources=right.resources,
            )
        return policy

    def _boundary(
        self, forbidden: list[iam.PolicyStatement], roles: Mapping[PersonaName, iam.Role]
    ) -> iam.ManagedPolicy:
        boundary = iam.ManagedPolicy(
            self,
            "Boundary",
            description=f"No persona leaves it: {', '.join(name.replace('_', ' ') for name in roles)}",
            statements=[
                iam.PolicyStatement(sid="Work", actions=[*self._within], resources=["*"]),
                *forbidden,
            ],
        )
        acknowledge_wildcards(
            boundary,
            "A boundary grants nothing: it ends what policies of a role grant, and those name resources.",
            resources=["*"],
            actions=self._within,
        )
        acknowledge(
            boundary,
            "IAMPolicyNoStatementsWithFullAccess",
            "A boundary grants nothing: it ends what policies of a role grant, and those name actions.",
            packs=COMPLIANCE,
        )
        return boundary


def _forbidden(*, studio: bool) -> list[iam.PolicyStatement]:
    """What none may; with ``studio`` a grant on a key only where no AWS service keeps it."""
    apart = {_GRANT} if studio else set()
    found = [
        iam.PolicyStatement(
            sid="NeverAnyOfThis",
            effect=iam.Effect.DENY,
            actions=[action for action in table.FORBIDDEN_ACTIONS if action not in apart],
            resources=["*"],
        )
    ]
    if studio:
        found.append(
            iam.PolicyStatement(
                sid="NoGrantsOfTheirOwn",
                effect=iam.Effect.DENY,
                actions=[_GRANT],
                resources=["*"],
                # IfExists: without the key the grant is nobody's but the caller's.
                conditions={"BoolIfExists": {"kms:GrantIsForAWSResource": "false"}},
            )
        )
    return found
