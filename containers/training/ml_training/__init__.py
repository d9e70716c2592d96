"""The training image: XGBoost on the fitted feature matrix, exported to ONNX and proven equal to it."""
