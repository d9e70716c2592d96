"""Features of the hotline that no declared kind can say."""

from ml_contract.expressions import col

FEATURES = {
    # How far the last hours stand above the day: a storm shows here before the forecast does.
    "surge": col("calls_mean_3h") / col("calls_mean_24h"),
}
