"""Train a model: a SageMaker pipeline that prepares, trains, judges and registers."""
