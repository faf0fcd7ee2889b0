"""A/B Testing: routing, exposures, outcomes, significance."""
