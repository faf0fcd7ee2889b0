"""Every SQL statement of A/B Testing."""
