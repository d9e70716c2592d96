"""Governance: tags, personas, what each sees, and the record of who read or changed what."""

from ml_lifecycle.governance.audit import AuditTrail
from ml_lifecycle.governance.masking import MaskedView, MaskKey
from ml_lifecycle.governance.personas import PERSONAS, PersonaName, Personas
from ml_lifecycle.governance.table import RowsOf, TableGovernance
from ml_lifecycle.governance.tags import LakeTags

__all__ = [
    "PERSONAS",
    "AuditTrail",
    "LakeTags",
    "MaskKey",
    "MaskedView",
    "PersonaName",
    "Personas",
    "RowsOf",
    "TableGovernance",
]
