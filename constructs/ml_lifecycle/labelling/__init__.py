"""People label what the model is not sure of."""

from ml_lifecycle.labelling.ground_truth import GroundTruthLabelling
from ml_lifecycle.labelling.labelling import Labelling
from ml_lifecycle.labelling.landing import LabelLanding
from ml_lifecycle.labelling.own import OwnLabelling
from ml_lifecycle.labelling.review_site import ReviewSite

__all__ = ["GroundTruthLabelling", "LabelLanding", "Labelling", "OwnLabelling", "ReviewSite"]
