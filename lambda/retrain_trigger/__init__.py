"""Start the training pipeline when something says that the model should be trained again.

``handler`` (Lambda entry) -> ``logic`` (decides, no AWS) -> ``aws`` (the two SageMaker calls).
"""
