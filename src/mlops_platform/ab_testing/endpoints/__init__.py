"""HTTP of A/B Testing."""
