"""Background duties."""
