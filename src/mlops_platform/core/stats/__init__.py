"""Statistics that several services share."""
