"""What a delivery asks before and after a deploy: the semantic difference, smoke tests, a model by its tag.

``python -m delivery diff|smoke|model``. Reads cloud assemblies and AWS's APIs; knows neither stacks nor
constructs.
"""
