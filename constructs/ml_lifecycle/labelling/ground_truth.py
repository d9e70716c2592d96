"""placeholder"""

from ml_lifecycle.labelling.own import OwnLabelling


class GroundTruthLabelling(OwnLabelling):
    """x"""
