"""The pseudo parameters of CloudFormation, read once: each look at ``cdk.Aws`` asks the jsii kernel."""

from __future__ import annotations

from typing import Final

import aws_cdk as cdk

ACCOUNT: Final = cdk.Aws.ACCOUNT_ID
PARTITION: Final = cdk.Aws.PARTITION
REGION: Final = cdk.Aws.REGION
