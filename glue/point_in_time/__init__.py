"""Labels joined with the Feature Store's history, as it was known at each label's moment."""
