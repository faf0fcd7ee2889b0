"""Use cases of the Feature Store."""
