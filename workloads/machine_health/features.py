"""What the declared kinds cannot say. An expression becomes part of the contract and runs on every engine."""

from ml_contract.expressions import Expr, col

FEATURES: dict[str, Expr] = {
    # A warm hall is no fault of the bearing.
    "bearing_above_ambient_c": col("bearing_c") - col("ambient_c"),
}
