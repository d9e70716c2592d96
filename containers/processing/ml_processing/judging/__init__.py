"""How a trained model is judged: measures with intervals, bias, explanations, the champion, the report."""
