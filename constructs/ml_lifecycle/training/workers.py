"""How the instances of one training talk to each other."""

from __future__ import annotations

from aws_cdk import aws_ec2 as ec2

from constructs import Construct
from ml_lifecycle.acknowledge import COMPLIANCE, acknowledge

__all__ = ["WorkersSecurityGroup"]


class WorkersSecurityGroup(Construct):
    """Define a security group whose members reach each other by every protocol, and nothing else.

    EFA takes a group that allows all traffic to and from itself (EC2 user guide, "Prepare an EFA-enabled
    security group"), and so does the encryption between containers, which is IPsec (SageMaker developer
    guide, "Protect communications between ML compute instances": UDP 500 and ESP).
    """

    def __init__(self, scope: Construct, construct_id: str, *, vpc: ec2.IVpc) -> None:
        super().__init__(scope, construct_id)
        self.group = ec2.SecurityGroup(
            self,
            "Group",
            vpc=vpc,
            description="Workers of one training: each other",
            allow_all_outbound=False,
        )
        everything = ec2.Port.all_traffic()
        self.group.add_ingress_rule(self.group, everything, "Between the workers of a training")
        self.group.add_egress_rule(self.group, everything, "Between the workers of a training")
        acknowledge(
            self.group,
            "EC2RestrictedCommonPorts",
            "Open to members of this very group alone, the workers of one training, as EFA demands.",
            packs=COMPLIANCE,
        )
