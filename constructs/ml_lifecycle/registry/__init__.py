"""Keep models and their approval, and bring an approved one into service."""

from ml_lifecycle.registry.approval import ApprovalParameter
from ml_lifecycle.registry.registry import ModelRegistry

__all__ = ["ApprovalParameter", "ModelRegistry"]
