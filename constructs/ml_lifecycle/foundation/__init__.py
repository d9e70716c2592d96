"""What every other part stands on: keys, network, log groups, notices, budget."""

from ml_lifecycle.foundation.budget import MonthlyBudget
from ml_lifecycle.foundation.glue_security import glue_security
from ml_lifecycle.foundation.keys import Keys, grant_encrypt_decrypt
from ml_lifecycle.foundation.logs import LOG_RETENTION_DAYS, log_group
from ml_lifecycle.foundation.network import INTERFACE_ENDPOINTS, ExistingVpc, Network, Perimeter
from ml_lifecycle.foundation.notices import Notices
from ml_lifecycle.foundation.stakeholders import EVERY_WORKLOAD, Stakeholders, grant_publish
from ml_lifecycle.foundation.state_machines import (
    LAMBDA_BUSY,
    LAMBDA_KILLED,
    RETRY_KILLED,
    RETRY_LAMBDA,
    grant_logs_and_traces,
    logging_to,
)

__all__ = [
    "EVERY_WORKLOAD",
    "INTERFACE_ENDPOINTS",
    "LAMBDA_BUSY",
    "LAMBDA_KILLED",
    "LOG_RETENTION_DAYS",
    "RETRY_KILLED",
    "RETRY_LAMBDA",
    "ExistingVpc",
    "Keys",
    "MonthlyBudget",
    "Network",
    "Notices",
    "Perimeter",
    "Stakeholders",
    "glue_security",
    "grant_encrypt_decrypt",
    "grant_logs_and_traces",
    "grant_publish",
    "log_group",
    "logging_to",
]
