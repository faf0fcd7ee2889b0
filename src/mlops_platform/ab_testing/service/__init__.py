"""Use cases of A/B Testing."""
