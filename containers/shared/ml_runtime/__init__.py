"""What the images share: where SageMaker puts things, how a job fails, how data and models are read.

Modules are imported one by one, so that an image installs only what its own modules need.
"""
