"""What the declared kinds cannot say. An expression becomes part of the contract and runs on every engine."""

from ml_contract.expressions import Expr, col, when

FEATURES: dict[str, Expr] = {
    "vehicle_age_years": col("incident_date").year() - col("auto_year"),
    "at_night": when(col("incident_hour_of_the_day").is_between(6, 21)).then("day").otherwise("night"),
}
