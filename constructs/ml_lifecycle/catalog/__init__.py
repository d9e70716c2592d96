"""What people take off a shelf by themselves: AWS Service Catalog."""

from ml_lifecycle.catalog.trials import TrialCatalog, TrialEndpoint

__all__ = ["TrialCatalog", "TrialEndpoint"]
