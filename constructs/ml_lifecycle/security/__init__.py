"""Who may do what: personas and their boundary, the rules of an organisation."""

from ml_lifecycle.security.job_roles import RoleKind, show_role
from ml_lifecycle.security.organisation import OrganisationRules
from ml_lifecycle.security.personas import PersonaWork
from ml_lifecycle.security.rights import Right, rights

__all__ = ["OrganisationRules", "PersonaWork", "Right", "RoleKind", "rights", "show_role"]
