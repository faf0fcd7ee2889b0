"""Every SQL statement of the Feature Store."""
