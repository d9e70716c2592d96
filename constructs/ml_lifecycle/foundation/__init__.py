"""What every other part stands on: keys, network, log groups, notices, budget."""

from ml_lifecycle.foundation.budget import MonthlyBudget
from ml_lifecycle.foundation.keys import Keys, grant_encrypt_decrypt
from ml_lifecycle.foundation.logs import LOG_RETENTION_DAYS, grant_logs_and_traces, log_group
from ml_lifecycle.foundation.network import INTERFACE_ENDPOINTS, Network
from ml_lifecycle.foundation.notices import Notices

__all__ = [
    "INTERFACE_ENDPOINTS",
    "LOG_RETENTION_DAYS",
    "Keys",
    "MonthlyBudget",
    "Network",
    "Notices",
    "grant_encrypt_decrypt",
    "grant_logs_and_traces",
    "log_group",
]
